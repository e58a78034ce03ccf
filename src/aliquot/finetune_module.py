"""The training loop of LoRA finetuning as Lightning sees it: one batch is one optimiser step.

Learning rate, dropout and batches are functions of the step number, so a checkpoint is the adapter, the optimiser's
moments and that number, and a resumed run ends in the same adapter as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn.functional import cross_entropy

from aliquot.finetune_data import IGNORE, Examples, MicroBatch, Plan, StepBatch, StepBatches
from aliquot.progress import Progress

if TYPE_CHECKING:
    from peft import PeftModel

    from aliquot.finetune import LoRA


def learning_rate(recipe: LoRA, step: int, num_steps: int) -> float:
    """Return the rate of a step: a linear rise over the warmup, then the schedule, which would end after the last."""
    warmup = math.ceil(recipe.warmup * num_steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (num_steps - warmup)
    factor = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
    return recipe.learning_rate * factor[recipe.schedule]


class LoRAModule(LightningModule):
    """Trains the adapter of `network` by the plan.

    Args:
        network: the frozen base with its adapter.
        recipe: the hyper-parameters.
        examples: what to train on.
        plan: in which steps.
        pad: the padding token.
        fingerprint: identity of the whole training; a checkpoint of another one is refused.
    """

    losses: torch.Tensor

    def __init__(
        self, network: PeftModel, recipe: LoRA, examples: Examples, plan: Plan, pad: int, fingerprint: str
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # accumulation weighs micro-batches by their response tokens
        self.strict_loading = False  # checkpoints lack the frozen base
        self.network = network
        self.recipe = recipe
        self._examples, self._plan, self._pad, self._fingerprint = examples, plan, pad, fingerprint
        # The loss of each step, summed over its response tokens, in nats; part of the checkpoint.
        self.register_buffer("losses", torch.zeros(len(plan)))
        self._labelled = torch.empty(0)
        head = cast(torch.nn.Module, network.get_output_embeddings())
        head.register_forward_pre_hook(self._keep_labelled)

    def _keep_labelled(self, head: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Hand the output layer only the positions that have a target: its products are the costliest of all."""
        return (args[0][self._labelled],)

    def train_dataloader(self) -> StepBatches:
        """Return this device's share of every step."""
        return StepBatches(
            self._examples, self._plan, self._pad, self.trainer.global_rank, self.trainer.world_size
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the adapter, fused: it consists of many small tensors."""
        return torch.optim.AdamW(self._adapter(), weight_decay=self.recipe.weight_decay, fused=True)

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Take one optimiser step on the mean loss over all response tokens of its micro-batches."""
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, batch.step, len(self._plan))
        # Dropout of a step depends on nothing that came before it.
        seeds = np.random.SeedSequence([self.recipe.seed, batch.step, self.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        total = torch.zeros((), device=self.device)
        for part in batch.micro_batches:
            loss = self._loss_sum(part)
            # Devices average their gradients; the factor makes a sum of it.
            self.manual_backward(loss * (self.trainer.world_size / batch.num_targets))
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self._adapter(), self.recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        self.losses[batch.step] = self.trainer.strategy.reduce(total, reduce_op="sum")

    def _loss_sum(self, part: MicroBatch) -> torch.Tensor:
        """Sum the cross-entropy of the response tokens."""
        self._labelled = part.targets != IGNORE
        logits = self.network(
            input_ids=part.input_ids, attention_mask=part.attention_mask, use_cache=False
        ).logits
        assert logits.ndim == 2, f"the output layer was bypassed: logits {tuple(logits.shape)}"
        return cross_entropy(logits.float(), part.targets[self._labelled], reduction="sum")

    def _adapter(self) -> list[torch.nn.Parameter]:
        return [p for p in self.network.parameters() if p.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen base out."""
        kept = {name for name, p in self.named_parameters() if p.requires_grad} | {"losses"}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["fingerprint"] = self._fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of a training with another recipe, model or data."""
        if checkpoint["fingerprint"] != self._fingerprint:
            raise ValueError(
                "the checkpoint is of another recipe, model or data; remove it, or use another directory"
            )

    def mean_loss(self, start: int, stop: int) -> float:
        """Return the mean loss of steps start..stop-1 in nats per response token."""
        return float(self.losses[start:stop].sum()) / float(self._plan.num_targets[start:stop].sum())


class Checkpoints(Callback):
    """Writes the checkpoint every `every` optimiser steps, whole or not at all."""

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % self._every:
            return
        # Lightning's own writing may end in a copy across file systems, which a kill can cut in half.
        temporary = self._path.with_suffix(".partial")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(self._path)


class Report(Callback):
    """Shows progress, and appends to metrics.jsonl about a hundred times."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path, self._plan = path, plan
        self._every = max(1, len(plan) // 100)
        self._tokens = np.cumsum(plan.num_tokens)
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        lines = self._path.read_text().splitlines() if step and self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self._path.write_text("".join(f"{line}\n" for line in kept))
        self._seconds_before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self._started = time.monotonic()
        self._progress = Progress("finetune", len(self._plan), "step", done=step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._progress is None:
            return
        step = trainer.global_step
        if step % self._every and step != len(self._plan):
            self._progress.update()
            return
        module = cast(LoRAModule, pl_module)
        start = (step - 1) // self._every * self._every
        loss = module.mean_loss(start, step)
        seconds = time.monotonic() - self._started
        done = step - self._progress.first
        speed = (self._tokens[step - 1] - (self._tokens[step - done - 1] if step > done else 0)) / seconds
        self._progress.update(loss=f"{loss:.3f}", speed=f"{speed:,.0f} tokens/s")
        line = {
            "step": step,
            "loss": round(loss, 5),
            "learning_rate": learning_rate(module.recipe, step - 1, len(self._plan)),
            "tokens": int(self._tokens[step - 1]),
            "seconds": round(self._seconds_before + seconds, 2),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._progress is not None:
            self._progress.close()
