"""Two stages: the candidates of a blend, ranked by networks or boosted trees."""
