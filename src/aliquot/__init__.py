"""Aliquot: pick, in one step, the prompts most worth annotating. Start reading at `aliquot.types`."""

import os

__version__ = "0.1.0"

# OpenMP threads that spin while they wait slow everything down 10-40 times as soon as another process wants a core.
# It counts only if set before torch is imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tokenizers fork-safety chatter; the batches are large and tokenised before any worker starts.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
