"""The log of evaluated runs, their comparison, and their export to MLflow."""
