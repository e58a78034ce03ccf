"""Examples for finetuning: from prompts and responses to the token batches of every optimizer step.

The plan of all steps follows from the seed alone, before training starts. A resumed run therefore continues with
step s by asking for step s, and no other state is needed.
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

from aliquot.models.spec import Model
from aliquot.types import AnnotatedSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from aliquot.finetuning.recipe import LoRA

#: The target of a position whose next token is not trained on.
IGNORE = -100
#: Rows of a micro-batch differ in length by about this fraction: little padding, yet new neighbors in every epoch.
_LENGTH_SPREAD = 0.1

Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Examples:
    """Tokenized examples, prompt then response, and the effects of tokenization.

    Args:
        tokens: token ids of each example.
        prompt_lengths: number of prompt tokens in each, which the loss leaves out.
        num_cut_prompts: number of examples that lost part of their prompt to `max_tokens`.
        num_cut_responses: number of examples that lost the end of their response to it.
        num_literal: number of examples whose prompt or response has what looks like a control token, read as text.
        decoder_start: the token from which the decoder of an encoder-decoder begins the response; None for a causal
            model, which reads the response after the prompt.
    """

    tokens: Sequence[Int32[np.ndarray, " length"]]
    prompt_lengths: Int64[np.ndarray, " n"]
    num_cut_prompts: int
    num_cut_responses: int
    num_literal: int = 0
    decoder_start: int | None = None

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """Tokens of each example."""
        return np.array([len(ids) for ids in self.tokens], dtype=np.int64)


def encode_examples(model: Model, tokenizer: PreTrainedTokenizerBase, annotated: AnnotatedSet) -> Examples:
    """Tokenize annotated prompts in the model's template, none longer than `max_tokens`.

    A prompt makes room for its response as `model.overlong` says, down to half of `max_tokens`; beyond that, the
    response loses its end. Every example therefore keeps response tokens to train on.

    Raises:
        ValueError: an example is too long, and the settings refuse such prompts.
    """
    encoding = model.encoding(tokenizer)
    encoded, literal = encoding.read_pairs(annotated.prompts, annotated.responses)
    rooms = [max(model.max_tokens - len(response), model.max_tokens // 2) for _, response in encoded]
    pairs = [(encoding.shorten(p, room), r) for (p, r), room in zip(encoded, rooms, strict=True)]
    longest = max(len(p) + len(r) for p, r in pairs)
    if model.overlong == "refuse" and longest > model.max_tokens:
        raise ValueError(
            f"model.overlong=refuse, and an example takes {longest} tokens with its response, more than "
            f"model.max_tokens={model.max_tokens}; raise model.max_tokens, or set model.overlong=cut_start"
        )
    return Examples(
        tokens=[np.array([*p, *r][: model.max_tokens], dtype=np.int32) for p, r in pairs],
        prompt_lengths=np.array([len(p) for p, _ in pairs], dtype=np.int64),
        num_cut_prompts=sum(len(p) > room for (p, _), room in zip(encoded, rooms, strict=True)),
        num_cut_responses=sum(len(p) + len(r) > model.max_tokens for p, r in pairs),
        num_literal=len(literal),
        decoder_start=encoding.decoder_start,
    )


@dataclass(frozen=True)
class StepPlan:
    """The rows that every optimizer step trains on.

    Args:
        steps: the micro-batches of each step, and the rows of each micro-batch.
        num_tokens: tokens in each step, without padding.
        num_targets: response tokens in each step; its loss is the mean over them.
    """

    steps: Sequence[Sequence[Rows]]
    num_tokens: Int64[np.ndarray, " steps"]
    num_targets: Int64[np.ndarray, " steps"]

    def __len__(self) -> int:
        return len(self.steps)


def plan_steps(examples: Examples, recipe: LoRA) -> StepPlan:
    """Lay out all epochs; the last step of an epoch has the rows or micro-batches that remain."""
    lengths = examples.lengths
    epochs = (_plan_epoch(lengths, recipe, np.random.default_rng([recipe.seed, i])) for i in range(recipe.epochs))
    steps = [step for epoch in epochs for step in epoch]
    targets = lengths - examples.prompt_lengths
    return StepPlan(
        steps,
        num_tokens=np.array([sum(lengths[rows].sum() for rows in step) for step in steps]),
        num_targets=np.array([sum(targets[rows].sum() for rows in step) for step in steps]),
    )


def _plan_epoch(lengths: Int64[np.ndarray, " n"], recipe: LoRA, rng: np.random.Generator) -> list[list[Rows]]:
    """Lay out one epoch, in steps of a fixed number of rows or of micro-batches."""
    if recipe.rows_per_step is None:
        assert recipe.accumulate is not None
        batches = micro_batches(lengths, recipe.tokens_per_batch, rng)
        return [batches[i : i + recipe.accumulate] for i in range(0, len(batches), recipe.accumulate)]
    order = rng.permutation(len(lengths))
    groups = np.split(order, range(recipe.rows_per_step, len(order), recipe.rows_per_step))
    return [[rows[batch] for batch in micro_batches(lengths[rows], recipe.tokens_per_batch, rng)] for rows in groups]


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
    """Rows padded on the right, in the form the network takes.

    `targets[i, t]` is the token after `input_ids[i, t]`, or IGNORE. For an encoder-decoder, `input_ids` are the prompt
    alone, and `targets[i, t]` is the token after `decoder_input_ids[i, t]`.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor
    decoder_input_ids: torch.Tensor | None = None

    def of(self, rows: slice) -> MicroBatch:
        """Return some of the rows, at the same width."""
        response = None if self.decoder_input_ids is None else self.decoder_input_ids[rows]
        return MicroBatch(self.input_ids[rows], self.attention_mask[rows], self.targets[rows], response)


