"""Aliquot: select, in one step, the prompts most worth annotating. Start reading at `aliquot.types`."""

import os

__version__ = "0.1.0"

# OpenMP threads spin while they wait. As soon as another process wants a core, that slows everything down 10-40 times.
# The setting must be made before torch is imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Silence the tokenizers' fork warning: the batches are large, and are tokenized before any worker starts.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
