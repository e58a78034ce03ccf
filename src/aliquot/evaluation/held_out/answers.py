"""Let a model answer rows, batch by batch. Finished batches are kept in shards: an interruption loses few.

The rows are held out, or they are a pool whose responses an upper reference reads.
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float64

from aliquot.evaluation.held_out.reader import BatchReader, Tokens
from aliquot.evaluation.held_out.source import HeldOutRows
from aliquot.evaluation.likelihood import ScoredPositions
from aliquot.models.control_tokens import note_literal
from aliquot.models.spec import Model
from aliquot.runtime.progress import Progress
from aliquot.runtime.signals import interruptible
from aliquot.scoring.batching import Batch, EncodedPrompts, plan_batches
from aliquot.scoring.decoding import give_float32_logits
from aliquot.scoring.module import PromptBatches, end_tokens
from aliquot.scoring.out_of_memory import MemoryGuard
from aliquot.scoring.shards import ShardBuffer, Shards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_SHARD_SIZE = 256  # rows


class AskedOfRows(Protocol):
    """What is asked about rows: those that a `HeldOutSource` names, or those of a pool."""

    #: The stage that asks, the config group with the settings of its batches, and what it calls a row, for messages.
    stage: ClassVar[str]
    group: ClassVar[str]
    row: ClassVar[str]

    @property
    def tokens_per_batch(self) -> int:
        """Padding and response included."""
        ...

    def num_new(self, model: Model, longest: int) -> int:
        """Return the longest response of the model in tokens; 0 if none is needed.

        Args:
            model: the model.
            longest: tokens of the longest given response.
        """
        ...


@dataclass(frozen=True)
class HeldOutAnswers:
    """What a model does with held-out rows.

    Args:
        responses: its own response to each; empty if none was asked for.
        log_likelihoods: of the given responses of each row, in their order.
        num_tokens: tokens of the given responses of each row, with the one that ends each.
        num_cut: rows whose prompt or given response was cut.
    """

    responses: Sequence[str]
    log_likelihoods: Sequence[Float64[np.ndarray, " k"]]
    num_tokens: Sequence[Sequence[int]]
    num_cut: int

    @property
    def losses(self) -> Float64[np.ndarray, " n"]:
        """Mean nats per token of the one given response of each row."""
        return -np.concatenate(self.log_likelihoods) / np.array([lengths[0] for lengths in self.num_tokens])


@dataclass(frozen=True)
class Encoded:
    """Held-out rows as tokens.

    Args:
        prompts: cut so that a response fits into `model.max_tokens` with them.
        given: the given responses of each row; each ends with the end-of-sequence token unless it was cut.
        num_new: the longest response of the model's own; 0 asks for none.
        num_cut: rows whose prompt or given response was cut.
    """

    prompts: EncodedPrompts
    given: Sequence[Sequence[Tokens]]
    num_new: int
    num_cut: int

    @property
    def longest(self) -> int:
        """The most tokens that follow a prompt."""
        return max([self.num_new, *(len(ids) for texts in self.given for ids in texts)])

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """Return the rows of several, one after the other."""
        tokens = np.concatenate([part.prompts.tokens for part in parts])
        prompts = EncodedPrompts(tokens, np.concatenate([part.prompts.lengths for part in parts]), 0)
        given = [texts for part in parts for texts in part.given]
        return cls(prompts, given, max(part.num_new for part in parts), sum(part.num_cut for part in parts))

    def after(self, prompt: Sequence[int]) -> Encoded:
        """Return the same given responses after another prompt, one for all rows, which the model does not answer."""
        num_rows = len(self.given)
        tokens, lengths = np.array(prompt, dtype=np.int32), np.full(num_rows, len(prompt), dtype=np.int64)
        return Encoded(EncodedPrompts(np.tile(tokens, num_rows), lengths, 0), self.given, 0, self.num_cut)


def answer(
    model: Model, network: PreTrainedModel, spec: AskedOfRows, rows: HeldOutRows, shards: Shards
) -> HeldOutAnswers:
    """Let a model read every prompt once, respond, and say how likely the given responses are.

    Args:
        model: how prompts are written.
        network: its weights, on their device; with or without an adapter.
        spec: what is asked.
        rows: the rows; those found in shards are not read again.
        shards: of these rows.

    Raises:
        ValueError: a likelihood is not a number, the model has too few positions, or a single row does not fit into
            memory.
    """
    tokenizer = model.load_tokenizer()
    return answer_encoded(tokenizer, network, spec, encode_rows(model, tokenizer, spec, rows), shards)


def answer_encoded(
    tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel, spec: AskedOfRows, encoded: Encoded, shards: Shards
) -> HeldOutAnswers:
    """Do the same for rows that are tokens already.

    Raises:
        ValueError: as `answer`.
    """
    num_rows = len(encoded.given)
    give_float32_logits(network)
    ends = torch.tensor(end_tokens(network, tokenizer), device=network.device)
    with ScoredPositions(network).installed() as positions:
        reader = BatchReader(network, encoded.given, ends, encoded.num_new, spec.tokens_per_batch, positions)
        _read(reader, encoded, cast(int, tokenizer.pad_token_id), spec, shards)
    found, own = [np.empty(0)] * num_rows, [np.empty(0, np.int64)] * num_rows
    for shard in shards:
        _scatter(found, shard["rows"], [len(encoded.given[row]) for row in shard["rows"]], shard["log_likelihoods"])
        if encoded.num_new:
            _scatter(own, shard["rows"], shard["token_lengths"], shard["tokens"])
    if bad := sum(not np.isfinite(nats).all() for nats in found):
        raise ValueError(
            f"{spec.stage}: the likelihoods of {bad} of {num_rows} rows are not finite; change model.dtype"
        )
    responses = [cast(str, tokenizer.decode(ids.tolist(), skip_special_tokens=True)).strip() for ids in own]
    num_tokens = [[len(ids) for ids in texts] for texts in encoded.given]
    return HeldOutAnswers(responses if encoded.num_new else (), found, num_tokens, encoded.num_cut)


def encode_rows(model: Model, tokenizer: PreTrainedTokenizerBase, spec: AskedOfRows, rows: HeldOutRows) -> Encoded:
    """Tokenize prompts and given responses in the model's template, row by row as for finetuning.

    A prompt makes room for its longest given response, down to half of `max_tokens`, or for the model's own where none
    is given; a given response that is still too long loses its end.

    Raises:
        ValueError: a row is too long, and the settings refuse such rows; or no prompt fits beside the model's response.
    """
    encoding = model.encoding(tokenizer)
    flat = [(prompt, text) for prompt, several in zip(rows.prompts, rows.given, strict=True) for text in several]
    pairs, literal = encoding.read_pairs([prompt for prompt, _ in flat], [text for _, text in flat])
    if literal:
        log.info("%s: %s", spec.stage, note_literal(len(literal), len(flat), "rows"))
    ids = iter(np.array(response, dtype=np.int64) for _, response in pairs)
    given = [[next(ids) for _ in several] for several in rows.given]
    longest = [max(map(len, several), default=0) for several in given]
    num_new = spec.num_new(model, max(longest))
    most = model.most_positions(num_new)
    rooms = [min(most, max(model.max_tokens - (length or num_new), model.max_tokens // 2)) for length in longest]
    if min(rooms) < 1:
        raise ValueError(
            f"{spec.group}.max_new_tokens={num_new} leaves no room for a prompt in the positions of {model.path}; "
            "lower it"
        )
    whole = encoding.prompts(rows.prompts)
    prompts = [encoding.shorten(tokens, room) for tokens, room in zip(whole, rooms, strict=True)]
    left = [model.max_tokens - len(tokens) for tokens in prompts]
    too_long = [i for i, length in enumerate(longest) if length > left[i]]
    if too_long and model.overlong == "refuse":
        raise ValueError(
            f"model.overlong=refuse, and {spec.row} {rows.ids[too_long[0]]} takes "
            f"{len(prompts[too_long[0]]) + longest[too_long[0]]} tokens with its response, more than "
            f"model.max_tokens={model.max_tokens}; raise model.max_tokens, or set model.overlong=cut_start"
        )
    cut = {*too_long, *(i for i, tokens in enumerate(whole) if len(tokens) > rooms[i])}
    if cut:
        log.info("%s: %d of %d rows were cut to model.max_tokens=%d", spec.stage, len(cut), len(rows), model.max_tokens)
    lengths = np.array([len(tokens) for tokens in prompts], dtype=np.int64)
    packed = EncodedPrompts(np.concatenate([np.asarray(tokens, dtype=np.int32) for tokens in prompts]), lengths, 0)
    fitting = [[tokens[:room] for tokens in several] for several, room in zip(given, left, strict=True)]
    return Encoded(packed, fitting, num_new, len(cut))


def _read(reader: BatchReader, encoded: Encoded, pad: int, spec: AskedOfRows, shards: Shards) -> None:
    """Read the rows that no shard has, and save them."""
    network, prompts = reader.network, encoded.prompts
    done = shards.finished_rows(len(prompts.lengths))
    planned = plan_batches(prompts.lengths, encoded.longest, reader.tokens_per_batch)
    missing = [rows[~done[rows]] for rows in planned if not done[rows].all()]
    side = "right" if network.config.is_encoder_decoder else "left"
    batches = PromptBatches(prompts, missing, pad, side)
    guard = MemoryGuard(reader.read, encoded.longest, reader.lower, spec.group)
    buffer = ShardBuffer(shards, _SHARD_SIZE)
    with (
        Progress(f"{spec.stage} {spec.row}s", len(done), "row", done=int(done.sum())) as progress,
        interruptible() as interrupted,
    ):
        for i in range(len(batches)):
            batch = Batch(*(values.to(network.device) for values in batches[i]))
            for part in guard.run(batch):
                buffer.add({name: values.cpu().numpy() for name, values in part.items()})
            progress.update(len(batch.rows))
            if buffer.full or interrupted.is_set() or i == len(batches) - 1:
                buffer.save()
            if interrupted.is_set():
                raise KeyboardInterrupt


def _scatter(target: list[np.ndarray], rows: np.ndarray, lengths: Sequence[int] | np.ndarray, flat: np.ndarray) -> None:
    """Give each row its part of a flat array."""
    for row, part in zip(rows.tolist(), np.split(flat, np.cumsum(lengths)[:-1]), strict=True):
        target[row] = part
