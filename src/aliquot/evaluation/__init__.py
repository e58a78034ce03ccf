"""How good a model is: benchmarks by lm-eval, and the likelihood of held-out responses."""