class Part(NamedTuple):
    """One device's part of a micro-batch.

    Args:
        number: of the micro-batch in its step.
        num_rows: of the whole micro-batch.
        rows: the device's own rows among them.
    """

    number: int
    num_rows: int
    rows: slice


class StepBatch(NamedTuple):
    """Everything that one optimizer step trains on; `num_targets` counts the response tokens of all micro-batches.

    `parts` says, for each micro-batch, which part of the whole one it is.
    """

    step: int
    micro_batches: list[MicroBatch]
    num_targets: int
    parts: list[Part]


class StepBatches:
    """Iterates over the step batches of a plan, from `position` onward, which Lightning stores to resume mid-epoch.

    The micro-batches of a step are dealt to the devices in turn. If the last round has fewer micro-batches than
    devices, the devices share its rows, unless micro-batches must stay `whole`. The step is therefore the same on any
    number of devices, and all devices have about the same amount of work.
    """

    def __init__(
        self, examples: Examples, plan: StepPlan, pad: int, rank: int = 0, world: int = 1, whole: bool = False
    ) -> None:
        self._examples, self._plan, self._pad = examples, plan, pad
        self._rank, self._world, self._whole = rank, world, whole
        self.position = 0

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[StepBatch]:
        while self.position < len(self):
            step, self.position = self.position, self.position + 1
            batches, targets = self._plan.steps[step], int(self._plan.num_targets[step])
            parts = self._share(batches)
            yield StepBatch(step, [self._collate(batches[p.number]).of(p.rows) for p in parts], targets, parts)

    def _share(self, batches: Sequence[Rows]) -> list[Part]:
        """Return this device's part of a step; empty if there are fewer rows than devices."""
        num_whole = len(batches) if self._whole else len(batches) - len(batches) % self._world
        ours = [(i, slice(None)) for i in range(self._rank, num_whole, self._world)]
        ours += [(i, slice(self._rank, None, self._world)) for i in range(num_whole, len(batches))]
        return [Part(i, len(batches[i]), rows) for i, rows in ours if len(batches[i][rows])]

    def state_dict(self) -> dict[str, int]:
        """Return the position, for a checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the position in the checkpoint."""
        self.position = state["position"]

    def _collate(self, rows: Rows) -> MicroBatch:
        starts: list[int] = self._examples.prompt_lengths[rows].tolist()
        texts = [self._examples.tokens[i] for i in rows.tolist()]
        prompts = [ids[:start] for ids, start in zip(texts, starts, strict=True)]
        responses = [ids[start:] for ids, start in zip(texts, starts, strict=True)]
        begin, decoder_ids = self._examples.decoder_start, None
        if begin is not None:
            texts, decoder_ids = prompts, _padded([np.r_[begin, ids[:-1]] for ids in responses], self._pad)
            targets = _padded(responses, IGNORE)
        else:
            # The last token of the prompt is the first that has a target; the end of the response does not have one.
            silent = [np.full(start - 1, IGNORE) for start in starts]
            targets = _padded([np.r_[s, ids, IGNORE] for s, ids in zip(silent, responses, strict=True)], IGNORE)
        mask = _padded([np.ones_like(ids) for ids in texts], 0)
        return MicroBatch(_padded(texts, self._pad), mask, targets, decoder_ids)


def _padded(rows: Sequence[np.ndarray], filling: int) -> torch.Tensor:
    """Stack rows of different lengths, padded on the right."""
    array = np.full((len(rows), max(map(len, rows))), filling, dtype=np.int64)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return torch.from_numpy(array)
