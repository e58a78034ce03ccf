"""How pools are read, cleaned and stored: the machinery for the specs in `aliquot.pools.spec`.

files, hub -> records -> fields -> prompts -> cleaning (near, contamination) -> prepare -> table
"""
