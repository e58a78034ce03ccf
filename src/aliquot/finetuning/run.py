"""LoRA finetuning: from annotated prompts to an adapter on disk.

Only response tokens are trained on, the end-of-sequence token among them. A run that was cut off goes on from its
last checkpoint, in the middle of an epoch too, and ends in the same adapter.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aliquot.finetuning.targets import ALL_LINEAR, AUTO, TARGETS
from aliquot.models.control_tokens import note_literal
from aliquot.models.spec import Model
from aliquot.models.template import OVERLONG
from aliquot.runtime.trainer import TrainerSpec
from aliquot.store.store import OnMetrics, ignore, key_fields
from aliquot.types import Adapter, AnnotatedSet

if TYPE_CHECKING:
    from aliquot.finetuning.examples import Examples
    from aliquot.finetuning.training import Training

log = logging.getLogger(__name__)

_SCHEDULES = ("linear", "cosine", "constant")
#: What a training leaves in its directory, and where the first process of a launch says that it trains there.
RECORD, ADAPTER, MARKER = "finetune.json", "adapter", "launch"


@dataclass(frozen=True)
class LoRA:
    """A finetuning recipe: low-rank adapters (Hu et al., 2021) on linear layers, AdamW.

    Args:
        rank: rank of each adapter.
        alpha: adapters are scaled by alpha / rank.
        dropout: probability, on the adapters' inputs.
        target_modules: `auto` (all linear layers of the blocks, where the model's family is known), `all-linear`
            (whatever is linear but the output layer), or names of linear layers.
        learning_rate: at its peak.
        warmup: fraction of all steps over which the rate rises.
        schedule: of the rate after the warmup: linear, cosine (both to 0) or constant.
        weight_decay: of AdamW.
        epochs: passes over the annotated prompts.
        tokens_per_batch: size of a micro-batch, padding included; memory grows with it.
        accumulate: micro-batches per optimiser step, whose loss is the mean over all their response tokens; None where
            rows are counted instead.
        rows_per_step: rows per optimiser step, exactly, in as many micro-batches as they need; None where micro-batches
            are counted instead.
        max_grad_norm: gradients are clipped to it.
        seed: of the adapter's first weights, the order of examples and dropout.
        checkpoint_every: optimiser steps between checkpoints.
        base_dropout: let the base model drop what its own config says, besides `dropout`; where it is on, and where a
            layer mixes tokens of all rows (experts), devices share whole micro-batches only.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them: about a third
            slower, a fraction of the memory.
    """

    rank: int
    alpha: float
    dropout: float
    target_modules: str | Sequence[str]
    learning_rate: float
    warmup: float
    schedule: str
    weight_decay: float
    epochs: int
    tokens_per_batch: int
    accumulate: int | None
    max_grad_norm: float
    seed: int
    checkpoint_every: int = field(metadata={"key": False})
    rows_per_step: int | None = None
    gradient_checkpointing: bool = field(default=False, metadata={"key": False})
    base_dropout: bool = field(default=False, metadata={"absent": False})

    def __post_init__(self) -> None:
        if (self.accumulate is None) == (self.rows_per_step is None):
            raise ValueError(
                f"finetune.accumulate={self.accumulate} and finetune.rows_per_step={self.rows_per_step}: exactly one "
                "must say how large an optimiser step is; set one and make the other null"
            )
        for name in ("rank", "epochs", "tokens_per_batch", "accumulate", "rows_per_step", "checkpoint_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"finetune.{name}={getattr(self, name)} is too small; give at least 1")
        for name in ("alpha", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"finetune.{name}={getattr(self, name)} is not positive")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"finetune.{name}={getattr(self, name)} is outside [0, 1)")
        if self.weight_decay < 0 or self.seed < 0:
            raise ValueError(f"finetune.weight_decay={self.weight_decay} and seed={self.seed} must not be negative")
        if self.schedule not in _SCHEDULES:
            raise ValueError(f"finetune.schedule={self.schedule} is unknown; choose one of {', '.join(_SCHEDULES)}")
        if any("lm_head" in name or "embed" in name for name in self.module_names()):
            # With tied weights an adapter on one of the two changes the other unseen (peft issue 2864).
            raise ValueError(
                f"finetune.target_modules={self.target_modules} names the output layer or the embeddings; "
                "name linear layers inside the blocks, or use all-linear"
            )

    def module_names(self) -> list[str]:
        """Return the target modules as a list."""
        return [self.target_modules] if isinstance(self.target_modules, str) else list(self.target_modules)


def check_trainable(model: Model, recipe: LoRA) -> None:
    """Raise ValueError where the model cannot be finetuned by the recipe, before anything expensive starts."""
    if model.dtype == "float16":
        raise ValueError("model.dtype=float16 has too narrow a range for gradients; use bfloat16 or float32")
    names = recipe.module_names()
    if names in ([ALL_LINEAR], [AUTO]) and model.family() in TARGETS:
        return  # at once: importing torch and peft takes seconds
    from aliquot.finetuning.adapter import check_adaptable

    check_adaptable(model, recipe)


def finetune(
    model: Model,
    annotated: AnnotatedSet,
    recipe: LoRA,
    trainer: TrainerSpec,
    directory: Path,
    on_metrics: OnMetrics = ignore,
) -> Adapter:
    """Train an adapter of `model` on annotated prompts and leave it, and what happened, in `directory`.

    Writes adapter/ (peft's format), finetune.json (counts, loss) and metrics.jsonl (a line per percent of the
    steps, each handed to `on_metrics` too); the checkpoint lies beside them only as long as the training lasts.
    On several devices each takes a share of every step: the steps are the same, and so is what dropout drops.

    Raises:
        ValueError: the dtype cannot be trained, there is nothing to train on, the loss is not finite, `directory` holds
            the checkpoint of another training, or this is not the first of several processes, which alone begins one.
    """
    at = trainer.place()
    if at.rank > 0:
        raise ValueError(
            f"process {at.rank + 1} of {at.world} cannot begin a training, and the first has ended without one; its "
            "output says why"
        )
    training = _plan(model, annotated, recipe, trainer, directory)
    _report(training.examples, model)
    directory.mkdir(parents=True, exist_ok=True)
    training.run(at, on_metrics)
    return load_adapter(directory)


def take_part(
    model: Model,
    annotated: Callable[[], AnnotatedSet],
    recipe: LoRA,
    trainer: TrainerSpec,
    directory: Path,
    is_done: Callable[[], bool],
) -> None:
    """Join the training that the first process of our launch begins in `directory`; another run may finish it.

    Args:
        model: the base.
        annotated: what to train on; asked for when the training begins.
        recipe: how.
        trainer: on which devices.
        directory: of the training.
        is_done: says whether there is nothing left to do.
    """
    from aliquot.runtime.processes import wait_for_launch

    at = trainer.place()
    if wait_for_launch(directory / MARKER, at.launch, is_done):
        _plan(model, annotated(), recipe, trainer, directory).take_part(at, ignore)


def load_adapter(directory: Path) -> Adapter:
    """Return the adapter that `finetune` left in `directory`."""
    record = json.loads((directory / RECORD).read_text())
    return Adapter(directory / ADAPTER, record["base"], record["steps"], record["loss"])


def _plan(model: Model, annotated: AnnotatedSet, recipe: LoRA, trainer: TrainerSpec, directory: Path) -> Training:
    check_trainable(model, recipe)
    if not len(annotated):
        raise ValueError("there are 0 annotated prompts to finetune on; raise the budget")
    from aliquot.finetuning.examples import encode_examples
    from aliquot.finetuning.training import Training

    tokenizer = model.load_tokenizer()
    examples = encode_examples(model, tokenizer, annotated)
    longest = int(examples.lengths.max())
    model.check_positions(longest, f"an example of {longest} tokens takes")
    assert isinstance(tokenizer.pad_token_id, int)
    fingerprint = _fingerprint(model, recipe, examples)
    return Training(model, examples, tokenizer.pad_token_id, recipe, fingerprint, trainer, directory)


def _report(examples: Examples, model: Model) -> None:
    """Say what `max_tokens` cost, and what was read as text."""
    if examples.num_literal:
        log.info("%s", note_literal(examples.num_literal, len(examples.tokens), "examples"))
    if examples.num_cut_prompts or examples.num_cut_responses:
        log.warning(
            "model.max_tokens=%d: of %d examples, %d lost the %s of the prompt and %d the end of the response",
            *(model.max_tokens, len(examples.tokens)),
            *(examples.num_cut_prompts, OVERLONG[model.overlong], examples.num_cut_responses),
        )


def _fingerprint(model: Model, recipe: LoRA, examples: Examples) -> str:
    """Hash all that the training depends on."""
    digest = hashlib.sha256(repr((model.identity(), key_fields(recipe))).encode())
    for array in (examples.lengths, examples.prompt_lengths, *examples.tokens):
        digest.update(array.tobytes())
    return digest.hexdigest()
