"""What the base model makes of the responses of a whole pool, for upper references; held-out rows are read alike.

responses -> tokens -> after their prompts: loss, and the model's own response -> signals.npz
                    -> after an empty prompt: loss_alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from aliquot.evaluation.held_out.measures import exact_match
from aliquot.evaluation.held_out.source import HeldOutRows
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.shards import Shards, save_arrays
from aliquot.types import Pool, ResponseSignals

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SIGNALS = "signals.npz"
_ROWS_AT_ONCE = 1 << 15  # lists of Python integers are large


@dataclass(frozen=True)
class _OfPool:
    """What is asked about a pool: how likely each response is, and an own one of at most its longest response."""

    tokens_per_batch: int

    stage: ClassVar[str] = "responses"
    group: ClassVar[str] = "scorer"
    row: ClassVar[str] = "pool row"

    def num_new(self, model: Model, longest: int) -> int:
        return min(longest, model.max_tokens // 2)


def read_signals(
    model: Model, pool: Pool, responses: Sequence[str], trainer: TrainerSpec, tokens_per_batch: int, directory: Path
) -> None:
    """Write the signals of a pool's responses into `directory`, for `load_signals`; resumes an earlier attempt.

    Args:
        model: the base model.
        pool: the prompts.
        responses: to each of them.
        trainer: names the device.
        tokens_per_batch: padding and responses included.
        directory: for the signals, and for finished batches meanwhile.

    Raises:
        ValueError: a likelihood is not a number, the model has too few positions, or a single row does not fit into
            memory.
    """
    from aliquot.evaluation.held_out.answers import Encoded, answer_encoded, encode_rows

    tokenizer, asked = model.load_tokenizer(), _OfPool(tokens_per_batch)
    rows = HeldOutRows(pool.ids, None, pool.prompts, responses, [None] * len(pool))
    blocks = [range(len(pool))[first : first + _ROWS_AT_ONCE] for first in range(0, len(pool), _ROWS_AT_ONCE)]
    encoded = Encoded.joined([encode_rows(model, tokenizer, asked, rows.only(block)) for block in blocks])
    network = model.load().to(trainer.device())  # pyright: ignore[reportArgumentType]
    after, alone = Shards(directory / "after_prompt"), Shards(directory / "alone")
    answers = answer_encoded(tokenizer, network, asked, encoded, after)
    without = answer_encoded(tokenizer, network, asked, encoded.after(empty_prompt(model, tokenizer)), alone)
    own = zip(answers.responses, responses, strict=True)
    correct = np.array([exact_match(*pair) == 1 for pair in own], dtype=bool)
    save_arrays(directory / _SIGNALS, vars(ResponseSignals(answers.losses, without.losses, correct)))
    after.remove()
    alone.remove()


def empty_prompt(model: Model, tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
    """Return the tokens of the template around an empty prompt; without any, the token that begins or ends a text."""
    (ids,) = model.encoding(tokenizer).prompts([""])
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return ids or [cast(int, begin)]


def load_signals(directory: Path) -> ResponseSignals:
    """Return what `read_signals` wrote."""
    with np.load(directory / _SIGNALS, allow_pickle=False) as arrays:
        return ResponseSignals(arrays["loss"], arrays["loss_alone"], arrays["correct"])
