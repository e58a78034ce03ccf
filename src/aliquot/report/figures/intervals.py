"""Arms against random, one row each with its interval: differences, annotations saved, gain and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from aliquot.evaluation.wording import measured
from aliquot.report.analysis.findings import LEVEL, Comparison, Finding, Findings, Saved
from aliquot.report.analysis.numbers import (
    p_value,
    points,
    points_interval,
    saved_interval,
    seconds,
    times,
    with_interval,
)
from aliquot.report.figures.drawing import (
    ACCENT,
    NEUTRAL,
    Canvas,
    Drawing,
    apart,
    slug,
    thinned,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS_BEYOND_LABELS = 6  # rows per panel beyond which the axis at the bottom of the figure is too far away
_PANELS = 6  # maximum budgets in one figure


@dataclass(frozen=True)
class Whisker:
    """A value with its interval, as one row of a panel.

    Args:
        label: of the row.
        value: position of the marker.
        low: end of the interval.
        high: end of the interval.
        title: hover text of the marker.
        filled: a solid marker, or a hollow one.
        marker: its shape.
    """

    label: str
    value: float
    low: float
    high: float
    title: str
    filled: bool = True
    marker: str = "o"


def draw_areas(findings: Findings) -> Drawing | None:
    """Draw the paired differences to random over all budgets, one panel per benchmark: the whole study at a glance."""
    by_arm: dict[str, dict[str, Comparison]] = {}
    for curve in findings.curves:
        if curve.comparison:
            by_arm.setdefault(curve.arm.name, {})[curve.benchmark] = curve.comparison
    if not by_arm:
        return None
    names = sorted(by_arm, key=lambda name: -fmean(c.difference.value for c in by_arm[name].values()))
    columns = min(2, len(findings.base))
    rows = -(-len(findings.base) // columns)
    height = rows * (0.3 + row_height(names) * len(names)) + 0.5
    canvas = Canvas(height, rows, columns, sharey=True)
    panels = [axes for row in canvas.panels for axes in row]
    for benchmark, axes in zip(findings.base, panels, strict=False):
        fill_panel(canvas, axes, [_whisker(name, "all budgets", by_arm[name][benchmark]) for name in names])
        axes.axvline(0, color=NEUTRAL, linestyle="--", linewidth=1.2, zorder=1)
        axes.set_title(benchmark)
    canvas.hide_beyond(len(findings.base))
    canvas.figure.supxlabel("difference from random, points, mean over the logarithm of the budget")
    said = "; ".join(
        f"{benchmark}: " + ", ".join(f"{name} {points(by_arm[name][benchmark].difference)}" for name in names)
        for benchmark in findings.base
    )
    return canvas.drawing(
        "areas",
        "All budgets at once: difference from random",
        "Mean score over the logarithm of the budget minus that of random, in points, with 95 % intervals. Solid: "
        f"p < {LEVEL} after Holm's correction. {said}.",
    )


def draw_differences(findings: Findings, benchmark: str) -> Drawing | None:
    """Draw the paired differences to random, one panel per budget; solid if significant after Holm's correction."""
    panels = _panels(findings, benchmark, lambda f: f.comparison is not None)
    if not panels:
        return None
    rows = {budget: [_difference(f) for f in series] for budget, series in panels.items()}
    canvas = draw_whiskers({f"{budget:,} prompts": whiskers for budget, whiskers in rows.items()})
    for (axes,) in canvas.panels:
        axes.axvline(0, color=NEUTRAL, linestyle="--", linewidth=1.2, zorder=1)
    canvas.figure.supxlabel(f"difference from random, points of {measured(benchmark)}")
    return canvas.drawing(
        f"differences-{slug(benchmark)}",
        f"{benchmark}: difference from random",
        f"{measured(benchmark).capitalize()} on {benchmark} minus that of random with as many annotations, with 95 % "
        f"intervals, in the order of the mean over budgets. Solid: p < {LEVEL} after Holm's correction. "
        f"{_say_differences(panels)}{_left_out(findings, benchmark, panels)}",
    )


