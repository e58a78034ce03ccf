"""Accuracy against the number of annotations, with bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aliquot.evaluation.wording import measured
from aliquot.report.analysis.findings import REFERENCE, Finding, Findings
from aliquot.report.analysis.numbers import percent, percent_interval, with_interval
from aliquot.report.analysis.statistics import Estimate
from aliquot.report.figures.drawing import (
    ACCENT,
    COLORS,
    INK,
    MARKERS,
    NEUTRAL,
    Canvas,
    Drawing,
    apart,
    count,
    say_score,
    slug,
    wrapped,
)
from aliquot.report.figures.intervals import Whisker, draw_whiskers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ONE_PANEL = 4  # maximum arms, besides random, in a readable panel

#: The findings of one arm on one benchmark, with ascending budgets.
Series = list[Finding]


def draw_accuracy(findings: Findings, benchmark: str) -> Drawing | None:
    """Draw accuracy against budget: all arms in one panel, or one panel per arm if there are many."""
    by_arm: dict[str, Series] = {}
    for f in findings.findings:
        if f.benchmark == benchmark:
            by_arm.setdefault(f.arm.name, []).append(f)
    if not by_arm:
        return None
    all_series = list(by_arm.values())
    random = next((series for series in all_series if series[0].arm.strategy == REFERENCE), [])
    others = [series for series in all_series if series is not random]
    budgets = sorted({f.budget for series in all_series for f in series})
    base, axis = findings.base[benchmark], f"{measured(benchmark)}, %"
    if len(budgets) == 1:
        canvas = _one_budget(all_series, random, base, axis)
    elif len(others) <= _ONE_PANEL:
        canvas = _one_panel(others, random, base, axis)
        _mark_budgets(canvas.panels[0][0], budgets, 0.08)
    else:
        canvas = _small_multiples(others, random, base, axis)
        _mark_budgets(canvas.panels[0][0], budgets, 0.16)
    return canvas.drawing(
        f"accuracy-{slug(benchmark)}",
        f"{benchmark}: {measured(benchmark)} against annotations",
        _say(benchmark, all_series, budgets[-1], base),
    )


def _one_panel(others: list[Series], random: Series, base: Estimate, axis: str) -> Canvas:
    canvas = Canvas(3.6 + 0.2 * ((len(others) + 3) // 2))
    axes = canvas.panels[0][0]
    for position, series in enumerate(others):
        _draw_arm(canvas, axes, series, COLORS[position], MARKERS[position])
    if random:
        _draw_arm(canvas, axes, random, NEUTRAL, "o", hollow=True)
    _draw_base(axes, [*others, random], base)
    axes.set_ylabel(axis)
    axes.set_xlabel("prompts annotated")
    canvas.legend(axes, columns=1 if max(len(series[0].arm.name) for series in others or [random]) > 28 else 2)
    return canvas


def _small_multiples(others: list[Series], random: Series, base: Estimate, axis: str) -> Canvas:
    """Draw one panel per arm: this arm in color, random dashed, all others thin and gray."""
    from matplotlib.collections import LineCollection

    rows = (len(others) + 1) // 2
    lines = [[(f.budget, 100 * f.score.value) for f in series] for series in [*others, random] if series]
    canvas = Canvas(1.35 * rows + 0.4, rows, 2, sharex=True, sharey=True)
    panels = [axes for row in canvas.panels for axes in row]
    for axes, series in zip(panels, others, strict=False):
        axes.add_collection(LineCollection(lines, colors=NEUTRAL, linewidths=0.6, alpha=0.5), autolim=False)
        axes.plot([f.budget for f in random], [100 * f.score.value for f in random], color=NEUTRAL, linestyle="--")
        _draw_arm(canvas, axes, series, ACCENT, "o")
        _draw_base(axes, [*others, random], base)
        axes.set_title(wrapped(series[0].arm.name), fontsize=9)
    canvas.hide_beyond(len(others))
    canvas.figure.supylabel(axis)
    canvas.figure.supxlabel("prompts annotated")
    return canvas


def _one_budget(all_series: list[Series], random: Series, base: Estimate, axis: str) -> Canvas:
    """Draw one row per arm, for use when there is no curve."""
    found = sorted((series[0] for series in all_series), key=lambda f: -f.score.value)
    rows = [
        Whisker(f.arm.name, 100 * f.score.value, 100 * f.score.low, 100 * f.score.high, say_score(f)) for f in found
    ]
    canvas = draw_whiskers({f"{found[0].budget:,} prompts": rows})
    axes = canvas.panels[0][0]
    if random:
        axes.axvline(100 * random[0].score.value, color=NEUTRAL, linestyle="--", linewidth=1.2, zorder=1)
    canvas.figure.supxlabel(f"{axis} (before finetuning: {percent(base)})")
    return canvas


def _draw_arm(canvas: Canvas, axes: Axes, series: Series, color: str, marker: str, hollow: bool = False) -> None:
    """Draw a line with its band; random's is dashed and its markers are hollow."""
    budgets, values = [f.budget for f in series], [100 * f.score.value for f in series]
    low, high = [100 * f.score.low for f in series], [100 * f.score.high for f in series]
    if len(series) > 1:
        axes.fill_between(budgets, low, high, color=color, alpha=0.16, linewidth=0)
    else:
        axes.vlines(budgets, low, high, color=color)
    line, face = "--" if hollow else "-", "none" if hollow else color
    axes.plot(budgets, values, color=color, linestyle=line)
    titles = [say_score(f) for f in series]
    canvas.points(axes, budgets, values, titles, color=color, marker=marker, markerfacecolor=face)
    label = series[0].arm.name
    axes.plot([], [], color=color, linestyle=line, marker=marker, markerfacecolor=face, label=label)


def _draw_base(axes: Axes, all_series: list[Series], base: Estimate) -> None:
    """Draw the score before finetuning, unless it is so far below that it would flatten the curves."""
    values = [f.score.value for series in all_series for f in series]
    lowest, highest = min(values), max(values)
    if lowest - base.value < max(highest - lowest, 0.05):
        label = f"before finetuning: {percent(base)} %"
        axes.axhline(100 * base.value, color=INK, linestyle=":", linewidth=1.1, label=label)
    else:
        axes.plot([], [], linestyle="none", label=f"before finetuning, below: {percent(base)} %")


def _mark_budgets(axes: Axes, budgets: Sequence[float], gap: float) -> None:
    axes.set_xscale("log")
    shown = apart(budgets, gap, logarithmic=True)
    axes.set_xticks(shown, [count(int(b)) if b == int(b) else f"{b:g}" for b in shown])
    axes.minorticks_off()


def _say(benchmark: str, all_series: list[Series], budget: float, base: Estimate) -> str:
    """Describe the three best arms at the largest budget, and random."""
    found = sorted((f for series in all_series for f in series if f.budget == budget), key=lambda f: -f.score.value)
    shown = found[:3] + [f for f in found[3:] if f.arm.strategy == REFERENCE]
    scores = ", ".join(
        f"{f.arm.name} {with_interval(f'{percent(f.score)} %', percent_interval(f.score))}" for f in shown
    )
    return (
        f"{measured(benchmark).capitalize()} on {benchmark} against the number of annotations, with 95 % intervals; "
        "random is dashed. "
        f"With {budget:,}: {scores}. Before finetuning: {percent(base)} %."
    )
