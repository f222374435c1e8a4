"""Metrics over lists and ranks, with bootstrap intervals."""
