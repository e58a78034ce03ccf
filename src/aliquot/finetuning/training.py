"""One training of an adapter: in this process, or in several that take the same optimizer steps together.

Every process holds the whole model and takes its share of each step. Their gradients are summed, so the adapter is the
same on any number of devices. The first process writes the files.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aliquot.finetuning.adapter import add_adapter, save_adapter
from aliquot.finetuning.examples import Examples, plan_steps
from aliquot.finetuning.module import Checkpoints, LoRAModule, LossLog
from aliquot.finetuning.recipe import ADAPTER, MARKER, RECORD, LoRA
from aliquot.models.spec import Model
from aliquot.runtime.collectives import agreed, meeting_point, together
from aliquot.runtime.processes import Place, Share, run_side_by_side
from aliquot.runtime.signals import interruptible
from aliquot.runtime.trainer import TrainerSpec, threads_for
from aliquot.store.store import OnMetrics, write_atomic

_CHECKPOINT = "checkpoint.ckpt"
#: Seconds that the other processes have to end when one is lost: they cannot continue without it.
_SECONDS_TO_END = 10.0


@dataclass(frozen=True)
class Training:
    """A training; picklable, so that other processes can take part in it.

    Args:
        model: the model to adapt.
        examples: the training data.
        pad: the padding token.
        recipe: the hyperparameters.
        fingerprint: identity of everything that the training depends on; a checkpoint of another one is refused.
        trainer: the devices.
        directory: the destination of the adapter.
    """

    model: Model
    examples: Examples
    pad: int
    recipe: LoRA
    fingerprint: str
    trainer: TrainerSpec
    directory: Path

    def run(self, at: Place, on_metrics: OnMetrics) -> None:
        """Train; if no launcher has started a process for each device, start them for the duration of the training."""
        devices = self.trainer.devices
        if at.world > 1:
            marker = self.directory / MARKER
            write_atomic(marker, at.launch)
            try:
                self.take_part(at, on_metrics)
            finally:
                marker.unlink(missing_ok=True)
        elif devices > 1:
            with tempfile.TemporaryDirectory() as folder:  # a file, because a free port may be taken a moment later
                meeting = f"file://{folder}/meeting"
                places = [Place(rank, devices, rank) for rank in range(devices)]
                shares: list[Share] = [partial(self.train, place, meeting) for place in places]
                run_side_by_side(shares, on_metrics, _SECONDS_TO_END)
        else:
            self.take_part(at, on_metrics)

    def take_part(self, at: Place, on_metrics: OnMetrics) -> None:
        """Train in this process, together with the others that were started."""
        with interruptible() as interrupted:
            self.train(at, meeting_point() if at.world > 1 else "", on_metrics, interrupted.is_set)

    def train(self, at: Place, meeting: str, on_metrics: OnMetrics, told_to_end: Callable[[], bool]) -> None:
        """Take every step of the plan, from the checkpoint if there is one; leave the adapter and the record.

        Args:
            at: the position of this process.
            meeting: the rendezvous address of the processes.
            on_metrics: receives what is logged, in the first process.
            told_to_end: says whether the user wants the training to end.
        """
        checkpoint, plan = self.directory / _CHECKPOINT, plan_steps(self.examples, self.recipe)
        fit = self.trainer.build(
            self.directory,
            at.local_rank,
            max_epochs=1,  # the plan holds all epochs
            precision="bf16-mixed" if self.model.dtype == "bfloat16" else "32-true",
            callbacks=[
                LossLog(self.directory / "metrics.jsonl", plan, at, on_metrics),
                Checkpoints(checkpoint, self.recipe.checkpoint_every, at, told_to_end),
            ],
        )
        device = fit.strategy.root_device
        # This device only: the generators of the others belong to their processes.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            network = add_adapter(self.model, self.recipe)
            module = LoRAModule(network, self.recipe, self.examples, plan, self.pad, self.fingerprint, at)
            module.train()  # transformers loads models in eval mode, and Lightning leaves them there
            with threads_for(network), together(at, meeting, device):
                resumes = agreed(checkpoint.exists(), at, device)
                fit.fit(module, ckpt_path=checkpoint if resumes else None, weights_only=True)
        if at.rank == 0:
            save_adapter(network, self.directory / ADAPTER)
            write_atomic(self.directory / RECORD, json.dumps(self._record(module), indent=2) + "\n")
            checkpoint.unlink(missing_ok=True)

    def _record(self, module: LoRAModule) -> dict[str, Any]:
        plan, examples = module.plan, self.examples
        last_tenth = max(1, math.ceil(len(plan) / 10))
        return {
            "base": str(self.model.identity()["weights"]),
            "steps": len(plan),
            "loss": module.mean_loss(len(plan) - last_tenth, len(plan)),
            "rows": len(examples.tokens),
            "prompts_cut": examples.num_cut_prompts,
            "responses_cut": examples.num_cut_responses,
            "tokens": int(plan.num_tokens.sum()),
            "response_tokens": int(plan.num_targets.sum()),
        }
