"""What models read: indices, timelines, article tables and input pipelines."""
