"""One page with all results: a single HTML file that needs no network, server or JavaScript to be read.

The text and tables are made from `Findings`; the figures come drawn. Strategy names and commands are text that users
typed, so all of it is escaped. Only the page's own script may run, and nothing may be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aliquot.evaluation.wording import measured
from aliquot.report.analysis.findings import Findings
from aliquot.report.analysis.study import Study
from aliquot.report.analysis.verdict import Verdict, answers
from aliquot.report.page.cells import Table
from aliquot.report.page.rounds import round_tables
from aliquot.report.page.tables import (
    area_table,
    cost_table,
    difference_table,
    pick_table,
    result_table,
    run_table,
    saved_table,
)
from aliquot.store.store import write_atomic

if TYPE_CHECKING:
    from aliquot.report.selections.picks import Picks


class Picture(Protocol):
    """A figure in the form that the page needs."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    def svg(self, prefix: str = "") -> str: ...


@dataclass(frozen=True)
class StudyReport:
    """All content of a study.

    Args:
        study: the runs.
        findings: of the study.
        pictures: the figures; a name up to its first `-` is that of the section it belongs to.
        picks: the picks, or None if they are unknown.
    """

    study: Study
    findings: Findings
    pictures: Sequence[Picture] = ()
    picks: Picks | None = None


@dataclass(frozen=True)
class Origin:
    """The page's statement of its own origin.

    Args:
        made: when, for people.
        commands: of the sweeps, as they were typed.
        versions: library -> version.
        progress: how much of the sweeps is finished, a sentence, or "".
        runs: the store's directory of runs, relative to the page.
        urls: run -> its address in W&B, if it has one.
    """

    made: str
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    progress: str = ""
    runs: str = "../runs"
    urls: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Section:
    """A part of a study on the page; a part without content is left out.

    Args:
        name: unique in its study.
        title: its heading.
        pictures: come first.
        tables: those without rows are left out.
        text: whether the template has its own text for it.
    """

    name: str
    title: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    text: bool = False


@dataclass(frozen=True)
class _View:
    """A study in the form that the template reads."""

    report: StudyReport
    answers: Sequence[Verdict]
    measure: str
    sections: Sequence[Section]


def write_page(path: Path, reports: Sequence[StudyReport], origin: Origin) -> None:
    """Write the page; the same input gives the same bytes."""
    write_atomic(path, render(reports, origin))


def render(reports: Sequence[StudyReport], origin: Origin) -> str:
    """Return the page's HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape

    def breakable(text: str) -> Markup:
        return escape(text).replace("_", Markup("_<wbr>"))

    def svg(picture: Picture, prefix: str) -> Markup:
        return Markup(picture.svg(prefix))  # drawn by us, with the names in it escaped

    folder = resources.files("aliquot.report.page")
    style, script, template = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        studies=[_view(report, origin) for report in reports],
        num_runs=sum(len(report.study.records) for report in reports),
        origin=origin,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        breakable=breakable,
        svg=svg,
    )


def _view(report: StudyReport, origin: Origin) -> _View:
    findings = report.findings
    return _View(report, answers(findings), measured(*findings.base), _sections(report, origin))


def _sections(report: StudyReport, origin: Origin) -> list[Section]:
    """Arrange the tables and pictures of a study in reading order."""
    findings = report.findings

    def section(name: str, title: str, *tables: Table) -> Section:
        return Section(name, title, [p for p in report.pictures if p.name.split("-")[0] == name], tables)

    sections = [
        section("accuracy", f"{measured(*findings.base).capitalize()} against annotations"),
        section("results", "Results", result_table(findings)),
        section("differences", "Differences from random", difference_table(findings)),
        section("saved", "Annotations saved", saved_table(findings)),
        section("areas", "Over all budgets", area_table(findings.curves)),
        section("ablation", "One setting at a time"),
        section("rounds", "Round by round", *round_tables(report.study)),
        section("cost", "What choosing costs", cost_table(findings)),
        section("picks", "What was picked", *([pick_table(report.picks)] if report.picks else [])),
        Section("setting", "The setting", text=bool(report.study.setting)),
        Section("notes", "Notes and limits", text=bool(findings.notes)),
        section("runs", "Runs", run_table(report.study, origin.runs, origin.urls)),
    ]
    assert sum(len(s.pictures) for s in sections) == len(report.pictures), [p.name for p in report.pictures]
    filled = [replace(s, tables=[table for table in s.tables if table.rows]) for s in sections]
    return [s for s in filled if s.pictures or s.tables or s.text]
