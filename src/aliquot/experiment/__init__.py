"""One run: built from a configuration, done stage by stage, recorded and mirrored."""
