"""Raw sources brought to the canonical columns, and splits in time."""
