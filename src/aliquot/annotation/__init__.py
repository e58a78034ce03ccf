"""Where responses come from: an oracle, people, or teachers."""
