"""The LoRA recipe, and the names of the files that a training leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_SCHEDULES = ("linear", "cosine", "constant")
#: The files that a training leaves in its directory, and the one where the first process of a launch announces itself.
RECORD, ADAPTER, MARKER = "finetune.json", "adapter", "launch"


@dataclass(frozen=True)
class LoRA:
    """A finetuning recipe: low-rank adapters (Hu et al., 2021) on linear layers, AdamW.

    Args:
        rank: rank of each adapter.
        alpha: adapters are scaled by alpha / rank.
        dropout: dropout probability on the adapters' inputs.
        target_modules: `auto` (all linear layers of the blocks, if the model's family is known), `all-linear`
            (every linear layer except the output layer), or names of linear layers.
        learning_rate: the peak learning rate.
        warmup: fraction of all steps over which the rate rises.
        schedule: of the learning rate after the warmup: linear, cosine (both to 0) or constant.
        weight_decay: of AdamW.
        epochs: passes over the annotated prompts.
        tokens_per_batch: size of a micro-batch, padding included; memory grows with it.
        accumulate: micro-batches per optimizer step, whose loss is the mean over all their response tokens; None if
            rows are counted instead.
        rows_per_step: rows per optimizer step, exactly, in as many micro-batches as they need; None if micro-batches
            are counted instead.
        max_grad_norm: gradients are clipped to this norm.
        seed: for the adapter's initial weights, the order of examples and dropout.
        checkpoint_every: optimizer steps between checkpoints.
        base_dropout: also apply the dropout in the base model's own config, in addition to `dropout`; if it is on and a
            layer mixes tokens of all rows (experts), devices share whole micro-batches only.
        gradient_checkpointing: recompute activations in the backward pass instead of storing them: about a third
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
                "must say how large an optimizer step is; set one and make the other null"
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
            # With tied weights, an adapter on one of the two silently changes the other (peft issue 2864).
            raise ValueError(
                f"finetune.target_modules={self.target_modules} names the output layer or the embeddings; "
                "name linear layers inside the blocks, or use all-linear"
            )

    def module_names(self) -> list[str]:
        """Return the target modules as a list."""
        return [self.target_modules] if isinstance(self.target_modules, str) else list(self.target_modules)
