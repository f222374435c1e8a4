"""Two towers as a recommender."""
