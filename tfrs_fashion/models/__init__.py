"""Keras models: encoders, towers, losses and training."""
