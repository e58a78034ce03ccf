"""Evaluation of a model: benchmarks by lm-eval, and the likelihood of held-out responses."""
