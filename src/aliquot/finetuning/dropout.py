"""Dropout in finetuning: the same on any number of devices, and without the base model's own unless requested.

The dropout mask is drawn for a whole micro-batch. If several devices share one, each draws for all of its rows and
uses the part for its own rows. If a layer mixes the rows, devices share whole micro-batches only.
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout

from aliquot.finetuning.examples import Part


@dataclass
class DeviceShare:
    """This device's part of the current micro-batch.

    Args:
        part: its rows; None means all.
        widths: positions per row, in the network's input and, for an encoder-decoder, in its output.
    """

    part: Part | None = None
    widths: Sequence[int] = ()


class SharedDropout(nn.Module):
    """Dropout on the inputs of an adapter.

    Args:
        p: probability that an input is dropped.
        share: the current micro-batch; the training loop keeps it up to date.
    """

    def __init__(self, p: float, share: DeviceShare) -> None:
        super().__init__()
        self.p, self._share = p, share

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Drop some of `inputs`, whose first axis is that of this device's rows, or of their tokens row by row."""
        if not self.training:
            return inputs
        part, shape = self._share.part, inputs.shape
        if part is None or part.rows == slice(None):
            return dropout(inputs.contiguous(), self.p)  # drawn in memory order, as below
        num_ours = len(range(part.num_rows)[part.rows])
        per_row = _per_row(shape, num_ours, self._share.widths)
        if per_row is None:
            raise ValueError(
                f"finetune.dropout={self.p} on several devices: a layer of this model takes inputs of shape "
                f"{tuple(shape)}, in which {num_ours} rows cannot be distinguished, so what is dropped would depend on "
                "the number of devices; set finetune.dropout=0, or trainer.devices=1"
            )
        whole = torch.ones((part.num_rows, per_row, *shape[1:]), dtype=inputs.dtype, device=inputs.device)
        return inputs * dropout(whole, self.p)[part.rows].reshape(shape)


def _per_row(shape: Sequence[int], num_rows: int, widths: Sequence[int]) -> int | None:
    """Return the length of the first axis that belongs to a row; None if rows cannot be identified."""
    per_row, rest = divmod(shape[0], num_rows)
    return per_row if not rest and per_row in (1, *(widths if len(shape) == 2 else ())) else None


@contextmanager
def rows_seen(network: nn.Module, num_rows: int, widths: Sequence[int]) -> Generator[list[bool]]:
    """Yield a list that records, for every dropout that a micro-batch passes, whether its rows could be identified.

    They cannot if a layer picks tokens from all rows, as the experts of a mixture do.
    """
    seen: list[bool] = []

    def look(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        seen.append(_per_row(args[0].shape, num_rows, widths) is not None)

    hooks = [m.register_forward_pre_hook(look) for m in network.modules() if isinstance(m, SharedDropout)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def share_dropout(network: nn.Module) -> DeviceShare:
    """Replace the adapter's own dropout by `SharedDropout`; return the share that controls it."""
    share = DeviceShare()
    for module in network.modules():
        drops: Any = getattr(module, "lora_dropout", {})
        for name, own in drops.items():
            if isinstance(own, nn.Dropout):
                drops[name] = SharedDropout(own.p, share)
    return share


def rest_base(network: nn.Module) -> None:
    """Make the base model behave in training as in use, with nothing random: its own dropout stays off.

    Its modules are put in eval mode, except those that recompute activations in the backward pass, which they do in
    training mode only. In these, every attribute named after dropout is set to 0.
    """
    for name, module in network.named_modules():
        if "lora_" in name:
            continue
        module.training = bool(getattr(module, "gradient_checkpointing", False))
        if module.training:
            for settings in (module, getattr(module, "config", None)):
                for field, value in list(getattr(settings, "__dict__", {}).items()):
                    if "drop" in field and isinstance(value, float):
                        setattr(settings, field, 0.0)
