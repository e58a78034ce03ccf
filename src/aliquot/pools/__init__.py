"""How pools are read, cleaned and kept: the machinery behind the specs in `aliquot.pools.spec`.

files, hub -> records -> fields -> prompts -> cleaning (near, contamination) -> prepare -> table
"""
