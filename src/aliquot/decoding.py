"""Greedy decoding of a batch behind its prefill, with statistics of every generated token.

Written out instead of calling `generate`: the prefill is shared with the features, rows that ended leave the batch,
and per token three numbers leave the device, never the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Rows that ended are computed along until they are this share of the batch: dropping them copies the cache.
_DROP_FROM = 0.125


class RoomyLayer(DynamicLayer):
    """A layer's keys and values in buffers with room for the response.

    transformers' own layer copies all it holds at every generated token. Here `keys` and `values` are views of the
    filled part of the buffers, so whatever else a cache layer can do still works; `_fits` notices where it replaced
    them.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers = (torch.empty(0), torch.empty(0))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, shape (b, heads, s, d), and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        assert self.keys is not None and self.values is not None
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if not self._fits(self.keys, end):
            self._buffers = (self._roomy(self.keys, end), self._roomy(self.values, end))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def _fits(self, keys: Tensor, end: int) -> bool:
        buffer = self._buffers[0]
        return buffer.ndim == 4 and keys.data_ptr() == buffer.data_ptr() and end <= buffer.shape[2]

    def _roomy(self, states: Tensor, end: int) -> Tensor:
        batch, heads, seen, dim = states.shape
        buffer = states.new_empty(batch, heads, end + self._room, dim)
        buffer[:, :, :seen] = states
        return buffer


class Reader:
    """Feeds tokens to a causal language model and keeps count of positions.

    Args:
        network: any causal language model of transformers.
        ends: the tokens that end a response.
    """

    def __init__(self, network: PreTrainedModel, ends: Int64[Tensor, " e"]) -> None:
        self._network, self._ends = network, ends
        # Where positions cannot be given (ALiBi), the model derives them from the mask.
        self._takes_positions = "position_ids" in inspect.signature(network.forward).parameters

    def new_cache(self, room: int) -> DynamicCache:
        """Return an empty cache whose plain attention layers have room for `room` generated tokens."""
        cache = DynamicCache(config=self._network.config)
        cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
        return cache

    def read(self, tokens: Int64[Tensor, "b s"], mask: Int64[Tensor, "b l"], cache: Any, **options: Any) -> Any:
        """Read `tokens` behind what the cache holds.

        Args:
            tokens: the next tokens, left-padded.
            mask: 1 where a token is, 0 where padding is; may reach beyond the tokens.
            cache: what was read before; grows.
            options: of the model's `forward`.

        Returns:
            The model's output, with logits of the last position only.
        """
        width = tokens.shape[1]
        mask = mask[:, : cache.get_seq_length() + width]
        if self._takes_positions:  # padding takes no position, so a prompt's first token always has 0
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        return self._network(
            input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **options
        )

    def respond(
        self,
        logits: Float[Tensor, "b v"],
        mask: Int64[Tensor, "b l"],
        cache: Any,
        num_new: int,
        pre_logits: Callable[[], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Continue greedily from the logits of the last position.

        Args:
            logits: of the first token of the responses.
            mask: as for `read`, with room for the response.
            cache: the prompts; used up.
            num_new: the longest response in tokens. An end token counts, and is the last.
            pre_logits: returns what the last read made the logits of, (b, r), where that is to be kept.

        Returns:
            `token_lengths` (b,) and, flat, `entropy`, `top1`, `top2` and `pre_logits`, all on the device.
        """
        device, num_rows = logits.device, len(logits)
        stats = torch.zeros(num_rows, num_new, 3, device=device)
        lengths = torch.zeros(num_rows, dtype=torch.int64, device=device)
        rows = torch.arange(num_rows, device=device)  # whose response each row of the cache is
        going = torch.ones(num_rows, dtype=torch.bool, device=device)
        states: list[Tensor] = []
        for step in range(num_new):
            tokens, stats[rows, step] = describe(logits)
            if pre_logits:
                state = pre_logits()
                states.append(state.new_zeros(num_rows, state.shape[1]).index_copy(0, rows, state))
            lengths[rows] += going
            going &= ~torch.isin(tokens, self._ends)
            if step == num_new - 1 or not going.any():
                break
            if _worth_dropping(going):
                cache.reorder_cache(going.nonzero().squeeze(1))
                rows, mask, tokens, going = rows[going], mask[going], tokens[going], going[going]
            logits = self.read(tokens[:, None], mask, cache).logits[:, -1]
        valid = torch.arange(num_new, device=device) < lengths[:, None]
        entropy, top1, top2 = stats[valid].unbind(dim=1)
        kept = {"pre_logits": torch.stack(states, dim=1)[valid[:, : len(states)]]} if pre_logits else {}
        return {"token_lengths": lengths, "entropy": entropy, "top1": top1, "top2": top2, **kept}


def _worth_dropping(going: Bool[Tensor, " b"]) -> bool:
    return len(going) - int(going.sum()) >= max(1, _DROP_FROM * len(going))


def describe(logits: Float[Tensor, "b v"]) -> tuple[Int64[Tensor, " b"], Float32[Tensor, "b 3"]]:
    """Return the greedy token, and entropy in nats, largest and second largest probability, all in float32."""
    logits = logits.float()
    log_probabilities = logits.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    # A probability is 0 in float32 below exp(-104); the bound keeps 0 * -inf, of a masked token, from being NaN.
    entropy = -(probabilities * log_probabilities.clamp(min=-200)).sum(dim=1, keepdim=True)
    return logits.argmax(dim=1), torch.cat([entropy, probabilities.topk(2, dim=1).values], dim=1)
