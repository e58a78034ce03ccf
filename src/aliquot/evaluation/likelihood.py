"""Log-likelihoods of given responses: logits are computed only where a token of a response is scored."""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ScoredPositions:
    """Lets the output layer of a network compute the logits of chosen positions only.

    The layer gets the states of these positions alone. What a family does to its logits afterwards, such as scaling or
    capping, is done to each element, so it works as before.

    Args:
        network: any causal language model or encoder-decoder of transformers.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._scored: Bool[Tensor, "b l"] | None = None

    @contextmanager
    def installed(self) -> Generator[ScoredPositions]:
        """Put the choice in front of the output layer, and take it away in the end."""
        layer = cast(torch.nn.Module, self._network.get_output_embeddings())
        hook = layer.register_forward_pre_hook(self._choose)
        try:
            yield self
        finally:
            hook.remove()

    def _choose(self, layer: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._scored is None:
            return None
        return (args[0][self._scored][None], *args[1:])

    @contextmanager
    def _only(self, scored: Bool[Tensor, "b l"]) -> Generator[None]:
        self._scored = scored
        try:
            yield
        finally:
            self._scored = None

    def log_likelihoods(
        self, read: Any, wanted: Int64[Tensor, "b l"], scored: Bool[Tensor, "b l"]
    ) -> Float64[Tensor, " b"]:
        """Return the sum of the log-probabilities of the wanted tokens of each row.

        Args:
            read: lets the network read and returns its output, whose logits predict `wanted`.
            wanted: the token after each position.
            scored: the positions that count.
        """
        with self._only(scored):
            logits = read().logits[0]
        nats = cross_entropy(logits.float(), wanted[scored], reduction="none").double()
        sums = torch.zeros(len(wanted), dtype=torch.float64, device=nats.device)
        return -sums.index_add(0, scored.nonzero()[:, 0], nats)
