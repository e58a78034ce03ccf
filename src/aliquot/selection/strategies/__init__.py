"""The strategies, one per file; each has a yaml in conf/strategy."""
