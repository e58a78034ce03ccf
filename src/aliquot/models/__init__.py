"""Language models: how to name, check and load one, and how to give it text."""
