"""Examples for finetuning: from prompts and responses to the token batches of every optimiser step.

The plan of all steps follows from the seed alone, before training starts. So a run that was cut off goes on
with step s by asking for step s: nothing has to be remembered.
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Int32, Int64

from aliquot.batching import keep_end
from aliquot.model import Model
from aliquot.types import AnnotatedSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The target of a position whose next token is not trained on.
IGNORE = -100
#: Rows of a micro-batch differ in length by about this fraction: little padding, yet new neighbours every epoch.
_LENGTH_SPREAD = 0.1

Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Examples:
    """Tokenised examples, prompt then response, and what tokenising did to them.

    Args:
        tokens: token ids of each example.
        prompt_lengths: how many of them are the prompt's, which the loss leaves out.
        num_cut_prompts: how many lost the beginning of their prompt to `max_tokens`.
        num_cut_responses: how many lost the end of their response to it.
    """

    tokens: Sequence[Int32[np.ndarray, " length"]]
    prompt_lengths: Int64[np.ndarray, " n"]
    num_cut_prompts: int
    num_cut_responses: int

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens of each example."""
        return np.array([len(ids) for ids in self.tokens], dtype=np.int64)


def encode_examples(model: Model, tokenizer: PreTrainedTokenizerBase, annotated: AnnotatedSet) -> Examples:
    """Tokenise annotated prompts in the model's template, none longer than `max_tokens`.

    A prompt makes room for its response by losing its beginning, down to half of `max_tokens`; then the response loses
    its end. So every example keeps response tokens to train on.
    """
    encoded = model.encode_pairs(tokenizer, annotated.prompts, annotated.responses)
    rooms = [max(model.max_tokens - len(response), model.max_tokens // 2) for _, response in encoded]
    num_special = model.num_leading(tokenizer)
    pairs = [(keep_end(p, room, num_special), r) for (p, r), room in zip(encoded, rooms, strict=True)]
    return Examples(
        tokens=[np.array([*p, *r][: model.max_tokens], dtype=np.int32) for p, r in pairs],
        prompt_lengths=np.array([len(p) for p, _ in pairs], dtype=np.int64),
        num_cut_prompts=sum(len(p) > room for (p, _), room in zip(encoded, rooms, strict=True)),
        num_cut_responses=sum(len(p) + len(r) > model.max_tokens for p, r in pairs),
    )


@dataclass(frozen=True)
class Plan:
    """Which rows every optimiser step trains on.

    Args:
        steps: for each step its micro-batches, for each micro-batch its rows.
        num_tokens: tokens of each step, padding not counted.
        num_targets: response tokens of each step, over which its loss is the mean.
    """

    steps: Sequence[Sequence[Rows]]
    num_tokens: Int64[np.ndarray, " steps"]
    num_targets: Int64[np.ndarray, " steps"]

    def __len__(self) -> int:
        return len(self.steps)


def plan_steps(examples: Examples, tokens_per_batch: int, accumulate: int, epochs: int, seed: int) -> Plan:
    """Lay out all epochs; the last step of an epoch has the micro-batches that remain."""
    lengths = examples.lengths
    steps: list[list[Rows]] = []
    for epoch in range(epochs):
        batches = micro_batches(lengths, tokens_per_batch, np.random.default_rng([seed, epoch]))
        steps += [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    targets = lengths - examples.prompt_lengths
    return Plan(
        steps,
        num_tokens=np.array([sum(lengths[rows].sum() for rows in step) for step in steps]),
        num_targets=np.array([sum(targets[rows].sum() for rows in step) for step in steps]),
    )


def micro_batches(lengths: Int64[np.ndarray, " n"], tokens_per_batch: int, rng: np.random.Generator) -> list[Rows]:
    """Cut the rows into batches of similar length, in random order.

    A batch has at most `tokens_per_batch` tokens, padding included; a longer row is a batch of its own.
    """
    order = np.argsort(lengths * (1 + _LENGTH_SPREAD * rng.random(len(lengths))), kind="stable")
    starts, longest = [0], 0
    for at, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        if at > starts[-1] and longest * (at + 1 - starts[-1]) > tokens_per_batch:
            starts.append(at)
            longest = length
    batches = np.split(order, starts[1:])
    return [batches[i] for i in rng.permutation(len(batches))]


class MicroBatch(NamedTuple):
    """Rows padded on the right: `targets[i, t]` is the token after `input_ids[i, t]`, or IGNORE."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor


class StepBatch(NamedTuple):
    """All that one optimiser step trains on; `num_targets` counts the response tokens of all micro-batches."""

    step: int
    micro_batches: list[MicroBatch]
    num_targets: int


class StepBatches:
    """Iterates the step batches of a plan, from `position` on: what Lightning stores to go on mid-epoch.

    With several devices each takes every `world`-th row of each micro-batch, so that a step is the same step.
    """

    def __init__(self, examples: Examples, plan: Plan, pad: int, rank: int = 0, world: int = 1) -> None:
        self._examples, self._plan, self._pad = examples, plan, pad
        self._rank, self._world = rank, world
        self.position = 0

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[StepBatch]:
        while self.position < len(self):
            step, self.position = self.position, self.position + 1
            parts = [self._collate(rows) for rows in self._plan.steps[step]]
            yield StepBatch(step, parts, int(self._plan.num_targets[step]))

    def state_dict(self) -> dict[str, int]:
        """Return the position, for a checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the checkpoint was written."""
        self.position = state["position"]

    def _collate(self, rows: Rows) -> MicroBatch:
        mine = rows[self._rank :: self._world]
        # A device without a row still takes part in the backward pass: it gets one, with nothing to learn.
        taken = mine if len(mine) else rows[:1]
        examples = [self._examples.tokens[i] for i in taken.tolist()]
        shape = len(examples), max(len(ids) for ids in examples)
        input_ids = np.full(shape, self._pad, dtype=np.int64)
        targets = np.full(shape, IGNORE, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for i, (ids, start) in enumerate(zip(examples, self._examples.prompt_lengths[taken], strict=True)):
            input_ids[i, : len(ids)] = ids
            mask[i, : len(ids)] = 1
            if len(mine):
                targets[i, start - 1 : len(ids) - 1] = ids[start:]
        return MicroBatch(torch.from_numpy(input_ids), torch.from_numpy(mask), torch.from_numpy(targets))
