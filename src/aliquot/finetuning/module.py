"""The training loop of LoRA finetuning in Lightning's terms: one batch is one optimizer step.

Learning rate, dropout and batches are functions of the step number. A checkpoint therefore consists of the adapter, the
optimizer's moments and that number, and a resumed run ends in the same adapter as an uninterrupted one.
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn.functional import cross_entropy

from aliquot.finetuning.dropout import rest_base, rows_seen, share_dropout
from aliquot.finetuning.examples import IGNORE, Examples, MicroBatch, Part, StepBatch, StepBatches, StepPlan
from aliquot.models.files import full_disk_told
from aliquot.runtime.collectives import add_up, agreed
from aliquot.runtime.processes import Place
from aliquot.runtime.progress import Progress
from aliquot.store.store import OnMetrics, write_atomic

if TYPE_CHECKING:
    from peft import PeftModel

    from aliquot.finetuning.recipe import LoRA

_ALONE = Place()


def learning_rate(recipe: LoRA, step: int, num_steps: int) -> float:
    """Return the learning rate of a step: a linear warmup, then the schedule, at 0 after the last step."""
    warmup = math.ceil(recipe.warmup * num_steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (num_steps - warmup)
    factor = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
    return recipe.learning_rate * factor[recipe.schedule]


class LoRAModule(LightningModule):
    """Trains the adapter of `network` according to the plan.

    Args:
        network: the frozen base with its adapter.
        recipe: the hyperparameters.
        examples: the training data.
        plan: the steps.
        pad: the padding token.
        fingerprint: identity of the whole training; a checkpoint of another one is refused.
        at: the position of this process among those that train together.
    """

    losses: torch.Tensor

    def __init__(
        self,
        network: PeftModel,
        recipe: LoRA,
        examples: Examples,
        plan: StepPlan,
        pad: int,
        fingerprint: str,
        at: Place = _ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # accumulation weights micro-batches by their response tokens
        self.strict_loading = False  # checkpoints lack the frozen base
        self.network = network
        self.recipe = recipe
        self.plan = plan
        self._examples, self._pad, self._fingerprint, self._at = examples, pad, fingerprint, at
        # The loss of each step, summed over its response tokens, in nats; part of the checkpoint.
        self.register_buffer("losses", torch.zeros(len(plan)))
        self._share = share_dropout(network)
        self._labeled = torch.empty(0)
        head = cast(torch.nn.Module, network.get_output_embeddings())
        head.register_forward_pre_hook(self._keep_labeled)

    def _keep_labeled(self, head: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Pass only the positions that have a target to the output layer, which is the widest of all layers."""
        return (args[0][self._labeled],)

    def train_dataloader(self) -> StepBatches:
        """Return this process's share of every step; whole micro-batches only, if dropout requires it."""
        at = self._at
        whole = self.recipe.base_dropout or agreed(at.world > 1 and self._mixes_rows(), at, self.device)
        return StepBatches(self._examples, self.plan, self._pad, at.rank, at.world, whole)

    def _mixes_rows(self) -> bool:
        """Tell, from the very first micro-batch, whether any dropout sees tokens whose rows cannot be identified."""
        step = next(iter(StepBatches(self._examples, self.plan, self._pad)))
        first: MicroBatch = self.transfer_batch_to_device(step.micro_batches[0], self.device, 0)
        widths = first.input_ids.shape[1], first.targets.shape[1]
        with torch.no_grad(), rows_seen(self.network, len(first.input_ids), widths) as seen:
            self.loss_sum(first)
        return not all(seen)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return a fused AdamW for the adapter, which consists of many small tensors."""
        return torch.optim.AdamW(self._adapter(), weight_decay=self.recipe.weight_decay, fused=True)

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Take one optimizer step on the mean loss over all response tokens of its micro-batches."""
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, batch.step, len(self.plan))
        total = torch.zeros((), device=self.device)
        for micro_batch, part in zip(batch.micro_batches, batch.parts, strict=True):
            self._seed_dropout(batch.step, part, micro_batch)
            loss = self.loss_sum(micro_batch)
            self.manual_backward(loss / batch.num_targets)
            total += loss.detach()
        if self._at.world > 1:
            add_up([*self._gradients(), total])
        torch.nn.utils.clip_grad_norm_(self._adapter(), self.recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        self.losses[batch.step] = total

    def _seed_dropout(self, step: int, part: Part, micro_batch: MicroBatch) -> None:
        """Make dropout depend on the micro-batch only: not on anything before it, nor on the device."""
        seeds = np.random.SeedSequence([self.recipe.seed, step, part.number])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        self._share.part = part
        self._share.widths = micro_batch.input_ids.shape[1], micro_batch.targets.shape[1]

    def train(self, mode: bool = True) -> Self:
        """Put the adapter in training mode, and the base model too if its own dropout is requested."""
        super().train(mode)
        if mode and not self.recipe.base_dropout:
            rest_base(self.network)
        return self

    def loss_sum(self, part: MicroBatch) -> torch.Tensor:
        """Sum the cross-entropy of the response tokens, in nats."""
        self._labeled = part.targets != IGNORE
        response = {} if part.decoder_input_ids is None else {"decoder_input_ids": part.decoder_input_ids}
        logits = self.network(
            input_ids=part.input_ids, attention_mask=part.attention_mask, use_cache=False, **response
        ).logits
        assert logits.ndim == 2, f"the output layer was bypassed: logits {tuple(logits.shape)}"
        return cross_entropy(logits.float(), part.targets[self._labeled], reduction="sum")

    def _adapter(self) -> list[torch.nn.Parameter]:
        return [p for p in self.network.parameters() if p.requires_grad]

    def _gradients(self) -> Iterator[torch.Tensor]:
        """Yield the gradients of the adapter; a layer that this device's rows skipped, such as an expert, has zeros."""
        for weights in self._adapter():
            if weights.grad is None:
                weights.grad = torch.zeros_like(weights)
            yield weights.grad

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen base out."""
        kept = {name for name, p in self.named_parameters() if p.requires_grad} | {"losses"}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["fingerprint"] = self._fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of a training with another recipe, model or data."""
        if checkpoint["fingerprint"] != self._fingerprint:
            raise ValueError("the checkpoint is of another recipe, model or data; remove it, or use another directory")

    def mean_loss(self, start: int, stop: int) -> float:
        """Return the mean loss of steps start..stop-1 in nats per response token."""
        return float(self.losses[start:stop].sum()) / float(self.plan.num_targets[start:stop].sum())


class Checkpoints(Callback):
    """Writes the checkpoint every `every` optimizer steps and on a request to stop (SIGTERM, Ctrl-C).

    Whichever process gets the request, all end after the same step, and the first of them saves.
    """

    def __init__(self, path: Path, every: int, at: Place, told_to_end: Callable[[], bool]) -> None:
        self._path, self._every, self._at, self._told_to_end = path, every, at, told_to_end
        self._terminated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's SIGTERM handler; Lightning restores the earlier handler at the end.

        If the signal came between our check at the end of a step and its own, Lightning would exit with code 0 and save
        nothing.
        """
        self._terminated = trainer.received_sigterm
        if current_thread() is main_thread():  # other threads may not handle signals
            signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        """Save the checkpoint atomically."""
        interrupted = self._told_to_end()
        ends = agreed(interrupted or self._terminated, self._at, trainer.strategy.root_device)
        if self._at.rank == 0 and (ends or trainer.global_step % self._every == 0):
            # Lightning's own write may end in a copy across file systems, which a kill can leave incomplete.
            temporary = self._path.with_suffix(".partial")
            with full_disk_told(temporary):
                trainer.save_checkpoint(temporary, weights_only=False)
            temporary.replace(self._path)
        if interrupted:
            raise KeyboardInterrupt
        if ends:
            raise SystemExit(128 + signal.SIGTERM)


class LossLog(Callback):
    """Shows progress and, about a hundred times, appends a line to metrics.jsonl and passes it to `on_metrics`."""

    def __init__(self, path: Path, plan: StepPlan, at: Place, on_metrics: OnMetrics) -> None:
        self._path = path
        self._at = at
        self._on_metrics = on_metrics
        self._num_steps = len(plan)
        self._every = max(1, len(plan) // 100)
        #: Tokens of all steps before each step.
        self._tokens = np.concatenate([[0], np.cumsum(plan.num_tokens)])
        self._first_step, self._seconds_before, self._started = 0, 0.0, 0.0
        self._progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the metrics from the time of the checkpoint; later ones will be written again."""
        if self._at.rank > 0:
            return
        self._first_step = trainer.global_step
        text = self._path.read_text() if self._first_step and self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()  # a crash may have left the last line incomplete
        kept = [line for line in whole if json.loads(line)["step"] <= self._first_step]
        write_atomic(self._path, "".join(f"{line}\n" for line in kept))
        self._seconds_before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self._started = time.monotonic()
        self._progress = Progress("finetune", self._num_steps, "step", done=self._first_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        """Count the step and, at intervals, log the mean loss since the previous line."""
        step, module = trainer.global_step, cast(LoRAModule, pl_module)
        if self._progress is not None:
            self._progress.update()
        if step % self._every and step != self._num_steps:
            return
        loss = module.mean_loss((step - 1) // self._every * self._every, step)
        if not math.isfinite(loss):  # the same in all processes
            rate = module.recipe.learning_rate
            raise ValueError(f"the loss is {loss} at step {step}; lower finetune.learning_rate (now {rate:g})")
        if self._progress is not None:
            self._log(step, loss, learning_rate(module.recipe, step - 1, self._num_steps), self._progress)

    def _log(self, step: int, loss: float, rate: float, progress: Progress) -> None:
        """Write a line."""
        seconds = time.monotonic() - self._started
        speed = (self._tokens[step] - self._tokens[self._first_step]) / seconds
        progress.update(0, loss=f"{loss:.3f}", speed=f"{speed:,.0f} tokens/s")
        line = {
            "step": step,
            "loss": round(loss, 5),
            "learning_rate": rate,
            "tokens": int(self._tokens[step]),
            "seconds": round(self._seconds_before + seconds, 2),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._on_metrics(line)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the bar where it stands."""
        self.on_train_end(trainer, pl_module)
