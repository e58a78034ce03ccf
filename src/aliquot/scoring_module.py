"""The pass itself as Lightning sees it: one prefill a batch serves features and greedy decoding alike.

The prefill leaves the hidden states, pooled to features, the logits of the last position and the key-value cache, from
which the model's own response is decoded. Per generated token three numbers leave the device, never the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import DynamicCache

from aliquot.batching import EncodedPrompts
from aliquot.features import pool_positions
from aliquot.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from aliquot.scoring import Scorer, Shards

#: Rows that ended are computed along until they are this share of the batch: dropping them copies the cache.
_DROP_FROM = 0.125


class Batch(NamedTuple):
    """Left-padded prompts that are read together; `rows` says which they are."""

    rows: Int64[Tensor, " b"]
    tokens: Int64[Tensor, "b l"]
    mask: Int64[Tensor, "b l"]


class PromptBatches(Dataset[Batch]):
    """One item = one planned batch, so that devices may share out whole batches.

    Args:
        encoded: the tokens of the pool.
        batches: the rows of each batch.
        pad: the padding token.
    """

    def __init__(self, encoded: EncodedPrompts, batches: Sequence[Int64[np.ndarray, " b"]], pad: int) -> None:
        self._encoded, self._batches, self._pad = encoded, batches, pad

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        rows = self._batches[index]
        tokens, mask = self._encoded.left_pad(rows, self._pad)
        return Batch(torch.from_numpy(rows), torch.from_numpy(tokens), torch.from_numpy(mask))

    def loader(self) -> DataLoader[Batch]:
        """Return the loader that leaves batches as they are."""
        return DataLoader(self, batch_size=None)


class ScoringModule(LightningModule):
    """Reads batches of prompts and says what the model thought.

    Args:
        network: any causal language model of transformers.
        scorer: which signals to keep.
        ends: the tokens that end a response.
    """

    def __init__(self, network: PreTrainedModel, scorer: Scorer, ends: Sequence[int]) -> None:
        super().__init__()
        self.network, self._scorer = network, scorer
        self._num_layers = num_layers(network)
        self.register_buffer("_ends", torch.tensor(list(ends)))
        self._takes_positions = "position_ids" in inspect.signature(network.forward).parameters
        self._last_states = torch.empty(0)
        network.base_model.register_forward_hook(self._keep_last_states)

    def _keep_last_states(self, backbone: torch.nn.Module, args: Any, output: Any) -> None:
        """Catch what the output layer reads: asking transformers for hidden states would keep those of all layers."""
        self._last_states = output.last_hidden_state

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the signals of a batch: `rows`, `features`, and the flat token statistics with `token_lengths`."""
        num_new = self._scorer.max_new_tokens
        room = batch.mask.new_ones(len(batch.mask), max(num_new - 1, 0))
        mask = torch.cat([batch.mask, room], dim=1)
        cache = DynamicCache(config=self.network.config)
        inner = self._scorer.layer % self._num_layers != self._num_layers - 1
        output = self._forward(batch.tokens, mask, cache, output_hidden_states=inner)
        hidden = output.hidden_states[self._scorer.layer] if inner else self._last_states
        signals = {"rows": batch.rows, "features": pool_positions(hidden, batch.mask, self._scorer.position)}
        if num_new:
            signals |= self._decode(output.logits[:, -1], mask, cache)
        return {name: values.cpu() for name, values in signals.items()}

    def _forward(self, tokens: Int64[Tensor, "b s"], mask: Int64[Tensor, "b l"], cache: Any, **options: Any) -> Any:
        """Read `tokens` behind what the cache holds; logits of the last position only."""
        seen = cache.get_seq_length() + tokens.shape[1]
        mask = mask[:, :seen]
        if self._takes_positions:  # padding takes no position, so a prompt's first token always has 0
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            options["position_ids"] = positions[:, -tokens.shape[1] :]
        return self.network(
            input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **options
        )

    def _decode(self, logits: Float[Tensor, "b v"], mask: Int64[Tensor, "b l"], cache: Any) -> dict[str, Tensor]:
        """Continue greedily to the end token, which counts, or to the limit; return the statistics flat."""
        num_rows, num_new = len(logits), self._scorer.max_new_tokens
        stats = torch.zeros(num_rows, num_new, 3, device=logits.device)
        lengths = torch.zeros(num_rows, dtype=torch.int64, device=logits.device)
        rows = torch.arange(num_rows, device=logits.device)  # row of the batch that each row of the cache belongs to
        going = torch.ones_like(rows, dtype=torch.bool)
        for step in range(num_new):
            tokens, stats[rows, step] = describe(logits)
            lengths[rows] += going
            going &= ~torch.isin(tokens, self._ends)
            num_going = int(going.sum())
            if step == num_new - 1 or num_going == 0:
                break
            if num_going <= (1 - _DROP_FROM) * len(rows):
                cache.batch_select_indices(going.nonzero().squeeze(1))
                rows, mask, tokens, going = rows[going], mask[going], tokens[going], going[going]
            logits = self._forward(tokens[:, None], mask, cache).logits[:, -1]
        entropy, top1, top2 = stats[torch.arange(num_new, device=lengths.device) < lengths[:, None]].unbind(dim=1)
        return {"token_lengths": lengths, "entropy": entropy, "top1": top1, "top2": top2}


