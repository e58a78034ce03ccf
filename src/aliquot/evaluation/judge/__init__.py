"""A language model on a server that compares two models' responses to held-out prompts."""
