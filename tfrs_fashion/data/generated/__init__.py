"""Generated tables: a small simulated shop, and files in the shape of H&M's public data."""
