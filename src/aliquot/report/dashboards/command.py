"""`python -m aliquot dashboard`: create the W&B dashboards of a sweep, or say what would be created.

Their content is written to `<store>/sweeps/<id>/dashboard.json` in W&B's own format, whether they are created or not.
The links are stored there too: the same command uses them to find and update its earlier dashboards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import wandb
import wandb_workspaces.reports.v2.interface as wr
import wandb_workspaces.workspaces as ws
from omegaconf import OmegaConf

from aliquot.experiment.tracker import unsynced, wandb_mode
from aliquot.launch.sweep import Sweep, sweep_directory
from aliquot.report.analysis.compare import find
from aliquot.report.dashboards.boards import Board, WandbProject, make_board
from aliquot.report.reading import read_studies
from aliquot.runtime.terminal import say
from aliquot.store.store import Store, write_atomic

T = TypeVar("T")


def create_dashboards(root: Path, name: str, entity: str | None = None, project: str | None = None) -> None:
    """Create the dashboards of a sweep if somebody is logged in to W&B; otherwise only write their content.

    Args:
        root: the store.
        name: of the sweep, or its prefix.
        entity: W&B user or team; None uses that of the runs.
        project: W&B project; None uses that of the runs.

    Raises:
        ValueError: the sweep does not exist, none of its runs is finished, they were not mirrored, or W&B refuses.
    """
    sweep = Sweep.load(Store(root), name)
    studies = read_studies(root, [sweep.id])
    if not studies:
        raise ValueError(
            f"of the {len(sweep.runs)} runs of sweep {sweep.id} none is finished and evaluated, so there is nothing to "
            f"lay out yet; `python -m aliquot status {sweep.id}` says how it stands"
        )
    online = wandb_mode() == "online"
    if online:
        wandb.setup(wandb.Settings(silent=True))  # the links are printed here
    place = _place(root, sweep, entity, project, online)
    numbers = range(1, len(studies) + 1) if len(studies) > 1 else [None]
    boards = [make_board(sweep, s, find(s), place, number) for s, number in zip(studies, numbers, strict=True)]
    record = _Record(sweep_directory(Store(root), sweep.id) / "dashboard.json", place, boards)
    record.write()
    for board in boards:
        if online:
            _publish(board, record)
        else:
            say(f"Would create in the W&B project {place}: {board}")
    if not online:
        say(f"Nothing was created: you are not logged in to W&B, or WANDB_MODE says so. The contents: {record.path}")
    if waiting := [folder for run in sweep.runs for folder in unsynced(Store(root).run_directory(run.id))]:
        say(f"{len(waiting)} W&B runs of it were made offline and not uploaded yet: python -m aliquot sync")


def _place(root: Path, sweep: Sweep, entity: str | None, project: str | None, online: bool) -> WandbProject:
    """Return where the runs are, unless the user specifies otherwise."""
    tracker = OmegaConf.load(Store(root).run_directory(sweep.runs[0].id) / "config.yaml").tracker
    if "project" not in tracker:
        raise ValueError(
            f"the runs of sweep {sweep.id} were made with tracker=none, so W&B has nothing to draw; "
            f"`python -m aliquot report {sweep.id}` needs no W&B"
        )
    with _trouble("telling the account's default entity"):
        entity = entity or tracker.entity or (wandb.Api().default_entity if online else None)
    return WandbProject(entity or "", project or tracker.project)


class _Record:
    """dashboard.json: the content of the dashboards and, once they are created, their locations."""

    def __init__(self, path: Path, place: WandbProject, boards: Sequence[Board]) -> None:
        self.path, self.place = path, place
        self._boards = {board.report.title: board.spec() for board in boards}
        self._links: dict[str, dict[str, str]] = json.loads(path.read_text())["links"] if path.exists() else {}

    def link(self, board: Board, kind: str) -> str | None:
        """Return the location of the view or report that an earlier call made in this project."""
        link = self._links.get(board.report.title, {}).get(kind, "")
        return link if urlsplit(link).path.split("/")[1:3] == [self.place.entity, self.place.project] else None

    def created(self, board: Board, kind: str, link: str) -> None:
        """Record it immediately, and print it."""
        self._links.setdefault(board.report.title, {})[kind] = link
        self.write()
        say(f"{kind:<7}{link}")

    def write(self) -> None:
        """Write the file."""
        values = {**dataclasses.asdict(self.place), "links": self._links, "boards": self._boards}
        write_atomic(self.path, json.dumps(values, indent=2) + "\n")


def _publish(board: Board, record: _Record) -> None:
    """Create the report and the view, or update existing ones."""
    with _trouble(f"creating the report '{board.report.title}' in the W&B project {record.place}"):
        if before := _open(wr.Report.from_url, record.link(board, "report")):
            board.report.id = before.id
        board.report.save()  # first, because it creates a missing project
        record.created(board, "report", board.report.url)
    with _trouble(f"creating the view '{board.view.name}' in the W&B project {record.place}"):
        view = _open(ws.Workspace.from_url, record.link(board, "view")) or board.view
        view.sections, view.runset_settings = board.view.sections, board.view.runset_settings
        view.save()
        record.created(board, "view", view.url)


def _open(from_url: Callable[[str], T], link: str | None) -> T | None:
    """Return what a link leads to, or None if there is nothing or somebody has deleted it."""
    try:
        return from_url(link) if link else None
    except (ValueError, TypeError):  # raised by the library if W&B finds nothing
        return None


@contextlib.contextmanager
def _trouble(doing: str) -> Generator[None]:
    """Describe a failure of W&B in one line; it raises errors of many kinds."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{doing} failed ({type(error).__name__}: {reason}); what is listed above was created, the rest was not; "
            "run the same command again, or with WANDB_MODE=offline only to write the contents to a file"
        ) from error