def draw_saved(findings: Findings, benchmark: str) -> Drawing | None:
    """Draw random's budget as a multiple of the arm's at equal accuracy; unknown outside random's own budgets."""
    panels = _panels(findings, benchmark, lambda f: f.saved is not None)
    if not panels:
        return None
    rows = {budget: [_saved(f) for f in series] for budget, series in panels.items()}
    canvas = draw_whiskers({f"{budget:,} prompts": whiskers for budget, whiskers in rows.items()})
    ends = [end for whiskers in rows.values() for w in whiskers for end in (w.low, w.high)]
    left, right = min(0.5, *ends) / 1.2, max(2.0, *ends) * 1.2
    for (axes,), series in zip(canvas.panels, panels.values(), strict=True):
        axes.set_xscale("log", base=2)
        axes.set_xlim(left, right)
        ticks = apart([2.0**e for e in range(-12, 13) if left <= 2.0**e <= right], 0.17, logarithmic=True)
        axes.set_xticks(ticks, [f"{tick:g}\N{MULTIPLICATION SIGN}" for tick in ticks])
        axes.axvline(1, color=NEUTRAL, linestyle="--", linewidth=1.2, zorder=1)
        smallest, largest = next(f.saved.range for f in series if f.saved)
        for start, end in ((left, smallest), (largest, right)):
            if start < end:
                axes.axvspan(start, end, color=NEUTRAL, alpha=0.14, linewidth=0, zorder=0)
    canvas.figure.supxlabel("annotations random needs, relative to the arm's")
    return canvas.drawing(
        f"saved-{slug(benchmark)}",
        f"{benchmark}: annotations saved",
        f"How many times as many annotations random needs for the same {measured(benchmark)} on {benchmark}, with 95 % "
        f"intervals: 2 is half saved. Shaded: beyond random's budgets; a triangle points to where the value must lie. "
        f"{_say_saved(panels)}{_left_out(findings, benchmark, panels)}",
    )


def draw_cost(findings: Findings, benchmark: str) -> Drawing | None:
    """Draw the cost of selection next to its gain, at the largest budget that can be compared."""
    panels = _panels(findings, benchmark, lambda f: f.comparison is not None and f.selection_seconds > 0)
    if not panels:
        return None
    budget = max(panels)
    series = sorted(panels[budget], key=lambda f: f.selection_seconds)
    canvas = Canvas(
        1.0 + row_height([f.arm.name for f in series]) * len(series), 1, 2, sharey=True, width_ratios=(1, 1.4)
    )
    cost, gain = canvas.panels[0]
    spent = [Whisker(f.arm.name, s := f.selection_seconds, s, s, _cost_title(f), marker="s") for f in series]
    fill_panel(canvas, cost, spent)
    fill_panel(canvas, gain, [_difference(f) for f in series])
    cost.hlines(range(len(series)), 0, [w.value for w in spent], color=ACCENT, linewidth=1.6)
    cost.set_xlim(left=-0.06 * max(w.value for w in spent))  # keeps a marker at 0 away from the names
    for axes, ticks in ((cost, 3), (gain, 4)):
        axes.locator_params(axis="x", nbins=ticks)
    cost.xaxis.set_major_formatter("{x:,.10g}")
    cost.set_xlabel("device-seconds")
    gain.axvline(0, color=NEUTRAL, linestyle="--", linewidth=1.2, zorder=1)
    gain.set_xlabel("gain over random, points")
    shown = "; ".join(
        f"{f.arm.name} {seconds(f.selection_seconds)} s, {points(f.comparison.difference)} points"
        for f in series
        if f.comparison
    )
    return canvas.drawing(
        f"cost-{slug(benchmark)}",
        f"{benchmark}: gain and what choosing cost, {budget:,} prompts",
        f"Device-seconds of the scoring pass and the ranking, and the gain over random on {benchmark} with {budget:,} "
        f"annotations, with 95 % intervals: {shown}.",
    )


def draw_whiskers(panels: dict[str, list[Whisker]]) -> Canvas:
    """Return panels in one column, as high as they have rows, on one horizontal axis."""
    labels = [whisker.label for whiskers in panels.values() for whisker in whiskers]
    row = row_height(labels)
    heights = [
        row * len(whiskers) + (0.54 if len(whiskers) > _ROWS_BEYOND_LABELS else 0.34) for whiskers in panels.values()
    ]
    canvas = Canvas(sum(heights) + 0.5, len(panels), sharex=True, height_ratios=heights)
    for (title, whiskers), (axes,) in zip(panels.items(), canvas.panels, strict=True):
        fill_panel(canvas, axes, whiskers)
        axes.set_title(title)
        axes.tick_params(labelbottom=len(whiskers) > _ROWS_BEYOND_LABELS or axes is canvas.panels[-1][0])
    return canvas


