"""The tables of a report: one list of columns determines both the text for people and the numbers in files.

People read accuracies and differences in points, with the digits that their standard errors justify. Files hold every
number as it was computed: fractions of 1, never rounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from aliquot.evaluation.wording import measured
from aliquot.report.analysis.findings import LEVEL, MIN_SEEDS, REFERENCE, Comparison, Curve, Finding, Findings, Saved
from aliquot.report.analysis.numbers import (
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
    seconds,
    times,
    with_interval,
)
from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.study import Study

Kind = type[str] | type[int] | type[float]
Row = TypeVar("Row", Finding, Curve)
#: Appended to a difference that is reliable.
MARK = "*"
LEGEND = (
    f"In brackets: 95 % intervals, where there are {MIN_SEEDS} seeds or more. {MARK}: reliably better or worse than "
    f"random, p < {LEVEL} after Holm's correction. "
    "annotations saved: how many times as many random needs for the same score; > where its largest budget does not "
    "reach it, < where its smallest is more than enough. cost: seconds of the scoring pass and of the ranking "
    "to its deepest budget, beside whatever else ran."
)
_NONE = "-"


@dataclass(frozen=True)
class Value(Generic[Row]):
    """A number or name of a row, for files.

    Args:
        name: of the column.
        kind: the type of what `of` returns, if that is not None.
        of: gets it from a row.
    """

    name: str
    kind: Kind
    of: Callable[[Row], str | int | float | None]


@dataclass(frozen=True)
class Column(Generic[Row]):
    """The content of one column in a row.

    Args:
        title: for people; "" if the column is for files only.
        text: the text for people.
        values: the values for files.
        number: whether it is right-aligned.
    """

    title: str
    text: Callable[[Row], str]
    values: Sequence[Value[Row]]
    number: bool = True


@dataclass(frozen=True)
class Texts:
    """A table for people.

    Args:
        title: its subject.
        heads: of the columns.
        numbers: whether a column is right-aligned.
        rows: one text per column.
        groups: of rows that belong together, one text per row.
    """

    title: str
    heads: Sequence[str]
    numbers: Sequence[bool]
    rows: Sequence[Sequence[str]]
    groups: Sequence[str]


@dataclass(frozen=True)
class StudyTables:
    """What people read about a study: two tables per benchmark, and notes."""

    title: str
    tables: Sequence[Texts]
    notes: Sequence[str]


def tables_of(study: Study, findings: Findings) -> StudyTables:
    """Return the tables of all benchmarks: by budget, the most accurate first, then areas."""
    tables: list[Texts] = []
    for name, base in findings.base.items():
        results = sorted(
            (f for f in findings.findings if f.benchmark == name), key=lambda f: (f.budget, -f.score.value)
        )
        curves = sorted((c for c in findings.curves if c.benchmark == name), key=_gain, reverse=True)
        budgets = [f"{f.budget}" for f in results]
        measure = measured(name)
        tables.append(_texts(f"{name}: {measure} in %; {_percent(base)} before finetuning", RESULTS, results, budgets))
        tables.append(_texts(f"{name}: mean {measure} in % over the logarithm of the budget", AREAS, curves))
    return StudyTables(study.name, [table for table in tables if table.rows], findings.notes)


def _gain(curve: Curve) -> tuple[float, float]:
    """Sort curves by a value that is comparable even if budgets differ: the difference from random; random has none."""
    if curve.comparison is None and curve.arm.strategy != REFERENCE:
        return -math.inf, curve.area.value
    return curve.comparison.difference.value if curve.comparison else 0.0, curve.area.value


def _texts(title: str, columns: Sequence[Column[Row]], rows: Sequence[Row], groups: Sequence[str] = ()) -> Texts:
    shown = [column for column in columns if column.title]
    return Texts(
        title,
        heads=[column.title for column in shown],
        numbers=[column.number for column in shown],
        rows=[[column.text(row) for column in shown] for row in rows],
        groups=groups or [""] * len(rows),
    )


def _percent(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return _NONE
    return with_interval(percent(estimate), percent_interval(estimate))


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return _NONE
    difference, mark = comparison.difference, MARK if comparison.is_reliable else ""
    return with_interval(points(difference), points_interval(difference)) + mark


def _p(comparison: Comparison | None) -> str:
    return p_value(comparison.p_adjusted).removeprefix("p ").removeprefix("= ") if comparison else _NONE


def _saved(saved: Saved | None) -> str:
    if saved is None:
        return _NONE
    least, most = (f"{sign}{times(end)}" for sign, end in zip("<>", saved.range, strict=True))  # random's range

    def or_beyond(ratio: float | None, beyond: str) -> str:
        return beyond if ratio is None else times(ratio)

    value = or_beyond(saved.ratio, least if saved.side == "below" else most)
    interval = f"{or_beyond(saved.low, least)} to {or_beyond(saved.high, most)}" if saved.has_interval else ""
    return with_interval(f"{value}x", interval)


def _estimate(name: str, of: Callable[[Row], Estimate | None]) -> list[Value[Row]]:
    def part(attribute: str) -> Callable[[Row], float | None]:
        return lambda row: known(getattr(of(row), attribute, None))

    names = {name: "value", f"{name}_stderr": "stderr", f"{name}_low": "low", f"{name}_high": "high"}
    return [Value(column, float, part(attribute)) for column, attribute in names.items()]


def known(number: float | None) -> float | None:
    """Return a number for a file, None for NaN."""
    return None if number is None or math.isnan(number) else number


def _compared() -> tuple[Column[Row], Column[Row]]:
    """Return the columns of the difference to random, and of its p-value."""

    def part(name: str, kind: Kind) -> Value[Row]:
        return Value(name, kind, lambda row: getattr(row.comparison, name, None))

    difference = _estimate("difference", lambda row: row.comparison.difference if row.comparison else None)
    seeds = part("fewest_seeds", int)
    return (
        Column("minus random, points", lambda row: _difference(row.comparison), (*difference, seeds)),
        Column("p, Holm", lambda row: _p(row.comparison), (part("p", float), part("p_adjusted", float))),
    )


def _where() -> tuple[Column[Row], Column[Row]]:
    """Return the columns of the benchmark, which titles give for people, and of the arm."""
    benchmark = Value[Row]("benchmark", str, lambda row: row.benchmark)
    arm = (
        Value[Row]("arm", str, lambda row: row.arm.name),
        Value[Row]("strategy", str, lambda row: row.arm.strategy),
        Value[Row]("parameters", str, lambda row: json.dumps(dict(row.arm.parameters))),
    )
    return Column("", lambda row: row.benchmark, (benchmark,)), Column(
        "strategy", lambda row: row.arm.name, arm, number=False
    )


def _of_saved(name: str, kind: Kind) -> Value[Finding]:
    return Value(f"saved_{name}", kind, lambda finding: getattr(finding.saved, name, None))


def _prompts(finding: Finding) -> int:
    """Return the prompts of a run; with a budget in money or tokens, their mean over seeds."""
    bought = finding.annotations
    return round(bought.asked or 0) if bought.unit else int(finding.budget)


#: One row per benchmark, arm and budget.
RESULTS: Sequence[Column[Finding]] = (
    Column("budget", lambda f: f"{f.budget:,}", [Value("budget", int, lambda f: _prompts(f))]),
    *_where(),
    Column("score", lambda f: _percent(f.score), _estimate("score", lambda f: f.score)),
    *_compared(),
    Column(
        "annotations saved",
        lambda f: _saved(f.saved),
        [
            *(_of_saved(name, float) for name in ("ratio", "low", "high")),
            _of_saved("side", str),
            Value("saved_range_low", float, lambda f: f.saved.range[0] if f.saved else None),
            Value("saved_range_high", float, lambda f: f.saved.range[1] if f.saved else None),
            Value("saved_has_interval", int, lambda f: int(f.saved.has_interval) if f.saved else None),
        ],
    ),
    Column("seeds", lambda f: str(f.num_replicates), [Value("num_replicates", int, lambda f: f.num_replicates)]),
    Column(
        "cost",
        lambda f: f"{seconds(f.selection_seconds)} s",
        [Value("selection_seconds", float, lambda f: f.selection_seconds)],
    ),
    Column("", lambda f: "", [Value("num_questions", int, lambda f: f.num_questions)]),
    Column("", lambda f: "", [Value("runs", str, lambda f: " ".join(f.runs))]),
    Column(
        "",
        lambda f: "",
        [
            Value("num_annotated", float, lambda f: f.annotations.number),
            Value("annotator", str, lambda f: f.annotations.by or None),
            Value("annotation_cost", float, lambda f: f.annotations.cost),
            Value("tokens_trained", float, lambda f: f.annotations.tokens),
            Value("limit", float, lambda f: f.budget if f.annotations.unit else None),
            Value("limit_unit", str, lambda f: f.annotations.unit or None),
        ],
    ),
)

#: One row per benchmark and arm with several budgets.
AREAS: Sequence[Column[Curve]] = (
    *_where(),
    Column(
        "budgets",
        lambda curve: f"{curve.budgets[0]:,} to {curve.budgets[-1]:,}",
        [Value("budgets", str, lambda curve: " ".join(map(str, curve.budgets)))],
    ),
    Column("mean score", lambda curve: _percent(curve.area), _estimate("area", lambda curve: curve.area)),
    *_compared(),
)
