"""The picks, drawn with one panel per arm: tasks, lengths, and a map of the features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aliquot.report.figures.drawing import ACCENT, COLORS, NEUTRAL, Canvas, Drawing, wrapped
from aliquot.report.figures.selection_numbers import draw_correlations, draw_overlap, draw_summary
from aliquot.report.selections.picks import Picks, TaskShares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 4  # tasks of each arm that are labeled
_TOLD = 3  # arms whose most changed task is in the description


def _draw_tasks(picks: Picks) -> Drawing | None:
    """Draw the share of each task among the picks against its share of the pool; on the diagonal, nothing changed."""
    tasks = picks.tasks
    if tasks is None or len(tasks.names) < 2:
        return None
    floor = min(tasks.pool.min(), tasks.picked[tasks.picked > 0].min()) / 2  # position of tasks that were not picked
    ends = (floor / 1.3, max(tasks.pool.max(), tasks.picked.max()) * 1.5)
    changes = np.abs(tasks.picked - tasks.pool)
    named = np.argsort(-changes, axis=1, kind="stable")[:, :_NAMED]

    def fill(canvas: Canvas, axes: Axes, arm: int) -> None:
        shares, most = np.maximum(tasks.picked[arm], floor), named[arm]
        axes.plot(ends, ends, color=NEUTRAL, linestyle="--", linewidth=1)
        axes.plot(tasks.pool, shares, ".", color=NEUTRAL, markersize=3, rasterized=True)
        titles = [_say_task(picks, tasks, arm, task) for task in most.tolist()]
        canvas.points(axes, tasks.pool[most], shares[most], titles, color=ACCENT, marker="o")

    canvas = _panel_each(picks, 1.75, fill, "share of the pool", "share of the picks")
    _logarithmic_shares(canvas.panels[0][0], ends)
    told = np.argsort(-changes.max(axis=1), kind="stable")[:_TOLD].tolist()
    return canvas.drawing(
        "picks-tasks",
        "Tasks of the picks",
        f"Share of each of {len(tasks.names)} tasks among the picks against its share of the pool, both logarithmic: "
        f"above the dashed line, a task is picked more often than at random. Blue: the {_NAMED} whose share changed "
        f"most. Largest changes: {'; '.join(_say_task(picks, tasks, arm, int(named[arm, 0])) for arm in told)}.",
    )


def _say_task(picks: Picks, tasks: TaskShares, arm: int, task: int) -> str:
    picked, of_pool = 100 * tasks.picked[arm, task], 100 * tasks.pool[task]
    return f"{picks.arms[arm].name}, {tasks.names[task]}: {picked:.2f} % of the picks, {of_pool:.2f} % of the pool"


def _logarithmic_shares(axes: Axes, ends: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, numticks=5))
        axis.set_major_formatter(FuncFormatter(_percent_tick))
    axes.minorticks_off()


def _percent_tick(share: float, _position: int) -> str:
    return f"{100 * share:g} %"


def _draw_lengths(picks: Picks) -> Drawing | None:
    """Draw the histogram of each arm over that of the pool."""
    lengths = picks.lengths
    if lengths is None:
        return None

    def fill(canvas: Canvas, axes: Axes, arm: int) -> None:
        axes.stairs(100 * lengths.pool, lengths.edges, fill=True, color=NEUTRAL, alpha=0.3)
        axes.stairs(100 * lengths.picked[arm], lengths.edges, color=ACCENT, linewidth=1.4)

    canvas = _panel_each(picks, 1.3, fill, "tokens of the prompt", "share, %")
    canvas.panels[0][0].set_xlim(lengths.edges[0], lengths.edges[-1])
    longest, shortest = int(lengths.means.argmax()), int(lengths.means.argmin())
    return canvas.drawing(
        "picks-lengths",
        "Lengths of the picks",
        f"How many tokens the picked prompts have; gray: the pool's; the last bin holds all longer ones. Mean of the "
        f"pool {lengths.pool_mean:.1f}, of {picks.arms[longest].name} {lengths.means[longest]:.1f}, the most, "
        f"of {picks.arms[shortest].name} {lengths.means[shortest]:.1f}, the least.",
    )


def _draw_map(picks: Picks) -> Drawing | None:
    """Draw each arm's picks over the pool, in the plane of largest variance."""
    plane = picks.map
    if plane is None:
        return None

    def fill(canvas: Canvas, axes: Axes, arm: int) -> None:
        look: dict[str, Any] = {"rasterized": True, "markeredgewidth": 0}
        axes.plot(*plane.pool.T, ".", color=NEUTRAL, markersize=2, alpha=0.5, **look)
        axes.plot(*plane.picked[arm].T, ".", color=COLORS[1], markersize=2.4, alpha=0.8, **look)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)

    first, second = (100 * share for share in plane.explained)
    canvas = _panel_each(
        picks, 1.7, fill, f"first principal axis, {first:.0f} % of the variance", f"second, {second:.0f} %"
    )
    return canvas.drawing(
        "picks-map",
        "Map of the picks",
        f"The prompts on the first two principal axes of their features, which hold {first:.0f} % and {second:.0f} % "
        f"of the variance. Gray: {len(plane.pool):,} prompts of the pool, drawn at random; colored: up to "
        f"{max(map(len, plane.picked)):,} of each arm's picks. Neighbors here may be far apart along other axes.",
    )


def _panel_each(
    picks: Picks, height: float, fill: Callable[[Canvas, Axes, int], None], xlabel: str, ylabel: str
) -> Canvas:
    """Draw one panel per arm, two in a row."""
    rows = (len(picks.arms) + 1) // 2
    canvas = Canvas(height * rows + 0.4, rows, 2, sharex=True, sharey=True)
    panels = [axes for row in canvas.panels for axes in row]
    for i, (axes, arm) in enumerate(zip(panels, picks.arms, strict=False)):
        fill(canvas, axes, i)
        axes.set_title(wrapped(arm.name), fontsize=9)
    canvas.hide_beyond(len(picks.arms))
    canvas.figure.supxlabel(xlabel)
    canvas.figure.supylabel(ylabel)
    return canvas


#: Functions that draw a figure of the picks, in report order; each returns None if there is nothing to draw.
PICK_FIGURES = (draw_summary, _draw_tasks, _draw_lengths, _draw_map, draw_overlap, draw_correlations)
