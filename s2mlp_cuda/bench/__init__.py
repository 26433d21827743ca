"""``s2mlp bench``: benchmarks every operator and model against its baselines on this machine."""