def fill_panel(canvas: Canvas, axes: Axes, whiskers: Sequence[Whisker]) -> None:
    """Draw whiskers from top to bottom, and label their rows."""
    axes.hlines(range(len(whiskers)), [w.low for w in whiskers], [w.high for w in whiskers], color=ACCENT)
    for filled, marker in sorted({(w.filled, w.marker) for w in whiskers}):
        alike = [(row, w) for row, w in enumerate(whiskers) if (w.filled, w.marker) == (filled, marker)]
        style = {"color": ACCENT, "marker": marker, "markerfacecolor": ACCENT if filled else "none"}
        canvas.points(
            axes, [w.value for _, w in alike], [row for row, _ in alike], [w.title for _, w in alike], **style
        )
    axes.set_yticks(range(len(whiskers)), [wrapped(w.label) for w in whiskers])
    axes.set_ylim(len(whiskers) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def row_height(labels: Sequence[str]) -> float:
    """Return the height of a row in inches, from the lines of the longest label."""
    return 0.06 + 0.17 * max(wrapped(label).count("\n") + 1 for label in labels)


def _panels(findings: Findings, benchmark: str, shown: Callable[[Finding], bool]) -> dict[float, list[Finding]]:
    """Return budget -> content, for a few budgets between the smallest and the largest; arms in one order."""
    found = [f for f in findings.findings if f.benchmark == benchmark and shown(f)]
    gains: dict[str, list[float]] = {}
    for f in found:
        gains.setdefault(f.arm.name, []).append(f.comparison.difference.value if f.comparison else 0.0)
    found.sort(key=lambda f: -fmean(gains[f.arm.name]))
    budgets = thinned(sorted({f.budget for f in found}), _PANELS)
    return {budget: [f for f in found if f.budget == budget] for budget in budgets}


def _difference(f: Finding) -> Whisker:
    assert f.comparison is not None
    return _whisker(f.arm.name, f"{f.budget:,} prompts", f.comparison)


def _whisker(arm: str, where: str, c: Comparison) -> Whisker:
    low, value, high = (100 * end for end in (c.difference.low, c.difference.value, c.difference.high))
    said = with_interval(f"{points(c.difference)} points", points_interval(c.difference))
    tested = f"not tested: {c.why_untested}" if c.why_untested else f"{p_value(c.p_adjusted)} after Holm's correction"
    return Whisker(arm, value, low, high, f"{arm}, {where}: {said}, {tested}", filled=c.is_reliable)


def _saved(f: Finding) -> Whisker:
    """Place the ratio; a value outside random's budgets is a triangle at their end that points outward."""
    s = f.saved
    assert s is not None
    smallest, largest = s.range
    value = s.ratio if s.ratio is not None else largest if s.side == "above" else smallest
    marker = "o" if s.side is None else ">" if s.side == "above" else "<"
    low, high = s.low if s.low is not None else smallest, s.high if s.high is not None else largest
    if not s.has_interval:
        low = high = value
    title = f"{f.arm.name}, {f.budget:,} prompts: random needs {say_ratio(s)} as many"
    return Whisker(f.arm.name, value, min(low, value), max(high, value), title, s.side is None, marker)


def say_ratio(s: Saved) -> str:
    """Write annotations saved with its interval: 1.8 times (1.2 to 2.5)."""
    smallest, largest = s.range
    beyond = f"more than {times(largest)}" if s.side == "above" else f"less than {times(smallest)}"
    ratio = beyond if s.ratio is None else times(s.ratio)
    return with_interval(f"{ratio} times", saved_interval(s))


def _cost_title(f: Finding) -> str:
    return f"{f.arm.name}: scoring and ranking took {seconds(f.selection_seconds)} device-seconds"


def _say_differences(panels: dict[float, list[Finding]]) -> str:
    """Count the reliably better and worse arms, and name the largest of each."""
    compared = [(f, f.comparison) for series in panels.values() for f in series if f.comparison]
    found = [(f, c) for f, c in compared if not c.why_untested]
    reliable = [(c.difference, f) for f, c in found if c.is_reliable]
    said: list[str] = []
    for words, sign in (("Better than random", 1), ("Worse", -1)):
        alike = [(difference, f) for difference, f in reliable if sign * difference.value > 0]
        said.append(f"{words}: {len(alike)} of {len(found)}")
        if alike:
            most, f = max(alike, key=lambda pair: sign * pair[0].value)
            said[-1] += f", most {f.arm.name} with {f.budget:,} ({points(most)} points)"
    if untested := len(compared) - len(found):
        said.append(f"Not tested: {untested} of {len(compared)}")
    return f"{'. '.join(said)}."


def _say_saved(panels: dict[float, list[Finding]]) -> str:
    """Describe the arm that saves most with each budget."""
    texts: list[str] = []
    for budget, series in panels.items():
        saved = [(f, f.saved) for f in series if f.saved and f.saved.has_interval]
        known = [(_saved(f).value, f.score.value, f.arm.name, say_ratio(ratio)) for f, ratio in saved]
        if known:
            *_, name, ratio = max(known)
            texts.append(f"with {budget:,}, {name}: {ratio}")
    return f"Most saved {'; '.join(texts)}." if texts else "No interval is known."


def _left_out(findings: Findings, benchmark: str, panels: dict[float, list[Finding]]) -> str:
    """Name the budgets that were left out."""
    budgets = {f.budget for f in findings.findings if f.benchmark == benchmark and f.comparison}
    more = len(budgets) - len(panels)
    return f" {more} more budgets are in the table." if more > 0 else ""
