"""The strategies, one a file; each has a yaml in conf/strategy."""
