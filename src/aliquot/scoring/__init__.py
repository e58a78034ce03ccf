"""The one inference pass: from prompts to features and statistics."""
