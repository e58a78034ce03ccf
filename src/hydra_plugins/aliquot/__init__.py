"""Hydra finds plugins by this namespace. Import-light: every `python run.py` imports it."""
