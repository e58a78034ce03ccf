"""The dashboards of a sweep in W&B: a view of the project's workspace and a report for each study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2.interface as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from aliquot.launch.sweep import Sweep
from aliquot.report.analysis.findings import Findings
from aliquot.report.analysis.study import Study
from aliquot.report.analysis.verdict import answers
from aliquot.report.dashboards import panels
from aliquot.report.figures.ablation import Ablation, find_ablations
from aliquot.report.tables.columns import tables_of
from aliquot.report.tables.formats import markdown

_TITLE = 128  # maximum characters that W&B accepts


@dataclass(frozen=True)
class WandbProject:
    """A location in W&B: the project of a user or team; "" is the account's default."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}" if self.entity else self.project


@dataclass(frozen=True)
class Board:
    """The view and report created for one study."""

    view: ws.Workspace
    report: wr.Report

    def __str__(self) -> str:
        num_panels = sum(len(section.panels) for section in self.view.sections)
        num_grids = sum(isinstance(block, wr.PanelGrid) for block in self.report.blocks)
        return (
            f"the view '{self.view.name}' with {num_panels} panels in {len(self.view.sections)} sections, and the "
            f"report '{self.report.title}' with the tables and {num_grids} groups of panels"
        )

    def spec(self) -> dict[str, Any]:
        """Return both in W&B's own format."""
        models = {"view": self.view._to_model(), "report": self.report._to_model()}  # pyright: ignore[reportPrivateUsage]
        return {name: model.model_dump(mode="json", by_alias=True, exclude_none=True) for name, model in models.items()}


def make_board(sweep: Sweep, study: Study, findings: Findings, place: WandbProject, number: int | None) -> Board:
    """Lay out the dashboard of a study.

    Args:
        sweep: the sweep of the study's runs.
        study: finished runs.
        findings: of the study.
        place: where it should be created.
        number: of the study, if the sweep has several; otherwise all runs of the sweep are shown, finished or not.
    """
    runs = [run.id for run in sweep.runs] if number is None else [record.id for record in study.records]
    name = f"aliquot {sweep.id}" if number is None else f"aliquot {sweep.id} ({number})"
    arms = list({cell.arm.name: cell.arm for cell in study.cells}.values())
    ablations = find_ablations(arms)
    settings = {each.setting: each for each in ablations}
    sections = [
        panels.accuracy(study.benchmarks, study.unit or "annotations"),
        *(panels.ablation(study.benchmarks, each, title=f"By {name}") for name, each in settings.items()),
        *_always(study.benchmarks),
    ]
    view = ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=name,
        sections=[ws.Section(name=s.title, panels=list(s.panels), is_open=True) for s in sections],
        settings=ws.WorkspaceSettings(max_runs=panels.SERIES),
        runset_settings=ws.RunsetSettings(filters=expr.And(_among(runs))),
    )
    report = wr.Report(
        entity=place.entity,
        project=place.project,
        title=re.sub(r"[^\w ,.()=-]+", " ", f"{name}, {study.name}")[:_TITLE],
        description=f"Made by `python -m aliquot dashboard {sweep.id}` of the runs of `{sweep.command}`.",
        blocks=_blocks(study, findings, ablations, runs),
        width="fluid",
    )
    return Board(view, report)


def _always(benchmarks: Sequence[str]) -> list[panels.PanelSection]:
    """Return the sections after those on accuracy."""
    return [panels.losses(), panels.cost(benchmarks), panels.selections()]


def _blocks(study: Study, findings: Findings, ablations: Sequence[Ablation], runs: Sequence[str]) -> list[Any]:
    """Return the report: the answer, the tables, and the panels by section, each over the runs that it is about."""
    benchmarks, everything = study.benchmarks, _among(runs)
    unit = study.unit or "annotations"
    shown = [(panels.accuracy(benchmarks, unit), [everything])]
    for budget in sorted({cell.budget for cell in study.cells}):
        shown.append((panels.at_one_budget(benchmarks, budget, unit), [everything, expr.Summary("budget") == budget]))
    for each in ablations:
        its_runs = [run for cell in study.cells if cell.arm in each.arms for run in cell.runs]
        shown.append((panels.ablation(benchmarks, each, f"{each.name}, by {each.setting}"), [_among(its_runs)]))
    shown += [(section, [everything]) for section in _always(benchmarks)]
    blocks: list[Any] = [wr.TableOfContents()]
    blocks += [wr.P(text=f"{answer.headline} {answer.detail}") for answer in answers(findings)]
    blocks.append(wr.MarkdownBlock(text=markdown([tables_of(study, findings)])))
    for section, filters in shown:
        # Without a project, the runs are those of the report's own; with one, the library would ask the server for it.
        grid = wr.PanelGrid(
            runsets=[wr.Runset(name=section.title, filters=expr.And(*filters))], panels=list(section.panels)
        )
        blocks += [wr.H2(text=section.title), grid]
    return blocks


def _among(runs: Sequence[str]) -> expr.FilterExpr:
    """Filter to these runs, by their ids: a run that two sweeps share is logged under the first one."""
    return expr.Metric("ID").isin(list(runs))
