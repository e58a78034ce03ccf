"""The answer in sentences: does choosing beat random, and how many annotations does it save? Losses like wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aliquot.report.findings import REFERENCE, Comparison, Estimate, Finding, Findings, Saved
from aliquot.validation_loss import LIKELIHOOD

#: Below it, a p-value that is corrected for how many comparisons there are is called reliable.
LEVEL = 0.05


@dataclass(frozen=True)
class Answer:
    """What a study says on one benchmark.

    Args:
        headline: one sentence.
        detail: the numbers behind it, and what speaks against it.
    """

    headline: str
    detail: str


def answers(findings: Findings) -> list[Answer]:
    """Return one answer a benchmark, in the order of the study."""
    return [_answer(name, [f for f in findings.findings if f.benchmark == name]) for name in findings.base]


def verdict(comparison: Comparison) -> str:
    """Name what a comparison shows: "better", "worse" or "unclear"."""
    if comparison.p_adjusted >= LEVEL:
        return "unclear"
    return "better" if comparison.difference.value > 0 else "worse"


def _answer(benchmark: str, findings: Sequence[Finding]) -> Answer:
    compared = [(f, f.comparison) for f in findings if f.comparison]
    if not compared:
        headline = f"Nothing can be compared with {REFERENCE} on {benchmark} yet."
        return Answer(headline, f"No run of {REFERENCE} has the budget of another strategy's.")
    better = [f for f, comparison in compared if verdict(comparison) == "better"]
    worse = [f for f, comparison in compared if verdict(comparison) == "worse"]
    best = max(better or [f for f, _ in compared], key=_difference)
    if better:
        headline = (
            f"{best.arm.name} beats {REFERENCE} on {benchmark}: "
            f"{points(_difference(best))} points of {measured(benchmark)} at {best.budget:,} annotations."
        )
        detail = f"That is the largest reliable gain ({_interval_and_p(best)}){_saving(best)}."
    else:
        headline = f"No strategy is reliably better than {REFERENCE} on {benchmark}."
        detail = f"The highest difference is {_named(best)}."
    detail += (
        f" Of {_comparisons(len(compared))}, {_are(len(better))} reliably better and {_are(len(worse))} reliably worse"
    )
    detail += f": the largest loss is {_named(min(worse, key=_difference))}." if worse else "."
    if all(comparison.fewest_seeds == 1 for _, comparison in compared):
        detail += " These are single seeds: the intervals cover the questions, and other seeds may say otherwise."
    return Answer(headline, detail)


def _difference(finding: Finding) -> float:
    assert finding.comparison is not None
    return finding.comparison.difference.value


def _named(finding: Finding) -> str:
    head = f"{finding.arm.name} at {finding.budget:,} annotations"
    return f"{head}, {points(_difference(finding))} points ({_interval_and_p(finding)})"


def _interval_and_p(finding: Finding) -> str:
    assert finding.comparison is not None
    return f"95 % {interval(finding.comparison.difference)}, Holm {p_value(finding.comparison.p_adjusted)}"


def _saving(finding: Finding) -> str:
    saved = finding.saved
    if saved is None or saved.side == "below":
        return ""
    if saved.ratio is None:
        most = f"{round(saved.range[1] * finding.budget):,}"
        return f"; {REFERENCE} does not reach that {measured(finding.benchmark)} with {most} annotations"
    limits = f" (95 % {saved_interval(saved)})" if saved_interval(saved) else ""
    return f"; {REFERENCE} needs {times(saved.ratio)} times as many annotations for it{limits}"


def _comparisons(count: int) -> str:
    return f"{count} comparison{'s' if count > 1 else ''}"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count or 'none'} are"


def measured(*benchmarks: str) -> str:
    """Return what benchmarks of one study measure: a likelihood must not be read as an accuracy."""
    return "likelihood" if LIKELIHOOD in benchmarks else "accuracy"


def points(fraction: float) -> str:
    """Write a difference of fractions as points, hundredths of it, with its sign."""
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def interval(difference: Estimate) -> str:
    """Write the 95 % interval of a difference, in points."""
    return f"{points(difference.low)} to {points(difference.high)}"


def p_value(p: float) -> str:
    """Write a p-value with the digits that mean something."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def times(ratio: float) -> str:
    """Write how many times as many."""
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def saved_interval(saved: Saved) -> str:
    """Write the 95 % interval of annotations saved, "" where it holds all of random's budgets."""
    if saved.low is None:
        return f"at most {times(saved.high)}" if saved.high is not None else ""
    return f"{times(saved.low)} to {times(saved.high)}" if saved.high is not None else f"at least {times(saved.low)}"
