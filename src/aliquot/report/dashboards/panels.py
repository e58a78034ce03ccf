"""The content of a W&B dashboard for a study: panels over the names that `aliquot.experiment.tracker` logs.

W&B draws each panel from the runs themselves, so panels are updated while a sweep runs. Its bars and lines are means
over the runs of an arm with their standard error; the intervals and tests are in the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wandb_workspaces.reports.v2.interface import (
    BarPlot,
    Config,
    Layout,
    LinePlot,
    PanelTypes,
    ScatterPlot,
    SummaryMetric,
    WeavePanelSummaryTable,
)

from aliquot.evaluation.wording import measured
from aliquot.report.figures.ablation import Ablation

#: The key in a run's config that names its arm.
ARM = "experiment.arm"
#: Maximum number of lines and bars in a panel; W&B draws the first ten by default.
SERIES = 100


@dataclass(frozen=True)
class PanelSection:
    """Panels that belong together, under a title."""

    title: str
    panels: Sequence[PanelTypes]


def accuracy(benchmarks: Sequence[str], unit: str) -> PanelSection:
    """Return accuracy against the budget: the mean of each arm with its standard error, and each run."""
    panels: list[PanelTypes] = []
    for name in benchmarks:
        score = f"finetuned/{name}"
        means = _lines(f"{name}: {measured(name)}, mean of each arm", "budget", score, log_x=True, title_x=unit)
        means.groupby, means.groupby_aggfunc, means.groupby_rangefunc = Config(ARM), "mean", "stderr"
        panels += [means, _dots(f"{name}: {measured(name)} of each run", SummaryMetric("budget"), score, log_x=True)]
    return PanelSection(f"{measured(*benchmarks).capitalize()} by budget", panels)


def at_one_budget(benchmarks: Sequence[str], budget: float, unit: str) -> PanelSection:
    """Return accuracy and gain of each arm, to be shown for the runs of this budget, which is in this unit."""
    titles = {"finetuned": measured(*benchmarks), "gain": "gain over the base model"}
    panels = [_bars(f"{name}: {titles[kind]}", f"{kind}/{name}", ARM) for name in benchmarks for kind in titles]
    return PanelSection(f"{budget:,} {unit}", panels)


def ablation(benchmarks: Sequence[str], ablation: Ablation, title: str) -> PanelSection:
    """Return accuracy against one setting, for all runs that have it."""
    path, log_x = _config_path(ablation.setting), ablation.values[0] > 0
    panels: list[PanelTypes] = []
    for name in benchmarks:
        score = f"finetuned/{name}"
        dots = _dots(f"{name}: {measured(name)} of each run, colored by budget", Config(path), score, log_x)
        dots.z = SummaryMetric("budget")
        panels += [dots, _bars(f"{name}: {measured(name)}, mean over all budgets", score, path)]
    return PanelSection(title, panels)


def losses() -> PanelSection:
    """Return the curves of finetuning, one line per run."""
    loss = _lines("loss", "finetune/step", "finetune/loss", log_y=True, title_x="optimizer steps")
    rate = _lines("learning rate", "finetune/step", "finetune/learning_rate", title_x="optimizer steps")
    return PanelSection("Losses", [loss, rate])


def cost(benchmarks: Sequence[str]) -> PanelSection:
    """Return the time of selection and finetuning, and the gain from selection."""
    seconds, title = SummaryMetric("selection_seconds"), "gain against seconds of choosing"
    choosing = _bars("seconds of choosing (scoring pass and ranking)", seconds.name, ARM)
    finetuning = _bars("seconds of finetuning", "seconds/finetune", ARM)
    return PanelSection(
        "Cost", [choosing, finetuning, *(_dots(f"{n}: {title}", seconds, f"gain/{n}") for n in benchmarks)]
    )


def selections() -> PanelSection:
    """Return the picks: two numbers by arm, and the first prompts of each run."""
    words = _bars("words of a prompt, mean", "selection/mean_words", ARM)
    tasks = _bars("effective number of tasks, of pools that name them", "selection/effective_tasks", ARM)
    return PanelSection(
        "Selections", [words, tasks, WeavePanelSummaryTable(table_name="selection", layout=Layout(w=24, h=12))]
    )


def _config_path(setting: str) -> str:
    """Return the key of an arm's setting in a run's config: scorer settings by name, others under the strategy."""
    return setting if setting.startswith("scorer.") else f"strategy.{setting}"


def _lines(title: str, x: str, y: str, title_x: str, log_x: bool = False, log_y: bool = False) -> LinePlot:
    """Draw a logged value, one line per run."""
    lines = LinePlot(title=title, x=x, y=[y], title_x=title_x, log_x=log_x, log_y=log_y, layout=_half())
    lines.max_runs_to_show = SERIES
    return lines


def _bars(title: str, metric: str, by: str) -> BarPlot:
    """Draw the mean of the runs that have the same value in their config, and its standard error."""
    bars = BarPlot(title=title, metrics=[metric], groupby=Config(by), layout=_half())
    bars.groupby_aggfunc, bars.groupby_rangefunc = "mean", "stderr"
    bars.max_bars_to_show = bars.max_runs_to_show = SERIES
    return bars


def _dots(title: str, x: Config | SummaryMetric, y: str, log_x: bool = False) -> ScatterPlot:
    """Draw one dot per run."""
    return ScatterPlot(title=title, x=x, y=SummaryMetric(y), log_x=log_x, layout=_half())


def _half() -> Layout:
    """Use half the width of a report; each panel gets its own layout, because a grid moves them."""
    return Layout(w=12, h=9)
