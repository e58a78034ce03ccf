"""The picks in numbers: diversity and distances of each arm, overlap of arms, correlations of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aliquot.report.figures.drawing import COLORS, INK, NEUTRAL, Canvas, Drawing, wrapped
from aliquot.report.figures.intervals import Whisker, fill_panel, row_height
from aliquot.report.selections.picks import Picks, Summary

_WRITTEN = 20  # maximum rows of a matrix whose numbers are written into it


def draw_summary(picks: Picks) -> Drawing | None:
    """Draw the numbers of each arm, one column each; the dashed line is the pool."""
    columns = _columns(picks)
    if not columns:
        return None
    rows = (len(columns) + 1) // 2
    height = row_height([arm.name for arm in picks.arms]) * len(picks.arms) + 0.75
    canvas = Canvas(rows * height, rows, min(2, len(columns)), sharey=True)
    panels = [axes for row in canvas.panels for axes in row]
    for axes, (title, whiskers, of_pool) in zip(panels, columns, strict=False):
        fill_panel(canvas, axes, whiskers)
        axes.set_xlabel(title)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        if of_pool is not None:
            axes.axvline(of_pool, color=NEUTRAL, linestyle="--", linewidth=1.2, zorder=1)
    canvas.hide_beyond(len(columns))
    return canvas.drawing("picks-summary", f"What was picked: {picks.budget:,} prompts", _say_summary(picks))


def _columns(picks: Picks) -> list[tuple[str, list[Whisker], float | None]]:
    """Return title, rows and the pool's value for each column with content."""
    pool, *arms = picks.summaries()
    columns: list[tuple[str, list[Whisker], float | None]] = []
    if picks.tasks:
        rows = [_dot(s, s.effective_tasks, f"{s.effective_tasks:.1f} effective tasks of {s.num_tasks}") for s in arms]
        columns.append(("effective tasks", rows, pool.effective_tasks))
    if picks.lengths:
        rows = [_dot(s, s.mean_length, f"{s.mean_length:.1f} tokens a prompt") for s in arms]
        columns.append(("mean tokens", rows, pool.mean_length))
    if near := picks.nearness:
        rows = _quartiles(picks, near.coverage, "from the pool's prompts to the nearest pick")
        columns.append(("distance to nearest pick", rows, None))
        rows = _quartiles(picks, near.redundancy, "from picks to the nearest other pick")
        columns.append(("distance between picks", rows, None))
    return columns


def _dot(summary: Summary, value: float | None, words: str) -> Whisker:
    assert value is not None
    return Whisker(summary.arm, value, value, value, f"{summary.arm}: {words}")


def _quartiles(picks: Picks, distances: Iterable[np.ndarray], words: str) -> list[Whisker]:
    whiskers: list[Whisker] = []
    for arm, found in zip(picks.arms, distances, strict=True):
        low, median, high = np.quantile(found, (0.25, 0.5, 0.75)).tolist()
        title = f"{arm.name}: distance {words}, median {median:.3f}, quartiles {low:.3f} and {high:.3f}"
        whiskers.append(Whisker(arm.name, median, low, high, title))
    return whiskers


def _say_summary(picks: Picks) -> str:
    pool, *arms = picks.summaries()
    text = f"The first {picks.budget:,} picks of each arm, one run each, from {picks.num_prompts:,} prompts. "
    if picks.tasks:
        text += (
            f"Effective tasks: {_extremes(arms, lambda s: s.effective_tasks, '.0f')}; pool {pool.effective_tasks:.0f}. "
        )
    if picks.lengths:
        text += (
            f"Mean tokens of a prompt: {_extremes(arms, lambda s: s.mean_length, '.1f')}; pool {pool.mean_length:.1f}. "
        )
    if near := picks.nearness:
        text += (
            f"Mean distance of the pool's prompts to the nearest pick, where 1 is that of two typical prompts: "
            f"{_extremes(arms, lambda s: s.coverage, '.3f')}. Mean distance of picks to the nearest other pick: "
            f"{_extremes(arms, lambda s: s.redundancy, '.3f')}. Distances are between features, on fixed samples of "
            f"{near.coverage.shape[1]:,} prompts and up to {max(map(len, near.redundancy)):,} picks; the figure has "
            "medians with quartiles. "
        )
    text += f"Without picks at this budget: {', '.join(picks.left_out)}." if picks.left_out else ""
    return text.strip()


