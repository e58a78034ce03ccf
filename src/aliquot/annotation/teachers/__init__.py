"""Language models that answer, behind a server or on this machine."""