def describe(logits: Float[Tensor, "b v"]) -> tuple[Int64[Tensor, " b"], Float32[Tensor, "b 3"]]:
    """Return the greedy token, and entropy in nats, largest and second largest probability, all in float32."""
    logits = logits.float()
    probabilities = logits.softmax(dim=1)
    entropy = torch.special.entr(probabilities).sum(dim=1, keepdim=True)
    return logits.argmax(dim=1), torch.cat([entropy, probabilities.topk(2, dim=1).values], dim=1)


def num_layers(network: PreTrainedModel) -> int:
    """Return how many hidden states there are: the embeddings and one of each layer."""
    return network.config.get_text_config().num_hidden_layers + 1


def end_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends a response: chat models name several."""
    named = network.generation_config.eos_token_id if network.generation_config else None
    several = named if isinstance(named, list) else [named]
    return sorted({int(token) for token in [*several, tokenizer.eos_token_id] if token is not None})


def check_fits(network: PreTrainedModel, scorer: Scorer, longest: int) -> None:
    """Raise ValueError, before the pass, where the model lacks the layer or the positions."""
    count = num_layers(network)
    if not -count <= scorer.layer < count:
        raise ValueError(
            f"scorer.layer={scorer.layer} is outside {-count}..{count - 1}: the model has {count - 1} layers "
            "(0 is the embeddings, -1 the last layer); choose one of these"
        )
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    needed = longest + max(scorer.max_new_tokens - 1, 0)  # the last generated token is not read
    if positions is not None and needed > positions:
        raise ValueError(
            f"a prompt of {longest} tokens and {scorer.max_new_tokens} new ones take {needed} positions, the model has "
            f"{positions}; set model.max_tokens={positions - needed + longest} or generate fewer"
        )


class ShardWriter(Callback):
    """Saves the predictions every `shard_size` prompts and tells how far the pass is."""

    def __init__(self, shards: Shards, shard_size: int, progress: Progress) -> None:
        self._shards, self._shard_size, self._progress = shards, shard_size, progress
        self._waiting: list[dict[str, Tensor]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Keep the signals of a batch; save when there are enough."""
        self._waiting.append(outputs)
        self._progress.update(len(outputs["rows"]))
        if sum(len(signals["rows"]) for signals in self._waiting) >= self._shard_size:
            self._save()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the rest."""
        if self._waiting:
            self._save()

    def _save(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._shards.write({name: torch.cat([s[name] for s in waiting]).numpy() for name in waiting[0]})
