"""What a study says: estimates with intervals, comparisons with random, annotations saved. Plain values, no formats.

Everything that is shown (tables, figures, page, dashboard) is made from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.study import NOT_TOLD, Annotations, Arm

#: The strategy that the others are compared with.
REFERENCE = "random"
#: Below it, a p-value that is corrected for how many comparisons there are is called reliable.
LEVEL = 0.05
#: Seeds that both sides of a comparison must have: questions are no substitute.
MIN_SEEDS = 2


@dataclass(frozen=True)
class Comparison:
    """An arm against random at the same budget, on the same questions.

    Args:
        difference: arm minus random; positive is better than random.
        p: two-sided, of no difference, by Welch's t; None where a side has one seed, or nothing varies.
        p_adjusted: by Holm over all tests of the benchmark in the study; those of curves are counted apart.
        fewest_seeds: replicates of the one that has fewer; seeds are not paired.
    """

    difference: Estimate
    p: float | None
    p_adjusted: float | None
    fewest_seeds: int

    @property
    def why_untested(self) -> str:
        """Why there is no p-value, in two words; "" where there is one."""
        if self.fewest_seeds < MIN_SEEDS:
            return "one seed"
        return "no variation" if self.p is None else ""

    @property
    def is_reliable(self) -> bool:
        """Whether the corrected p-value is below `LEVEL`."""
        return self.p_adjusted is not None and self.p_adjusted < LEVEL


@dataclass(frozen=True)
class Saved:
    """How many annotations random needs for the accuracy that the arm has, divided by the arm's own: 2 is half saved.

    A number is None where random's curve does not reach that accuracy within its budgets (`above`: random needs more
    than its largest budget, that is "not reached"; `below`: fewer than its smallest).

    Args:
        ratio: the estimate, or None with `side`.
        low: end of the 95 % interval, or None where it lies below random's smallest budget; no more than range[1].
        high: end of the 95 % interval, or None where it lies above random's largest budget; no less than range[0].
        side: None where the estimate is within random's budgets.
        range: the ratios that random's smallest and largest budget stand for.
        has_interval: False where an arm has one seed, or nothing varies; then `low` and `high` are None.
    """

    ratio: float | None
    low: float | None
    high: float | None
    side: Literal["below", "above"] | None
    range: tuple[float, float]
    has_interval: bool = True


@dataclass(frozen=True)
class Finding:
    """One benchmark, arm and budget.

    Args:
        benchmark: its name.
        arm: how prompts were chosen.
        budget: how many.
        num_replicates: seeds.
        num_questions: of the benchmark.
        score: mean over seeds and questions; without an interval where there is one seed.
        comparison: with random; None for random itself, and where no run of random has this budget.
        saved: annotations saved; None for random itself, and where random has fewer than two budgets.
        selection_seconds: device-seconds that choosing cost.
        runs: ids.
        annotations: what annotating took.
    """

    benchmark: str
    arm: Arm
    budget: int
    num_replicates: int
    num_questions: int
    score: Estimate
    comparison: Comparison | None
    saved: Saved | None
    selection_seconds: float
    runs: tuple[str, ...]
    annotations: Annotations = NOT_TOLD


@dataclass(frozen=True)
class Curve:
    """An arm over all its budgets on one benchmark.

    Args:
        benchmark: its name.
        arm: how prompts were chosen.
        budgets: ascending, at least two.
        area: under the accuracy-budget curve over log budget, divided by its width: a mean accuracy.
        comparison: of the areas with random over the budgets that both have; None for random itself or without two.
    """

    benchmark: str
    arm: Arm
    budgets: tuple[int, ...]
    area: Estimate
    comparison: Comparison | None


@dataclass(frozen=True)
class Findings:
    """All that a study says of accuracy.

    Args:
        base: benchmark -> accuracy before finetuning, in the order of the study's benchmarks.
        findings: by benchmark, arm and budget, in the order of the study.
        curves: of the arms that have two budgets or more.
        notes: what a reader must know, such as single seeds or missing runs of random, each with its remedy.
    """

    base: dict[str, Estimate]
    findings: Sequence[Finding]
    curves: Sequence[Curve]
    notes: Sequence[str]
