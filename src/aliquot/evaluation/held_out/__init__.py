"""Held-out rows of one's own: prompts with responses, on which a model answers and is scored."""
