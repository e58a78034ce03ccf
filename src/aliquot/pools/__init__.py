"""How pools are read, cleaned and kept: the machinery behind the specs in `aliquot.pool`.

files, hub -> records -> fields -> prompts -> cleaning (near, contamination) -> prepare -> table
"""
