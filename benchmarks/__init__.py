"""What edgecheck costs, against what a person would write by hand. Run ``python -m benchmarks``."""
