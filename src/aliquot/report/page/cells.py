"""The cells of the page's tables: text, sort value, and hover text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aliquot.report.analysis import numbers
from aliquot.report.analysis.findings import Comparison, Finding, Saved
from aliquot.report.analysis.numbers import (
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
    saved_interval,
    times,
)
from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.verdict import verdict


@dataclass(frozen=True)
class Heading:
    """A column.

    Args:
        title: its heading.
        number: whether it holds numbers, which are right-aligned and sorted by value.
        filter: whether readers may filter rows by its values.
    """

    title: str
    number: bool = True
    filter: bool = False


@dataclass(frozen=True)
class PageCell:
    """One cell.

    Args:
        text: the displayed text.
        value: the sort value, or None to sort by text.
        interval: its 95 % interval, in words.
        tip: the text shown on hover and focus.
        link: its target, or "".
        code: whether it is text to type.
    """

    text: str
    value: float | str | None = None
    interval: str = ""
    tip: str = ""
    link: str = ""
    code: bool = False


#: The cell for a missing value; sorts last in both directions.
NONE = PageCell("-")


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; `note` is small print below it."""

    caption: str
    columns: Sequence[Heading]
    rows: Sequence[Sequence[PageCell]]
    note: str = ""


def count(number: float) -> PageCell:
    """Write a count."""
    return PageCell(f"{number:,}", number)


def number(value: float | None, form: str, tip: str = "") -> PageCell:
    """Write a number in a form such as ".2f"."""
    return NONE if value is None else PageCell(f"{value:{form}}", value, tip=tip)


def accuracy(score: Estimate, of: str = "") -> PageCell:
    """Write an accuracy in percent; `of` says in the tip what it was measured on."""
    exact = f"{100 * score.value:.4g} %" + (f", standard error {100 * score.stderr:.2g}" if score.stderr > 0 else "")
    return PageCell(percent(score), score.value, percent_interval(score), f"{exact}; {of}" if of else exact)


def difference(comparison: Comparison | None) -> PageCell:
    """Write a difference in points."""
    if comparison is None:
        return NONE
    d, seeds = comparison.difference, comparison.fewest_seeds
    exact = f"{100 * d.value:+.4g} points".replace("-", "\N{MINUS SIGN}")
    counted = f"{seeds} seed{'s' if seeds > 1 else ''} or more an arm"
    if comparison.why_untested:
        return PageCell(points(d), d.value, points_interval(d), f"{exact}; not tested: {comparison.why_untested}")
    tested = (
        f"standard error {100 * d.stderr:.2g}, {p_value(comparison.p)}, after Holm {p_value(comparison.p_adjusted)}"
    )
    return PageCell(points(d), d.value, points_interval(d), f"{exact}, {tested}; Welch's t, {counted}")


def judged(comparison: Comparison | None) -> PageCell:
    """Write the verdict."""
    return PageCell(verdict(comparison), verdict(comparison)) if comparison else NONE


def compared(comparison: Comparison | None) -> tuple[PageCell, ...]:
    """Write a comparison in full: difference, standard error, p, p after Holm, verdict, fewest seeds."""
    if comparison is None:
        return (NONE,) * 6
    stderr = comparison.difference.stderr
    return (
        difference(comparison),
        PageCell(f"{100 * stderr:.2g}", stderr) if comparison.difference.has_interval else NONE,
        _p(comparison.p),
        _p(comparison.p_adjusted),
        judged(comparison),
        count(comparison.fewest_seeds),
    )


def _p(p: float | None) -> PageCell:
    return NONE if p is None else PageCell(p_value(p).removeprefix("p ").removeprefix("= "), p, tip=f"{p:.2g}")


def times_saved(saved: Saved | None) -> PageCell:
    """Write annotations saved as a ratio."""
    if saved is None:
        return NONE
    low, high = saved.range
    if saved.ratio is not None:
        return PageCell(f"{times(saved.ratio)}x", saved.ratio, saved_interval(saved), f"{saved.ratio:.4g} times")
    if saved.side == "above":
        tip = f"random needs more than {times(high)} times as many"
        return PageCell("not reached", high, saved_interval(saved), tip)
    tip = f"random needs less than {times(low)} times as many"
    return PageCell(f"below {times(low)}x", low, saved_interval(saved), tip)


def needed(finding: Finding, saved: Saved) -> PageCell:
    """Write how many annotations random needs to reach the accuracy of a finding."""
    low, high = (finding.budget * end for end in saved.range)
    if saved.ratio is not None:
        return number(saved.ratio * finding.budget, ",.0f")
    return (
        PageCell(f"more than {high:,.0f}", high) if saved.side == "above" else PageCell(f"fewer than {low:,.0f}", low)
    )


def seconds(spent: float) -> PageCell:
    """Write the cost of selection."""
    return PageCell(numbers.seconds(spent), spent, tip=f"{spent:,.2f} device-seconds of scoring and ranking")
