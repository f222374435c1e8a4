"""Hyperparameter search with keras-tuner's oracles."""
