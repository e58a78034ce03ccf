"""A report to make pages of: a study with known accuracies, judged, with records of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthetic import make_study

from aliquot.experiment.record import RunRecord
from aliquot.report.analysis.compare import find
from aliquot.report.analysis.study import Cell, Study
from aliquot.report.page.write import Origin, StudyReport
from aliquot.types import Metric

ORIGIN = Origin(
    made="2026-11-21",
    commands=("python run.py sweeps=budgets",),
    versions={"aliquot": "0.1"},
    urls={"random-1000-0": "https://wandb.ai/somebody/aliquot/runs/random-1000-0"},
)
ACCURACY = {
    "random": (0.30, 0.40, 0.50),
    "facility_location": (0.31, 0.52, 0.65),
    "min_margin": (0.22, 0.31, 0.40),
}


@dataclass(frozen=True)
class Dot:
    """A figure of one point."""

    name: str
    title: str
    description: str

    def svg(self, prefix: str = "") -> str:
        point = f'<circle id="{prefix}{self.name}" cx="5" cy="5" r="2"><title>here: 5</title></circle>'
        return f'<svg role="img" aria-label="{self.description}" viewBox="0 0 10 10">{point}</svg>'


def make_report(accuracy: Mapping[str, Sequence[float]] = ACCURACY, **options: Any) -> StudyReport:
    """Return a report of `make_study` with those accuracies."""
    defaults = {"budgets": (1000, 3000, 10000), "num_seeds": 3, "between_seeds": 0.0}
    return report_of(make_study(accuracy, **(defaults | options)))


def report_of(study: Study) -> StudyReport:
    """Judge a study, and give every run a record."""
    study = replace(study, records=[_record(cell, seed) for cell in study.cells for seed in range(len(cell.runs))])
    return StudyReport(study, find(study), [Dot("accuracy-demo", "A point", "A point at 5")])


def _record(cell: Cell, seed: int) -> RunRecord:
    scores = [Metric(name, float(rows[seed].mean()), 0.02, rows.shape[1]) for name, rows in cell.correct.items()]
    overrides = [f"strategy={cell.arm.strategy}", f"budget={cell.budget}", f"seed={seed}"]
    identity = (cell.runs[seed], cell.arm.strategy, "demo", 99000, cell.budget, seed, overrides)
    return RunRecord(*identity, base=[], finetuned=scores, stages=[], finished="2026-11-21T19:42:23+0000")
