"""Checks that look for leakage, collapse and mistakes in a finished run."""
