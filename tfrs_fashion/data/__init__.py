"""Sources, which bring raw files to the canonical columns, and splits in time."""
