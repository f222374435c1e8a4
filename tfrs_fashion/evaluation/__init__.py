"""What a recommender is worth: metrics, intervals, paired differences and the report.

This room knows tables, Candidates and embeddings handed to it as arrays, never a model.
"""
