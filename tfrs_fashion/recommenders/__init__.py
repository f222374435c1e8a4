"""Recommenders: one protocol, from popularity to two towers."""
