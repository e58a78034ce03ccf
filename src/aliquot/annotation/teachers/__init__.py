"""Language models that answer prompts, on a server or on this machine."""
