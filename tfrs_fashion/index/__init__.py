"""Candidate indices: embeddings in, top-k articles out, each a `tf.Module` that says whether it is exact."""
