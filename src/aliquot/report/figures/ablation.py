"""Accuracy against one numeric setting, such as gamma, if arms of a strategy differ only in it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aliquot.evaluation.wording import measured
from aliquot.report.analysis.findings import REFERENCE, Finding, Findings
from aliquot.report.analysis.numbers import percent
from aliquot.report.analysis.study import Arm
from aliquot.report.figures.drawing import (
    COLORS,
    INK,
    MARKERS,
    NEUTRAL,
    Canvas,
    Drawing,
    apart,
    say_score,
    slug,
    thinned,
)
from aliquot.selection.kernels import is_degenerate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BUDGETS = 3  # lines in a panel
_WIDE = 20  # minimum ratio of the largest value to the smallest for a logarithmic axis


@dataclass(frozen=True)
class Ablation:
    """Arms that differ in one number.

    Args:
        name: what the names of all arms have in common.
        setting: the number's dotted name.
        values: of each arm, ascending.
        arms: in the same order.
    """

    name: str
    setting: str
    values: tuple[float, ...]
    arms: tuple[Arm, ...]


def find_ablations(arms: Sequence[Arm]) -> list[Ablation]:
    """Return every setting in which two or more arms of a strategy differ while all others are equal."""
    alike: dict[tuple[str, str, str], list[tuple[float, Arm]]] = defaultdict(list)
    for arm in arms:
        for setting, value in arm.parameters.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                others = {name: other for name, other in arm.parameters.items() if name != setting}
                alike[arm.strategy, setting, json.dumps(others, sort_keys=True)].append((value, arm))
    found: list[Ablation] = []
    for (_, setting, _), pairs in alike.items():
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: pair[0])
            words = [word for word in pairs[0][1].name.split() if not word.startswith(f"{setting}=")]
            found.append(Ablation(" ".join(words), setting, tuple(v for v, _ in pairs), tuple(a for _, a in pairs)))
    return found


def draw_ablation(ablation: Ablation, findings: Findings, similarity: Mapping[str, float]) -> Drawing | None:
    """Draw one panel per benchmark with one line per budget and 95 % intervals; degenerate kernels are crossed out.

    Args:
        ablation: the arms.
        findings: of the study.
        similarity: arm -> mean similarity of two prompts under its kernel, if that is known.
    """
    value_of = {arm.name: value for arm, value in zip(ablation.arms, ablation.values, strict=True)}
    found = [f for f in findings.findings if f.arm.name in value_of]
    budgets = [b for b in sorted({f.budget for f in found}) if len({f.arm.name for f in found if f.budget == b}) > 1]
    if not budgets:
        return None
    budgets = thinned(budgets, _BUDGETS)
    benchmarks = list(findings.base)
    canvas = Canvas(2.2 * len(benchmarks) + 0.9 + 0.2 * len(budgets), len(benchmarks), sharex=True)
    for benchmark, (axes,) in zip(benchmarks, canvas.panels, strict=True):
        for position, budget in enumerate(budgets):
            series = [f for f in found if f.benchmark == benchmark and f.budget == budget]
            series.sort(key=lambda f: value_of[f.arm.name])
            _draw_line(canvas, axes, series, value_of, position)
        _draw_random(axes, [f for f in findings.findings if f.benchmark == benchmark and f.budget == budgets[-1]])
        shown = [f for f in found if f.benchmark == benchmark and f.budget in budgets]
        _cross_out(canvas, axes, shown, value_of, similarity)
        axes.set_title(benchmark)
        axes.set_ylabel(f"{measured(benchmark)}, %")
    last = canvas.panels[-1][0]
    _mark_values(last, sorted({value_of[f.arm.name] for f in found if f.budget in budgets}))
    last.set_xlabel(ablation.setting)
    canvas.legend(last, columns=1)
    return canvas.drawing(
        f"ablation-{slug(ablation.name)}-{slug(ablation.setting)}",
        f"{ablation.name}: {ablation.setting}",
        _say(ablation, found, budgets[-1], value_of, similarity),
    )


def _mark_values(axes: Axes, values: Sequence[float]) -> None:
    logarithmic = values[0] > 0 and values[-1] >= _WIDE * values[0]
    if logarithmic:
        axes.set_xscale("log")
    shown = apart(values, 0.08, logarithmic)
    axes.set_xticks(shown, [f"{value:g}" for value in shown])
    axes.minorticks_off()


def _draw_line(canvas: Canvas, axes: Axes, series: list[Finding], value_of: Mapping[str, float], position: int) -> None:
    color, marker = COLORS[position], MARKERS[position]
    x, y = [value_of[f.arm.name] for f in series], [100 * f.score.value for f in series]
    axes.vlines(x, [100 * f.score.low for f in series], [100 * f.score.high for f in series], color=color)
    axes.plot(x, y, color=color)
    canvas.points(axes, x, y, [say_score(f) for f in series], color=color, marker=marker)
    axes.plot([], [], color=color, marker=marker, label=f"{series[0].budget:,} prompts")


def _draw_random(axes: Axes, findings: Sequence[Finding]) -> None:
    """Draw random at one budget: several lines would look alike."""
    for f in findings:
        if f.arm.strategy == REFERENCE:
            axes.axhline(100 * f.score.value, color=NEUTRAL, linestyle="--", label=f"random, {f.budget:,} prompts")
            if f.score.has_interval:
                axes.axhspan(100 * f.score.low, 100 * f.score.high, color=NEUTRAL, alpha=0.12, linewidth=0)


def _cross_out(
    canvas: Canvas,
    axes: Axes,
    findings: Sequence[Finding],
    value_of: Mapping[str, float],
    similarity: Mapping[str, float],
) -> None:
    crossed = [f for f in findings if is_degenerate(similarity.get(f.arm.name, 0.5))]
    x, y = [value_of[f.arm.name] for f in crossed], [100 * f.score.value for f in crossed]
    titles = [f"{say_score(f)}; degenerate kernel: {_say_similarity(similarity[f.arm.name])}" for f in crossed]
    look: dict[str, Any] = {"color": INK, "marker": "x", "markersize": 11, "markeredgewidth": 1.8, "zorder": 4}
    canvas.points(axes, x, y, titles, **look)
    if crossed:
        axes.plot([], [], linestyle="none", label="degenerate: it sees all prompts alike, or all unlike", **look)


def _say_similarity(mean: float) -> str:
    return f"the mean similarity of two prompts is {mean:.2g}, outside 0.001 to 0.99"


def _say(
    ablation: Ablation,
    found: Sequence[Finding],
    budget: float,
    value_of: Mapping[str, float],
    similarity: Mapping[str, float],
) -> str:
    texts: list[str] = []
    for benchmark in dict.fromkeys(f.benchmark for f in found):
        series = [f for f in found if f.benchmark == benchmark and f.budget == budget]
        series.sort(key=lambda f: value_of[f.arm.name])
        scores = ", ".join(f"{value_of[f.arm.name]:g}: {percent(f.score)} %" for f in series)
        texts.append(f"{benchmark} with {budget:,} annotations: {scores}.")
    means = {f"{value_of[arm.name]:g}": similarity.get(arm.name, 0.5) for arm in ablation.arms}
    crossed = [f"{value} ({_say_similarity(mean)})" for value, mean in means.items() if is_degenerate(mean)]
    said = f" Crossed out as degenerate: {'; '.join(crossed)}." if crossed else ""
    measure = measured(*(f.benchmark for f in found)).capitalize()
    return f"{measure} against {ablation.setting} of {ablation.name}, with 95 % intervals. {' '.join(texts)}{said}"