def _extremes(arms: Sequence[Summary], value: Callable[[Summary], float | None], form: str) -> str:
    found = sorted((v, s.arm) for s in arms if (v := value(s)) is not None)
    (least, first), (most, last) = found[0], found[-1]
    return f"{least:{form}} ({first}) to {most:{form}} ({last})"


def draw_overlap(picks: Picks) -> Drawing | None:
    """Draw the share of prompts that two arms have in common."""
    if len(picks.arms) < 2:
        return None
    names = [arm.name for arm in picks.arms]
    share = picks.budget / picks.num_prompts
    canvas = _draw_matrix(names, picks.overlap, lambda value: f"{100 * value:.0f}")
    pairs = [(float(picks.overlap[i, j]), names[i], names[j]) for i in range(len(names)) for j in range(i)]
    most, least = max(pairs), min(pairs)
    return canvas.drawing(
        "picks-overlap",
        "Overlap of the picks, %",
        f"Prompts in both selections as a share of those in either (Jaccard). Two random selections share "
        f"{100 * share / (2 - share):.0f} %. Most alike: {most[1]} and {most[2]}, {100 * most[0]:.0f} %; "
        f"least: {least[1]} and {least[2]}, {100 * least[0]:.0f} %.",
    )


def draw_correlations(picks: Picks) -> Drawing | None:
    """Draw the correlations of scores with lengths and with each other."""
    found = picks.correlations
    if found is None:
        return None
    canvas = _draw_matrix(found.names, found.matrix, lambda value: f"{value:.2f}".replace("-", "\N{MINUS SIGN}"))
    lengths = [i for i, name in enumerate(found.names) if "length" in name]
    said = [
        f"{name} {', '.join(f'{found.matrix[i, j]:+.2f} with {found.names[j]}' for j in lengths)}"
        for i, name in enumerate(found.names)
        if i not in lengths
    ]
    return canvas.drawing(
        "picks-correlations",
        "Scores and lengths: rank correlations",
        "Spearman's correlations over the pool, of the uncertainty scores with each other and with lengths in tokens; "
        f"blue is positive, orange negative. {'; '.join(said)}".rstrip()
        + ("." if said else ""),
    )


def _draw_matrix(names: Sequence[str], matrix: np.ndarray, write: Callable[[float], str]) -> Canvas:
    """Draw a square of numbers, each shaded by its magnitude; columns are numbered as rows are."""
    from matplotlib.patches import Rectangle

    canvas = Canvas(max(row_height(names), 0.24) * len(names) + 0.4)
    axes = canvas.panels[0][0]
    size = 9 if len(names) <= 8 else 7.5
    for (row, column), number in np.ndenumerate(matrix):
        value, color = float(number), COLORS[0] if number > 0 else COLORS[1]
        corner = (column - 0.5, row - 0.5)
        ground = Rectangle(corner, 1, 1, color=color, alpha=0.6 * abs(value), linewidth=0)
        canvas.patch(axes, ground, f"{names[row]} and {names[column]}: {write(value)}")
        if len(names) <= _WRITTEN:
            axes.text(column, row, write(value), ha="center", va="center", fontsize=size, color=INK)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(len(names)), [str(i + 1) for i in range(len(names))], fontsize=size)
    axes.set_yticks(range(len(names)), [f"{wrapped(name)}  {i + 1}" for i, name in enumerate(names)])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    return canvas
