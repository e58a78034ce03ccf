"""One batch of held-out prompts: read once, answered greedily, and every given response scored from the same cache.

prompts -> prefill -> copies of the cache, one per given response -> its log-likelihood
                   -> the cache itself -> the model's own response
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from aliquot.evaluation.likelihood import ScoredPositions
from aliquot.scoring.batching import Batch, EncodedPrompts
from aliquot.scoring.decoding import respond
from aliquot.scoring.kv_cache import CausalContext, Context, DecoderContext, reads_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tokens = Int64[np.ndarray, " t"]


class _Given(NamedTuple):
    """A given response: the row of the batch whose prompt it follows, and its tokens."""

    row: int
    tokens: Tokens


@dataclass
class BatchReader:
    """Reads batches of prompts.

    Args:
        network: any causal language model or encoder-decoder of transformers.
        given: the responses to score, by row; the last token of each ends it.
        ends: the tokens that end the model's own response.
        num_new: the longest response of its own, in tokens; 0 asks for none.
        tokens_per_batch: bounds how many given responses are read together, prompts and padding included.
    """

    network: PreTrainedModel
    given: Sequence[Sequence[Tokens]]
    ends: Int64[Tensor, " e"]
    num_new: int
    tokens_per_batch: int
    positions: ScoredPositions

    def lower(self, most_tokens: int) -> None:
        """Read fewer given responses together from now on: more did not fit into memory."""
        self.tokens_per_batch = min(self.tokens_per_batch, most_tokens)

    @torch.inference_mode()
    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Return what is known of each row after reading it.

        `rows`; `log_likelihoods`, flat, in the order of the given responses; and, if the model responds, `tokens`,
        flat, with `token_lengths`.
        """
        rows: list[int] = batch.rows.tolist()
        given = [_Given(at, tokens) for at, row in enumerate(rows) for tokens in self.given[row]]
        longest = max((len(each.tokens) for each in given), default=1)
        context, logits = self._prefill(batch, max(self.num_new, longest) - 1)
        found = {"rows": batch.rows, "log_likelihoods": self._scored(batch, context, logits, given).cpu()}
        if self.num_new:
            response = respond(context, logits, self.ends, self.num_new, keep_tokens=True)
            found |= {name: response[name].cpu() for name in ("token_lengths", "tokens")}
        return found

    def _prefill(self, batch: Batch, room: int) -> tuple[Context, Tensor]:
        """Read the prompts; return what follows from them, and the logits of the first token of the response."""
        if self.network.config.is_encoder_decoder:
            states = self.network.get_encoder()(batch.tokens, attention_mask=batch.mask).last_hidden_state
            context = DecoderContext(self.network, states, batch.mask, room + 1)
            return context, context.read(context.start_tokens()).logits[:, -1]
        context = CausalContext(self.network, batch.mask, room)
        return context, context.read(batch.tokens).logits[:, -1]

    def _scored(self, batch: Batch, context: Context, logits: Tensor, given: Sequence[_Given]) -> Float64[Tensor, " g"]:
        """Return the log-likelihood of every given response; those of like length are read together."""
        found = torch.zeros(len(given), dtype=torch.float64, device=logits.device)
        shares = reads_on(self.network)
        order = sorted(range(len(given)), key=lambda i: len(given[i].tokens))
        if shares:
            first = logits.float().log_softmax(dim=1).double()
            at = torch.tensor(
                [(each.row, int(each.tokens[0])) for each in given], dtype=torch.int64, device=logits.device
            ).reshape(-1, 2)
            found += first[at[:, 0], at[:, 1]]
            order = [i for i in order if len(given[i].tokens) > 1]
        for chunk in self._chunks(order, given, batch.tokens.shape[1]):
            together = [given[i] for i in chunk]
            sums = self._after(context, together) if shares else self._whole(batch, together)
            found[torch.tensor(chunk, device=found.device)] += sums
        return found

    def _chunks(self, order: Sequence[int], given: Sequence[_Given], width: int) -> list[list[int]]:
        chunks: list[list[int]] = []
        for i in order:
            fits = chunks and (width + len(given[i].tokens)) * (len(chunks[-1]) + 1) <= self.tokens_per_batch
            if fits:
                chunks[-1].append(i)
            else:
                chunks.append([i])
        return chunks

    def _after(self, context: Context, given: Sequence[_Given]) -> Float64[Tensor, " g"]:
        """Score all tokens but the first, with copies of what was read of the prompts."""
        tokens, scored = self._padded([each.tokens for each in given])
        forked = context.fork(torch.tensor([each.row for each in given], device=tokens.device))
        read = partial(forked.read, tokens[:, :-1], **self._all_positions())
        return self.positions.log_likelihoods(read, tokens[:, 1:], scored[:, 1:])

    def _whole(self, batch: Batch, given: Sequence[_Given]) -> Float64[Tensor, " g"]:
        """Score responses by reading their prompts again: for models that cannot read on from their state."""
        prompts = [batch.tokens[each.row][batch.mask[each.row] == 1].cpu().numpy() for each in given]
        tokens, mask = self._padded([np.r_[p, each.tokens] for p, each in zip(prompts, given, strict=True)])
        starts = torch.tensor([len(prompt) for prompt in prompts], device=tokens.device)
        scored = mask & (torch.arange(tokens.shape[1], device=tokens.device) >= starts[:, None])
        read = partial(self.network, input_ids=tokens[:, :-1], attention_mask=mask[:, :-1].long(), use_cache=False)
        return self.positions.log_likelihoods(read, tokens[:, 1:], scored[:, 1:])

    def _all_positions(self) -> dict[str, Any]:
        return {} if self.network.config.is_encoder_decoder else {"logits_to_keep": 0}

    def _padded(self, rows: Sequence[Tokens]) -> tuple[Int64[Tensor, "g l"], Tensor]:
        """Stack rows, padded on the right, and tell which entries are tokens."""
        lengths = np.array([len(row) for row in rows])
        packed = EncodedPrompts(np.concatenate(rows).astype(np.int32), lengths, num_cut=0)
        tokens, mask = packed.padded(np.arange(len(rows)), pad=0, side="right")
        device = self.ends.device
        return torch.from_numpy(tokens).to(device), torch.from_numpy(mask == 1).to(device)
