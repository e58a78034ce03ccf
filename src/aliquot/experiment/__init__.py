"""One run: built from a configuration, executed stage by stage, recorded and mirrored."""
