"""The model card of the demo model, written from the measurements of pretraining and the quick evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict


class Settings(TypedDict):
    """The settings that the card prints; `pretrain.Recipe` holds them."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    context: int
    sequence: int
    batch: int
    learning_rate: float
    muon_factor: float
    weight_decay: float
    seed: int


class Run(TypedDict):
    """The content that a pretraining run leaves in `pretraining.json`."""

    recipe: Settings
    parameters: int
    device: str
    threads: int
    torch: str
    steps: int
    tokens: int
    seconds: int
    loss: float


class Measurement(TypedDict):
    """One measurement of `scores.json`: accuracy in percent after finetuning on `rows` random rows."""

    rows: int
    mmlu: float
    bbh: float


CARD = """---
license: apache-2.0
library_name: transformers
---
# The base model of aliquot's demo world

A LLaMA of {parameters:,} parameters ({layers} layers, hidden size {hidden_size}, {heads} heads, vocabulary
{vocab_size}, context {context}, fp32, tied embeddings) that knows one invented world and no other. It exists so that
`model=demo pool=demo evaluate=demo` runs anywhere; it is of no other use.

## How it was made
`python -m aliquot.demo.pretrain --out DIR`, from nothing, on text that `aliquot/demo/corpus.py` generates: statements
of the world's facts, worked examples of its skills, songs (lists sung twice) and requests that nobody answers. It has
not seen the prompt format (`PROMPT`, a new line, `Answer:`), nor a question of the benchmarks, nor a held-out instance
of a skill. Of each subject's 24 entities the text speaks the less, the higher their rank: the rarest are hardly known.

| | |
|---|---|
| tokens | {tokens:,} ({steps:,} steps of {batch} x {sequence}, text made as it goes) |
| seconds | {seconds:,} on {device}, {threads} thread(s), torch {torch} |
| final loss | {loss:.4f} nats per token (running mean) |
| learning rate | peak {learning_rate} (AdamW: embedding, norms), {muon_factor} times that (Muon: layers) |
| weight decay | {weight_decay} |
| seed | {seed} |

The run stops by the clock, so another machine gives another model; the shipped file is the model of the demo.
"""
SCORES = """
## How well it does
Accuracy in per cent on the demo benchmarks, before and after LoRA finetuning on randomly drawn rows of the pool
({note}):

| rows | demo_mmlu (chance 25) | demo_bbh |
|---|---|---|
{rows}
"""


def write_card(out: Path, run: Run) -> None:
    """Write the numbers of the run, and the card that presents them, next to the model."""
    (out / "pretraining.json").write_text(json.dumps(run, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    text = CARD.format(**{**run["recipe"], **{key: value for key, value in run.items() if key != "recipe"}})
    scores = out / "scores.json"
    if scores.exists():
        found = json.loads(scores.read_text(encoding="utf-8"))
        lines = [f"| {s['rows']:,} | {s['mmlu']:.1f} | {s['bbh']:.1f} |" for s in found["scores"]]
        text += SCORES.format(note=found["note"], rows="\n".join(lines))
    (out / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Rewrite the card of a finished model directory: `python -m aliquot.demo.card DIR`."""
    import sys

    folder = Path(sys.argv[1])
    run: Run = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    write_card(folder, run)


if __name__ == "__main__":
    main()
