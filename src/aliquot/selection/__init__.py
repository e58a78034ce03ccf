"""From scores to a ranking of the prompts."""
