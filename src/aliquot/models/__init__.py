"""Language models: how one is named, checked, loaded, and given text."""
