"""The answer in sentences: does selection beat random, and how many annotations does it save? Losses like wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aliquot.evaluation.wording import measured
from aliquot.report.analysis.findings import MIN_SEEDS, REFERENCE, Comparison, Finding, Findings
from aliquot.report.analysis.numbers import p_value, points, points_interval, saved_interval, times, with_interval


@dataclass(frozen=True)
class Verdict:
    """The verdict of a study on one benchmark.

    Args:
        headline: one sentence.
        detail: the numbers that support it, and the evidence against it.
    """

    headline: str
    detail: str


def answers(findings: Findings) -> list[Verdict]:
    """Return one answer per benchmark, in the order of the study."""
    return [_answer(name, [f for f in findings.findings if f.benchmark == name]) for name in findings.base]


def verdict(comparison: Comparison) -> str:
    """Name the result of a comparison: "better", "worse", "unclear", or why it was not tested."""
    if comparison.why_untested or not comparison.is_reliable:
        return comparison.why_untested or "unclear"
    return "better" if comparison.difference.value > 0 else "worse"


def _answer(benchmark: str, findings: Sequence[Finding]) -> Verdict:
    compared = [(f, f.comparison) for f in findings if f.comparison]
    tested = [(f, comparison) for f, comparison in compared if not comparison.why_untested]
    if not compared:
        headline = f"Nothing can be compared with {REFERENCE} on {benchmark} yet."
        return Verdict(headline, f"No run of {REFERENCE} has the budget of another strategy's.")
    if not tested:
        return _untested(benchmark, [f for f, _ in compared])
    better = [f for f, comparison in tested if verdict(comparison) == "better"]
    worse = [f for f, comparison in tested if verdict(comparison) == "worse"]
    best = max(better or [f for f, _ in tested], key=_difference)
    if better:
        headline = (
            f"{best.arm.name} beats {REFERENCE} on {benchmark}: "
            f"{_points(best)} of {measured(benchmark)} at {best.budget:,} annotations."
        )
        detail = f"That is the largest reliable gain ({_interval_and_p(best)}){_saving(best)}."
    else:
        headline = f"No strategy is reliably better than {REFERENCE} on {benchmark}."
        detail = f"The highest difference that was tested is {_named(best)}."
    detail += (
        f" Of {_comparisons(len(tested))}, {_are(len(better))} reliably better and {_are(len(worse))} reliably worse"
    )
    detail += f": the largest loss is {_named(min(worse, key=_difference))}." if worse else "."
    if untested := [f for f, comparison in compared if comparison.why_untested]:
        highest = max(untested, key=_difference)
        detail += (
            f" {_comparisons(len(untested)).capitalize()} more could not be tested, and the notes say why; the highest "
            f"is {_at(highest)}."
        )
    return Verdict(headline, detail)


def _untested(benchmark: str, compared: Sequence[Finding]) -> Verdict:
    """Say why nothing can be distinguished from chance."""
    detail = f"The highest difference is {_at(max(compared, key=_difference))}."
    if any(f.comparison and f.comparison.fewest_seeds < MIN_SEEDS for f in compared):
        headline = f"One seed cannot tell a gain on {benchmark} from chance: run at least one more."
        return Verdict(headline, f"{detail} Another seed alone moves a score; the notes say where seeds are missing.")
    headline = (
        f"Nothing can be distinguished from chance on {benchmark}: no seed and no question makes a difference there."
    )
    return Verdict(headline, detail)


def _difference(finding: Finding) -> float:
    assert finding.comparison is not None
    return finding.comparison.difference.value


def _named(finding: Finding) -> str:
    return f"{_at(finding)} ({_interval_and_p(finding)})"


def _at(finding: Finding) -> str:
    return f"{finding.arm.name} at {finding.budget:,} annotations, {_points(finding)}"


def _points(finding: Finding) -> str:
    assert finding.comparison is not None
    return f"{points(finding.comparison.difference)} points"


def _interval_and_p(finding: Finding) -> str:
    assert finding.comparison is not None
    return f"95 % {points_interval(finding.comparison.difference)}, Holm {p_value(finding.comparison.p_adjusted)}"


def _saving(finding: Finding) -> str:
    saved = finding.saved
    if saved is None or saved.side == "below":
        return ""
    if saved.ratio is None:
        most = f"{round(saved.range[1] * finding.budget):,}"
        return f"; {REFERENCE} does not reach that {measured(finding.benchmark)} with {most} annotations"
    limits = saved_interval(saved) and f"95 % {saved_interval(saved)}"
    needs = f"{REFERENCE} needs {times(saved.ratio)} times as many annotations for it"
    return f"; {with_interval(needs, limits)}"


def _comparisons(count: int) -> str:
    return f"{count} comparison{'s' if count > 1 else ''}"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count or 'none'} are"
