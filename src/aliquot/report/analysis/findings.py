"""The findings of a study: estimates with intervals, comparisons with random, annotations saved. Plain values only.

All output (tables, figures, page, dashboard) is made from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.study import NOT_TOLD, Annotations, Arm

#: The strategy that the others are compared with.
REFERENCE = "random"
#: A p-value below this level, corrected for the number of comparisons, is called reliable.
LEVEL = 0.05
#: Minimum seeds on both sides of a comparison: questions cannot replace them.
MIN_SEEDS = 2


@dataclass(frozen=True)
class Comparison:
    """An arm against random at the same budget, on the same questions.

    Args:
        difference: arm minus random; positive is better than random.
        p: two-sided, for no difference, by Welch's t; None if a side has one seed, or nothing varies.
        p_adjusted: by Holm over all tests of the benchmark in the study; tests of curves are counted separately.
        fewest_seeds: replicates of the side that has fewer; seeds are not paired.
    """

    difference: Estimate
    p: float | None
    p_adjusted: float | None
    fewest_seeds: int

    @property
    def why_untested(self) -> str:
        """Why there is no p-value, in two words; "" if there is one."""
        if self.fewest_seeds < MIN_SEEDS:
            return "one seed"
        return "no variation" if self.p is None else ""

    @property
    def is_reliable(self) -> bool:
        """Whether the corrected p-value is below `LEVEL`."""
        return self.p_adjusted is not None and self.p_adjusted < LEVEL


@dataclass(frozen=True)
class Saved:
    """How many annotations random needs to reach the arm's accuracy, divided by the arm's own: 2 means half saved.

    A number is None where random's curve does not reach that accuracy within its budgets (`above`: random needs more
    than its largest budget, that is "not reached"; `below`: fewer than its smallest).

    Args:
        ratio: the estimate, or None with `side`.
        low: end of the 95 % interval, or None if it lies below random's smallest budget; at most range[1].
        high: end of the 95 % interval, or None if it lies above random's largest budget; at least range[0].
        side: None if the estimate is within random's budgets.
        range: the ratios that random's smallest and largest budget stand for.
        has_interval: False if an arm has one seed, or nothing varies; then `low` and `high` are None.
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
        arm: how prompts were selected.
        budget: how many prompts, or what they may cost.
        num_replicates: number of seeds.
        num_questions: of the benchmark.
        score: mean over seeds and questions; without an interval if there is one seed.
        comparison: with random; None for random itself, and if no run of random has this budget.
        saved: annotations saved; None for random itself, and if random has fewer than two budgets.
        selection_seconds: device-seconds spent on selection.
        runs: ids.
        annotations: the cost of annotation.
    """

    benchmark: str
    arm: Arm
    budget: float
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
        arm: how prompts were selected.
        budgets: ascending, at least two.
        area: under the accuracy-budget curve over log budget, divided by its width: a mean accuracy.
        comparison: of the areas with random over the budgets that both have; None for random, or if fewer than two.
    """

    benchmark: str
    arm: Arm
    budgets: tuple[float, ...]
    area: Estimate
    comparison: Comparison | None


@dataclass(frozen=True)
class Findings:
    """All findings of a study on accuracy.

    Args:
        base: benchmark -> accuracy before finetuning, in the order of the study's benchmarks.
        findings: by benchmark, arm and budget, in the order of the study.
        curves: of the arms with two budgets or more.
        notes: what a reader must know, such as single seeds or missing runs of random, each with its remedy.
    """

    base: dict[str, Estimate]
    findings: Sequence[Finding]
    curves: Sequence[Curve]
    notes: Sequence[str]
