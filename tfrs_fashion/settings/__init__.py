"""The settings of a pipeline file, as pydantic models."""
