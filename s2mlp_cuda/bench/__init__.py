"""Every operator and model against every other way to compute it, on the machine at hand: ``s2mlp bench``."""
