"""Score a model on held-out rows: from its answers to measures of each row, and to means over rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aliquot.evaluation.held_out.measures import exact_match, token_f1, weighted_mean, weights
from aliquot.evaluation.held_out.overlap import Compared
from aliquot.evaluation.held_out.source import HeldOutRows
from aliquot.evaluation.held_out.spec import CHOICE, EXACT_MATCH, LIKELIHOOD, TOKEN_F1, HeldOut
from aliquot.evaluation.weightings import POOL, TASKS
from aliquot.models.spec import Model
from aliquot.pools.conversation import as_text
from aliquot.scoring.shards import Shards
from aliquot.store.store import write_atomic
from aliquot.types import Metric

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from aliquot.evaluation.held_out.answers import HeldOutAnswers

#: One line per row: what the model answered, and every measure of it.
ROWS_FILE = "rows.jsonl"
_SHARDS = "shards"


@dataclass(frozen=True)
class Measured:
    """A measure of the rows that have it.

    Args:
        values: one per row.
        tasks: the label of each row, or None.
    """

    values: Sequence[float]
    tasks: Sequence[str] | None

    def metric(self, name: str, shares: Mapping[str, float] | None) -> Metric:
        """Return the mean over rows alike, and the other weightings where the rows have labels."""
        known = np.array(self.values)
        weighted: dict[str, Sequence[float]] = {}
        for weighting in (POOL, TASKS):
            weight = weights(self.tasks, len(known), weighting, shares)
            if weight is not None:
                weighted[weighting] = weighted_mean(known, weight)
        return Metric(name, *weighted_mean(known, np.ones(len(known))), len(known), weighted)


def score_held_out(
    model: Model, network: PreTrainedModel, spec: HeldOut, compared: Compared, directory: Path
) -> tuple[dict[str, Measured], Mapping[str, object]]:
    """Let a model answer held-out rows, and write `rows.jsonl`; resumes an earlier attempt.

    Returns:
        The measures by name, and what else is to be recorded.
    """
    from aliquot.evaluation.held_out.answers import answer

    rows = compared.rows(spec)
    answers = answer(model, network, spec, rows, shards_of(directory))
    values = measure(spec, rows, answers)
    write_atomic(directory / ROWS_FILE, "".join(_lines(rows, answers, values)))
    more = {"num_cut": answers.num_cut, "limit": spec.limit}
    return {name: _measured(rows, column) for name, column in values.items()}, more


def shards_of(directory: Path) -> Shards:
    """Return the batches that an attempt has finished."""
    return Shards(directory / _SHARDS)


def remove_shards(directory: Path) -> None:
    """Delete what an interrupted attempt would have resumed from."""
    shards_of(directory).remove()


def measure(spec: HeldOut, rows: HeldOutRows, answers: HeldOutAnswers) -> dict[str, list[float | None]]:
    """Return measure -> its value for each row; None for a row without one."""
    found: dict[str, list[float | None]] = {name: [] for name in spec.measured(rows)}
    for i, right in enumerate(rows.responses):
        assert right is not None
        given, nats = rows.given[i], answers.log_likelihoods[i]
        at = given.index(right)
        if answers.responses:
            of_row: dict[str, float | None] = {
                EXACT_MATCH: exact_match(answers.responses[i], right),
                TOKEN_F1: token_f1(answers.responses[i], right),
            }
        else:
            of_row = {}
        of_row[LIKELIHOOD] = math.exp(nats[at] / answers.num_tokens[i][at])
        of_row[CHOICE] = float(nats.argmax() == at) if rows.options[i] else None
        for name, column in found.items():
            column.append(of_row[name])
    return found


def _measured(rows: HeldOutRows, column: Sequence[float | None]) -> Measured:
    has = [i for i, value in enumerate(column) if value is not None]
    values = [value for value in column if value is not None]
    return Measured(values, None if rows.tasks is None else [rows.tasks[i] for i in has])


def _lines(rows: HeldOutRows, answers: HeldOutAnswers, values: Mapping[str, Sequence[float | None]]) -> Sequence[str]:
    lines: list[str] = []
    for i, name in enumerate(rows.ids):
        nats: list[float] = answers.log_likelihoods[i].tolist()
        line: dict[str, object] = {"id": name, "task": rows.tasks[i] if rows.tasks else None}
        line |= {"prompt": as_text(rows.prompts[i]), "right": rows.responses[i]}
        if answers.responses:
            line["response"] = answers.responses[i]
        if rows.options[i]:
            line["choice"] = rows.given[i][nats.index(max(nats))]
        line |= {measure: column[i] for measure, column in values.items()}
        line["log_likelihoods"] = dict(zip(rows.given[i], nats, strict=True))
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines
