"""Features that models read: vocabularies, article tables, timelines, views of a split and input pipelines."""
