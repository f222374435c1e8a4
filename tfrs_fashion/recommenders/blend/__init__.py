"""Blends: candidates of several generators in one pool, and those that earn their place in it."""
