"""The configuration: its schema, the command line, and the help."""
