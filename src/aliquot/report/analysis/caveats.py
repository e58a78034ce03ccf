"""The limitations of a study that a reader must know, each with its remedy."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence

import numpy as np

from aliquot.config.schema import Limit
from aliquot.report.analysis.findings import MIN_SEEDS, REFERENCE, Curve, Finding
from aliquot.report.analysis.numbers import points
from aliquot.report.analysis.statistics import Estimate, mean, summarize
from aliquot.report.analysis.study import Arm, Cell, Study, shared_replicates

#: The number of seeds from which onward nothing is said about their number.
_ENOUGH = 3
#: The number of seeds that notes ask for.
_MANY = 5
_MISSING = "Run the missing seeds."
#: A fall of random's score is reported from this many standard errors.
_FALL = 2.0
#: The number of arms that a note names.
_NAMED = 4
#: Prefixes of the settings that determine which prompts are selected.
_CHOICES = ("strategy", "budget=", "seed=", "sweeps=", "cost_aware=")


def notes(study: Study, reference: Arm | None, findings: Sequence[Finding], curves: Sequence[Curve]) -> list[str]:
    """Return the limitations of the findings of a study."""
    return [
        *_on_unit(study),
        *_on_random(study, reference),
        *_on_falls(study, reference),
        *_on_seeds(study.cells),
        *_on_curves(study.cells, curves),
        *_on_equals(findings),
        *_on_responses(study.cells),
        *_on_ends(study),
    ]


def _on_unit(study: Study) -> list[str]:
    if not study.unit:
        return []
    return [
        f"Budgets are in {study.unit}: so is every number of annotations or prompts at which strategies are compared "
        "here. How many responses and tokens that was stands with their cost."
    ]


def _on_random(study: Study, reference: Arm | None) -> list[str]:
    if reference is None:
        remedy = _remedy(study, {cell.budget for cell in study.cells})
        return [f"No run of random: nothing is compared. Report it together with a sweep that has some, or: {remedy}"]
    found: list[str] = []
    budgets = {cell.budget for cell in study.cells if cell.arm.name == reference.name}
    missing = {cell.budget for cell in study.cells} - budgets
    if missing:
        at = ", ".join(f"{budget:,}" for budget in sorted(missing))
        found.append(f"No run of random at {at}: nothing is compared there. {_remedy(study, missing)}")
    if len(budgets) < 2:
        others = sorted(missing) or [2 * min(budgets)]
        found.append(f"Random has one budget, so annotations saved are unknown. {_remedy(study, others)}")
    arms = dict.fromkeys(cell.arm.name for cell in study.cells if cell.arm.strategy == REFERENCE)
    if len(arms) > 1:
        found.append(f"{len(arms)} arms choose at random: all are compared with '{reference.name}'.")
    return found


def _on_falls(study: Study, reference: Arm | None) -> list[str]:
    """Warn if more annotations make random worse: annotations saved are read from a curve that never falls."""
    if reference is None:
        return []
    found: list[str] = []
    cells = sorted((cell for cell in study.cells if cell.arm.name == reference.name), key=lambda cell: cell.budget)
    for benchmark in study.benchmarks:
        best, last = max(cells, key=lambda cell: float(cell.correct[benchmark].mean())), cells[-1]
        fall = mean(*(summarize(cell.correct[benchmark], cell.replicates, "random", {}) for cell in (best, last)))
        if fall.value > _FALL * fall.stderr:  # never if one has a single seed, whose standard error is NaN
            found.append(
                f"Random falls on {benchmark} by {points(Estimate(fall.value, fall.stderr))[1:]} points, from "
                f"{best.budget:,} to {last.budget:,} annotations: ratios of annotations saved mean little near its "
                "top. Read the differences there."
            )
    return found


def _on_seeds(cells: Sequence[Cell]) -> list[str]:
    found: list[str] = []
    if alone := [cell for cell in cells if len(cell.replicates) < MIN_SEEDS]:
        found.append(
            f"One seed only: {_names(alone)}. Another seed gives another score, and one seed does not tell how "
            "different, so there is no interval and no test. At least 1 more seed is needed, better 4: run their "
            f"commands again with -m {_more_seeds(alone)}."
        )
    if few := [cell for cell in cells if MIN_SEEDS <= len(cell.replicates) < _ENOUGH]:
        found.append(
            f"Two seeds only, hence very wide intervals, and tests that find next to nothing: {_names(few)}. Run "
            f"their commands again with -m {_more_seeds(few)}."
        )
    return found


def _more_seeds(cells: Sequence[Cell]) -> str:
    """Return the setting that brings cells to five seeds, with seeds that none of them has."""
    used = {int(replicate.split("/")[0]) for cell in cells for replicate in cell.replicates}
    missing = _MANY - min(len(cell.replicates) for cell in cells)
    return f"seed={','.join(map(str, itertools.islice((s for s in itertools.count() if s not in used), missing)))}"


def _on_equals(findings: Sequence[Finding]) -> list[str]:
    """Report comparisons that have no evidence for or against: no seed and no question differs."""
    compared = [(f, f.comparison) for f in findings if f.comparison and f.comparison.p is None]
    equal = [f"{f.arm.name} at {f.budget:,}" for f, c in compared if c.fewest_seeds >= MIN_SEEDS]
    if not equal:
        return []
    return [f"Not tested, because no seed and no question makes a difference: {_few(list(dict.fromkeys(equal)))}."]


def _on_curves(cells: Sequence[Cell], curves: Sequence[Curve]) -> list[str]:
    arms: dict[str, list[Cell]] = {}
    for cell in cells:
        arms.setdefault(cell.arm.name, []).append(cell)
    apart = [name for name, group in arms.items() if not shared_replicates(group)]
    found: list[str] = []
    if apart:
        found.append(f"No seed has all budgets, so there is no area under the curve: {', '.join(apart)}. {_MISSING}")
    repeated = {name for name, group in arms.items() if all(len(cell.replicates) >= MIN_SEEDS for cell in group)}
    drawn = dict.fromkeys(curve.arm.name for curve in curves)
    if thin := [name for name in drawn if name in repeated and len(shared_replicates(arms[name])) < MIN_SEEDS]:
        found.append(f"Only one seed has all budgets, so areas are not tested: {', '.join(thin)}. {_MISSING}")
    return found


def _on_responses(cells: Sequence[Cell]) -> list[str]:
    """Warn if arms differ in more than selection: some were trained on fewer responses than their budget."""
    asked = [(cell, cell.annotations.asked if cell.annotations.unit else cell.budget) for cell in cells]
    numbers = [
        f"{cell.arm.name} has {cell.annotations.number:,.0f} of {number:,.0f}"
        for cell, number in asked
        if cell.annotations.number is not None and number is not None and cell.annotations.number < number
    ]
    if not numbers:
        return []
    return [
        f"Prompts without a response make cells unequal: {_few(numbers)}. Have the rest annotated before comparing."
    ]


def _on_ends(study: Study) -> list[str]:
    """Warn if all answers are wrong, or all are right: nothing varies, which does not mean certainty."""
    found: list[str] = []
    for benchmark in study.benchmarks:
        if ends := [cell for cell in study.cells if float(np.ptp(cell.correct[benchmark])) == 0]:
            found.append(
                f"All answers on {benchmark} have the same score: {_names(ends)}. Nothing varies there, so "
                "there is no interval, and ratios of annotations saved have no meaning: ask more questions, or others."
            )
    return found


def _names(cells: Iterable[Cell]) -> str:
    """Return the first arms with their budgets: random at 1,000 and 3,000."""
    arms: dict[str, list[str]] = {}
    for cell in cells:
        arms.setdefault(cell.arm.name, []).append(f"{cell.budget:,}")
    named = [f"{name} at {' and '.join(budgets)}" for name, budgets in arms.items()]
    return _few(named)


def _few(texts: Sequence[str]) -> str:
    """Join the first texts, and say how many more there are."""
    more = [f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else []
    return "; ".join([*texts[:_NAMED], *more])


def _remedy(study: Study, budgets: Iterable[float]) -> str:
    """Return the command that runs random at these budgets, with the settings shared by all runs."""
    seeds = {replicate.split("/")[0] for cell in study.cells for replicate in cell.replicates}
    values = ",".join(str(Limit(budget, study.unit)) if study.unit else str(budget) for budget in sorted(budgets))
    shared = [
        shlex.quote(override)
        for override in (study.records[0].overrides if study.records else ())
        if not override.startswith(_CHOICES) and all(override in record.overrides for record in study.records)
    ]
    return " ".join(
        ["python run.py -m strategy=random", f"budget={values}", f"seed={','.join(sorted(seeds, key=int))}", *shared]
    )
