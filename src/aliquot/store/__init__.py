"""Results on disk: stages, keys, leases, and what identifies code and files."""
