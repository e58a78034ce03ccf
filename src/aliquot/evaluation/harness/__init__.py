"""lm-eval: its tasks, its models, its output."""
