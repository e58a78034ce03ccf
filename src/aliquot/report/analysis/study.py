"""Finished runs, arranged for comparison. Read this file first, then `aliquot.report.analysis.findings`.

Runs may be compared if they differ only in how the prompts were selected, in their number, and in the seed. Such runs
form one `Study`. A store may hold several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Float32

from aliquot.experiment.record import RunRecord


@dataclass(frozen=True)
class Arm:
    """A way to select prompts: a strategy with its settings and, if it reads signals, those of the scorer.

    Args:
        name: for people, unique in its study: the strategy, and the settings in which arms of that strategy differ.
        strategy: the strategy, such as facility_location.
        parameters: settings as dotted names, such as kernel.gamma, without seeds.
    """

    name: str
    strategy: str
    parameters: Mapping[str, object]


@dataclass(frozen=True)
class Annotations:
    """The cost of the responses for a cell.

    Args:
        number: responses per run, the mean over its replicates; None if older runs do not record it.
        by: the annotator, or "".
        cost: of a run's responses, the mean over replicates; runs that share prompts share their cost.
        asked: prompts per run, the mean over replicates.
        tokens: that a run is trained on, each counted once, the mean over replicates; None if one does not record it.
        unit: of the budget if it is in money or tokens, else "".
    """

    number: float | None = None
    by: str = ""
    cost: float | None = None
    asked: float | None = None
    tokens: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, records: Sequence[RunRecord], unit: str = "") -> Annotations:
        """Summarize the bills of replicates, whose budget is in this unit."""
        bills = [(r.num_annotated, r.annotation_cost) for r in records if r.num_annotated is not None]
        if not bills:
            return NOT_TOLD
        by = ", ".join(sorted({record.annotator for record in records if record.annotator}))
        tokens = [record.tokens_trained for record in records if record.tokens_trained is not None]
        return cls(
            number=fmean(number for number, _ in bills),
            by=by,
            cost=fmean(cost for _, cost in bills),
            asked=fmean(record.budget for record in records),
            tokens=fmean(tokens) if len(tokens) == len(records) else None,
            unit=unit,
        )


NOT_TOLD = Annotations()


@dataclass(frozen=True)
class Cell:
    """All replicates of an arm at one budget.

    Args:
        arm: how the prompts were selected.
        budget: how many of them, or what they may cost.
        replicates: labels of the runs: their seed ("0"), and that of the strategy if it is different ("0/7").
        runs: ids, in the order of `replicates`.
        correct: benchmark -> correctness of every question, one row per replicate, 1 right and 0 wrong (a value in
            [0, 1] for a validation likelihood). Column q is the same question in all cells of the study.
        selection_seconds: device-seconds of the scoring pass and the ranking: the cost of selection.
        annotations: the cost of annotation.
    """

    arm: Arm
    budget: float
    replicates: tuple[str, ...]
    runs: tuple[str, ...]
    correct: Mapping[str, Float32[np.ndarray, "replicates questions"]]
    selection_seconds: float
    annotations: Annotations = NOT_TOLD


def shared_replicates(cells: Sequence[Cell]) -> list[str]:
    """Return the replicates that all cells have."""
    return [r for r in cells[0].replicates if all(r in cell.replicates for cell in cells)]


@dataclass(frozen=True)
class Study:
    """Runs that differ only in how prompts were selected, in their number, and in the seed.

    Args:
        name: the pool, the model and what distinguishes the study from the others, for headings.
        setting: the settings that all runs share, name -> value, for the report's small print.
        benchmarks: in the order of the configuration.
        base: benchmark -> correctness of every question before finetuning.
        cells: sorted by strategy, arm name and budget.
        records: of all runs, oldest first.
        unit: of the budgets if they are in money or tokens, else "".
    """

    name: str
    setting: Mapping[str, str]
    benchmarks: tuple[str, ...]
    base: Mapping[str, Float32[np.ndarray, " questions"]]
    cells: Sequence[Cell]
    records: Sequence[RunRecord]
    unit: str = ""
