"""LoRA finetuning: from annotated prompts to an adapter on disk.

Only response tokens are trained on, the end-of-sequence token among them. A run that was cut off goes on from its
last checkpoint, in the middle of an epoch too, and ends in the same adapter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aliquot.model import Model
from aliquot.store import OnMetrics, ignore, write_atomic
from aliquot.trainer import TrainerSpec, interruptible, threads_for
from aliquot.types import Adapter, AnnotatedSet

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from aliquot.finetune_data import Examples, Plan
    from aliquot.finetune_module import LoRAModule

log = logging.getLogger(__name__)

_SCHEDULES = ("linear", "cosine", "constant")
_RECORD = "finetune.json"
_CHECKPOINT = "checkpoint.ckpt"
_ADAPTER = "adapter"


@dataclass(frozen=True)
class LoRA:
    """A finetuning recipe: low-rank adapters (Hu et al., 2021) on linear layers, AdamW.

    Args:
        rank: rank of each adapter.
        alpha: adapters are scaled by alpha / rank.
        dropout: probability, on the adapters' inputs.
        target_modules: `all-linear` (all but the output layer), or names of linear layers.
        learning_rate: at its peak.
        warmup: fraction of all steps over which the rate rises.
        schedule: of the rate after the warmup: linear, cosine (both to 0) or constant.
        weight_decay: of AdamW.
        epochs: passes over the annotated prompts.
        tokens_per_batch: size of a micro-batch, padding included; memory grows with it.
        accumulate: micro-batches per optimiser step, whose loss is the mean over all their response tokens.
        max_grad_norm: gradients are clipped to it.
        seed: of the adapter's first weights, the order of examples and dropout.
        checkpoint_every: optimiser steps between checkpoints.
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
    accumulate: int
    max_grad_norm: float
    seed: int
    checkpoint_every: int = field(metadata={"key": False})

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "tokens_per_batch", "accumulate", "checkpoint_every"):
            if getattr(self, name) < 1:
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


def check_trainable(model: Model) -> None:
    """Raise ValueError where the model cannot be finetuned, before anything expensive starts."""
    if model.dtype == "float16":
        raise ValueError("model.dtype=float16 has too narrow a range for gradients; use bfloat16 or float32")


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

    Raises:
        ValueError: the dtype cannot be trained, there is nothing to train on, the loss is not finite, or `directory`
            holds the checkpoint of another training.
    """
    check_trainable(model)
    if not len(annotated):
        raise ValueError("there are 0 annotated prompts to finetune on; raise the budget")
    from aliquot.adapter import save_adapter
    from aliquot.finetune_data import encode_examples, plan_steps

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = model.load_tokenizer()
    examples = encode_examples(model, tokenizer, annotated)
    _report_cuts(examples, model)
    plan = plan_steps(examples, recipe.tokens_per_batch, recipe.accumulate, recipe.epochs, recipe.seed)
    assert isinstance(tokenizer.pad_token_id, int)
    fit, module = _train(model, examples, plan, recipe, tokenizer.pad_token_id, trainer, directory, on_metrics)
    if fit.is_global_zero:
        save_adapter(module.network, directory / _ADAPTER)
        last_tenth = max(1, math.ceil(len(plan) / 10))
        record = {
            "base": _base(model),
            "steps": len(plan),
            "loss": module.mean_loss(len(plan) - last_tenth, len(plan)),
            "rows": len(examples.tokens),
            "prompts_cut": examples.num_cut_prompts,
            "responses_cut": examples.num_cut_responses,
            "tokens": int(plan.num_tokens.sum()),
            "response_tokens": int(plan.num_targets.sum()),
        }
        write_atomic(directory / _RECORD, json.dumps(record, indent=2) + "\n")
        (directory / _CHECKPOINT).unlink(missing_ok=True)
    fit.strategy.barrier()
    return load_adapter(directory)


def load_adapter(directory: Path) -> Adapter:
    """Return the adapter that `finetune` left in `directory`."""
    record = json.loads((directory / _RECORD).read_text())
    return Adapter(directory / _ADAPTER, record["base"], record["steps"], record["loss"])


def _train(
    model: Model,
    examples: Examples,
    plan: Plan,
    recipe: LoRA,
    pad: int,
    trainer: TrainerSpec,
    directory: Path,
    on_metrics: OnMetrics,
) -> tuple[Trainer, LoRAModule]:
    """Run the plan to its end, from the checkpoint where there is one."""
    import torch

    from aliquot.adapter import add_adapter
    from aliquot.finetune_module import Checkpoints, LoRAModule, Report

    checkpoint = directory / _CHECKPOINT
    with torch.random.fork_rng(), interruptible() as interrupted:  # pyright: ignore[reportUnknownMemberType]
        fit = trainer.build(
            directory,
            max_epochs=1,  # the plan holds all epochs
            precision="bf16-mixed" if model.dtype == "bfloat16" else "32-true",
            callbacks=[
                Report(directory / "metrics.jsonl", plan, on_metrics),
                Checkpoints(checkpoint, recipe.checkpoint_every, interrupted),
            ],
        )
        network = add_adapter(model, recipe)
        module = LoRAModule(network, recipe, examples, plan, pad, _fingerprint(model, recipe, examples))
        module.train()  # transformers loads models in eval mode, and Lightning leaves them there: no dropout
        with threads_for(network):
            fit.fit(module, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
    return fit, module


def _report_cuts(examples: Examples, model: Model) -> None:
    """Say what `max_tokens` cost."""
    if examples.num_cut_prompts or examples.num_cut_responses:
        log.warning(
            "model.max_tokens=%d: of %d examples, %d lost the beginning of the prompt and %d the end of the response",
            *(model.max_tokens, len(examples.tokens), examples.num_cut_prompts, examples.num_cut_responses),
        )


def _base(model: Model) -> str:
    return str(model.identity()["weights"])


def _fingerprint(model: Model, recipe: LoRA, examples: Examples) -> str:
    """Hash all that the training depends on."""
    fields = [(f.name, getattr(recipe, f.name)) for f in dataclasses.fields(recipe) if f.metadata.get("key", True)]
    digest = hashlib.sha256(repr((model.identity(), fields)).encode())
    for array in (examples.lengths, examples.prompt_lengths, *examples.tokens):
        digest.update(array.tobytes())
    return digest.hexdigest()
