"""What a model has stored of a batch of prompts, and how it continues from there.

A context holds the key-value cache of a batch. `read` appends tokens to it, and `keep` drops the finished rows. A
causal model reads the prompt itself into the cache. An encoder-decoder stores what its encoder made of the prompt, and
its decoder begins with a start token.
"""

from __future__ import annotations

import copy
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin
from transformers.modeling_outputs import BaseModelOutput

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decoder_of(network: PreTrainedModel) -> Any:
    """Return the part of a causal model that computes the hidden states: not always the base model (OPT)."""
    decoder: Any = network.get_decoder()
    return decoder if decoder is not network else cast(Any, network).model  # Llama 4 does not name it


class RoomyLayer(DynamicLayer):
    """A layer's keys and values in buffers with room for the response.

    transformers' own layer copies all its content at every generated token. Here `keys` and `values` are views of the
    filled part of the buffers, so all other operations of a cache layer still work; `_fits` detects that one of them
    has replaced the views.
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


def roomy_cache(network: PreTrainedModel, room: int) -> DynamicCache:
    """Return an empty cache whose plain attention layers have room for `room` generated tokens."""
    cache = DynamicCache(config=network.config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def reads_on(network: PreTrainedModel) -> bool:
    """Tell whether several tokens at once can follow what is in the cache: a recurrent state takes one at a time."""
    if network._is_stateful:  # pyright: ignore[reportPrivateUsage]
        return False
    return not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in roomy_cache(network, 0).layers)


def _shallow(cache: Any) -> Any:
    """Copy a cache but not its tensors: `keep` replaces them in the copy."""
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    return other


class Context(Protocol):
    """A batch that is being read."""

    def read(self, tokens: Int64[Tensor, "b s"], **options: Any) -> Any:
        """Read the next tokens; return the model's output, with logits of the last position only."""
        ...

    def keep(self, rows: Int64[Tensor, " k"]) -> None:
        """Continue with these rows only."""
        ...

    def fork(self, rows: Int64[Tensor, " k"]) -> Context:
        """Return a context that continues from copies of these rows, which may repeat; this one stays as it is."""
        ...


class CausalContext:
    """What a causal model has read, left-padded, in a cache.

    Args:
        network: any causal language model of transformers.
        mask: 1 for a token of the prompt, 0 for padding.
        room: tokens that will be read after the prompt.
    """

    def __init__(self, network: PreTrainedModel, mask: Int64[Tensor, "b l"], room: int) -> None:
        self._network = network
        self._mask = torch.cat([mask, mask.new_ones(len(mask), room)], dim=1)
        self._cache, self._num_read = roomy_cache(network, room), 0
        # If positions cannot be passed (ALiBi), the model derives them from the mask.
        self._takes_positions = "position_ids" in inspect.signature(network.forward).parameters

    def read(self, tokens: Int64[Tensor, "b s"], **options: Any) -> Any:
        width = tokens.shape[1]
        self._num_read += width  # counted here, because a cache of recurrent states does not know it
        mask = self._mask[:, : self._num_read]
        if self._takes_positions:  # padding takes no position, so a prompt's first token always has 0
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        return self._network(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **{"logits_to_keep": 1, **options},
        )

    def keep(self, rows: Int64[Tensor, " k"]) -> None:
        self._cache.reorder_cache(cast(torch.LongTensor, rows))
        self._mask = self._mask[rows]

    def fork(self, rows: Int64[Tensor, " k"]) -> CausalContext:
        other = copy.copy(self)
        other._cache = _shallow(self._cache)
        other.keep(rows)
        return other


class DecoderContext:
    """What a decoder has read, and its encoder's states, whose keys and values are computed once.

    Args:
        network: any encoder-decoder of transformers.
        states: the last layer of its encoder.
        mask: 1 for a token of the prompt, 0 for padding.
        room: tokens that will be read, including the start token.
    """

    def __init__(
        self, network: PreTrainedModel, states: Float[Tensor, "b l d"], mask: Int64[Tensor, "b l"], room: int
    ) -> None:
        self._network, self._states, self._mask = network, states, mask
        own = DynamicCache()  # a decoder may have fewer layers than its config says
        own.layer_class_to_replicate = partial(RoomyLayer, room)  # pyright: ignore[reportAttributeAccessIssue]
        self._cache = EncoderDecoderCache(own, DynamicCache())

    def start_tokens(self) -> Int64[Tensor, "b 1"]:
        """Return the tokens that the decoder reads first."""
        start = self._network.config.decoder_start_token_id
        return self._mask.new_full((len(self._mask), 1), start)

    def read(self, tokens: Int64[Tensor, "b s"], **options: Any) -> Any:
        return self._network(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._states),  # pyright: ignore[reportArgumentType]
            attention_mask=self._mask,
            decoder_input_ids=tokens,
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )

    def keep(self, rows: Int64[Tensor, " k"]) -> None:
        self._cache.reorder_cache(cast(torch.LongTensor, rows))
        self._states, self._mask = self._states[rows], self._mask[rows]

    def fork(self, rows: Int64[Tensor, " k"]) -> DecoderContext:
        other, cache = copy.copy(self), self._cache
        other._cache = EncoderDecoderCache(_shallow(cache.self_attention_cache), _shallow(cache.cross_attention_cache))
        other._cache.is_updated = dict(cache.is_updated)
        other.keep(rows)
        return other
