"""Export to SavedModels, and batch inference with them."""
