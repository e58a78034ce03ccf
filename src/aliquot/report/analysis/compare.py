"""Study -> Findings, one benchmark at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

from aliquot.report.analysis.annotations_saved import saved
from aliquot.report.analysis.caveats import notes
from aliquot.report.analysis.findings import MIN_SEEDS, REFERENCE, Comparison, Curve, Finding, Findings, Saved
from aliquot.report.analysis.statistics import (
    Drawn,
    Estimate,
    Resampling,
    draws,
    estimate,
    holm,
    mean,
    p_value,
    summarize,
)
from aliquot.report.analysis.study import Arm, Study, shared_replicates

Judged = TypeVar("Judged", Finding, Curve)


class BenchmarkAnalysis:
    """The analysis of one benchmark of a study.

    Args:
        study: the runs.
        benchmark: its name.
        reference: the arm that the others are compared with, or None.
    """

    def __init__(self, study: Study, benchmark: str, reference: Arm | None) -> None:
        self.benchmark = benchmark
        self.reference = reference
        self.cells = study.cells
        self.values = [cell.correct[benchmark] for cell in study.cells]
        self.resampling = Resampling(np.stack([values.mean(axis=0) for values in self.values]))
        self.drawn = [self._draw({i: 1.0}) for i in range(len(self.cells))]
        self.by_arm: dict[str, dict[float, int]] = {}  # name -> budget -> cell
        for i, cell in enumerate(self.cells):
            self.by_arm.setdefault(cell.arm.name, {})[cell.budget] = i
        self.random = self.by_arm[reference.name] if reference else {}

    def findings(self) -> list[Finding]:
        """Judge every cell."""
        return _adjusted([self._finding(i) for i in range(len(self.cells))])

    def curves(self) -> list[Curve]:
        """Judge every arm with two budgets or more."""
        curves = [self._curve(name) for name, cells in self.by_arm.items() if len(cells) > 1]
        return _adjusted([curve for curve in curves if curve])

    def _draw(self, weights: Mapping[int, float]) -> Drawn:
        """Draw a weighted sum of cells of one arm, over the replicates that all of them have."""
        replicates = shared_replicates([self.cells[i] for i in weights])
        rows = {i: [self.cells[i].replicates.index(replicate) for replicate in replicates] for i in weights}
        values = np.sum([np.float32(weight) * self.values[i][rows[i]] for i, weight in weights.items()], axis=0)
        return self.resampling.draw(summarize(values, replicates, self.cells[next(iter(weights))].arm.name, weights))

    def _finding(self, i: int) -> Finding:
        cell, drawn = self.cells[i], self.drawn[i]
        compared = self.reference is not None and cell.arm.name != self.reference.name
        other = self.random.get(cell.budget)
        return Finding(
            benchmark=self.benchmark,
            arm=cell.arm,
            budget=cell.budget,
            num_replicates=len(cell.replicates),
            num_questions=self.values[i].shape[1],
            score=_estimate(drawn),
            comparison=_compare(drawn, self.drawn[other]) if compared and other is not None else None,
            saved=self._saved(i) if compared and len(self.random) > 1 else None,
            selection_seconds=cell.selection_seconds,
            runs=cell.runs,
            annotations=cell.annotations,
        )

    def _saved(self, i: int) -> Saved:
        repeated = [b for b, other in self.random.items() if len(self.cells[other].replicates) >= MIN_SEEDS]
        budgets = sorted(repeated if len(repeated) > 1 else self.random)  # with one seed, no arm would have an interval
        others = [self.drawn[self.random[budget]] for budget in budgets]
        means = [mean(other.sample, self.drawn[i].sample) for other in others]
        found = saved(
            np.array([m.value for m in means]),
            np.stack([draws(m, other, self.drawn[i]) for m, other in zip(means, others, strict=True)]),
            np.array(budgets) / self.cells[i].budget,
            np.array([len(other.sample.rows) for other in others]),
        )
        unknown = any(np.isnan(m.stderr) for m in means)
        return replace(found, low=None, high=None, has_interval=False) if unknown else found

    def _curve(self, name: str) -> Curve | None:
        ours, theirs = self.by_arm[name], self.random
        budgets = sorted(ours)
        if self.reference and name == self.reference.name:
            # Over its own budgets, its mean would look better or worse than that of the arms it is compared with.
            others = {budget for arm, cells in self.by_arm.items() if arm != name for budget in cells}
            budgets = sorted(ours.keys() & others) or budgets
        area = self._area(ours, budgets) if len(budgets) > 1 else None
        if area is None:
            return None
        comparison = None
        both = sorted(ours.keys() & theirs)
        if self.reference and name != self.reference.name and len(both) > 1:
            pair = self._area(ours, both), self._area(theirs, both)
            comparison = _compare(pair[0], pair[1]) if pair[0] and pair[1] else None
        arm = self.cells[next(iter(ours.values()))].arm
        return Curve(self.benchmark, arm, tuple(budgets), _estimate(area), comparison)

    def _area(self, cells: Mapping[float, int], budgets: Sequence[float]) -> Drawn | None:
        """Draw the area under an arm's curve, if a replicate has all of the budgets."""
        if not shared_replicates([self.cells[cells[budget]] for budget in budgets]):
            return None
        return self._draw({cells[b]: w for b, w in zip(budgets, trapezoid(budgets), strict=True)})


def judge_base(correct: Float32[np.ndarray, " questions"]) -> Estimate:
    """Return the accuracy before finetuning; its interval covers the questions only, because no seed affects it."""
    drawn = Resampling(correct[None]).draw(summarize(correct[None], ["base"], "base", {0: 1.0}))
    value = replace(mean(drawn.sample), seeds=(0.0,))
    return estimate(value, draws(value, drawn), least=0.0)


def trapezoid(budgets: Sequence[float]) -> list[float]:
    """Return the weights of the trapezoidal rule over log budget; they sum to 1."""
    logs = np.log10(budgets)
    ends = np.concatenate([logs[:1], logs, logs[-1:]])
    return ((ends[2:] - ends[:-2]) / 2 / (logs[-1] - logs[0])).tolist()


def _estimate(drawn: Drawn) -> Estimate:
    value = mean(drawn.sample)
    return estimate(value, draws(value, drawn), least=0.0)


def _compare(ours: Drawn, theirs: Drawn) -> Comparison:
    difference = mean(ours.sample, theirs.sample)
    p = p_value(difference)
    fewest_seeds = min(len(ours.sample.rows), len(theirs.sample.rows))
    return Comparison(estimate(difference, draws(difference, ours, theirs)), p, p, fewest_seeds)


def _adjusted(found: list[Judged]) -> list[Judged]:
    """Adjust the p-values for the number of tests."""
    adjusted = iter(holm([f.comparison.p for f in found if f.comparison and f.comparison.p is not None]))
    return [
        replace(f, comparison=replace(f.comparison, p_adjusted=next(adjusted)))
        if f.comparison and f.comparison.p is not None
        else f
        for f in found
    ]


def find(study: Study) -> Findings:
    """Judge a study: the quality of every cell, its comparison with random, and annotations saved."""
    reference = next((cell.arm for cell in study.cells if cell.arm.strategy == REFERENCE), None)
    judges = [BenchmarkAnalysis(study, benchmark, reference) for benchmark in study.benchmarks]
    findings = [finding for judge in judges for finding in judge.findings()]
    curves = [curve for judge in judges for curve in judge.curves()]
    base = {name: judge_base(values) for name, values in study.base.items()}
    return Findings(base, findings, curves, notes(study, reference, findings, curves))
