"""`python -m aliquot report`: tables on the terminal, and a directory with everything made from finished runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from aliquot.evaluation.weightings import ROWS
from aliquot.experiment import console
from aliquot.experiment.record import RunRecord
from aliquot.experiment.tracker import address_of
from aliquot.launch.sweep import Sweep
from aliquot.report.analysis.compare import find
from aliquot.report.analysis.findings import Findings
from aliquot.report.analysis.study import Study
from aliquot.report.figures.study import draw_into
from aliquot.report.page.write import Origin, StudyReport, write_page
from aliquot.report.reading import read_records, studies_of
from aliquot.report.selections.from_store import look_at_picks
from aliquot.report.tables.columns import AREAS, RESULTS, tables_of
from aliquot.report.tables.formats import Flat, latex, markdown, runs_csv, show
from aliquot.runtime import terminal
from aliquot.runtime.progress import Progress
from aliquot.store.store import Store, read_record, write_atomic

_MANY = 2000  # reading this many runs takes a second or two


def list_runs(root: Path, sweeps: Sequence[str] = ()) -> None:
    """Print the finished runs, one line each, evaluated or not."""
    console.show_runs(_finished(root, _sweeps(root, sweeps)))


def report(root: Path, sweeps: Sequence[str], folder: Path, weighting: str = ROWS) -> None:
    """Print the tables of the evaluated runs, and write all tables, figures and pages.

    Args:
        root: the store.
        sweeps: ids, or their prefixes: only the runs of these; none for all runs.
        folder: the output directory, which is created; files of an earlier report in it are replaced.
        weighting: of held-out rows: `rows` alike, by the task shares of the `pool` or the `target`, or `tasks` alike.

    Raises:
        ValueError: the directory cannot be written to; or the store has no such sweep, no finished run, or none that
            was evaluated.
    """
    _check_writable(folder)
    planned = _sweeps(root, sweeps)
    records = _finished(root, planned)
    studies = _studies(root, records, weighting)
    planned = planned or _sweeps(root, sorted(path.parent.name for path in (root / "sweeps").glob("*/sweep.json")))
    found: list[tuple[Study, Findings]] = []
    with Progress("judge", len(studies), "study") if len(records) >= _MANY else nullcontext() as bar:
        for study in studies:
            found.append((study, find(study)))
            if bar:
                bar.update()
    for study, findings in found:
        show(tables_of(study, findings))
    write_tables(found, records, folder)
    with Progress("draw", 2 * len(found), "step") as steps:
        reports = [
            _draw(root, study, findings, folder / "figures" / (str(number) if len(found) > 1 else ""), steps)
            for number, (study, findings) in enumerate(found, start=1)
        ]
    write_page(folder / "index.html", reports, _origin(root, studies, planned, folder))
    for sweep in planned:
        terminal.say(progress_of(root, sweep))
    terminal.say(f"Report        {folder / 'index.html'}")


def _check_writable(folder: Path) -> None:
    """Raise ValueError, before the report is made, if it could not be written."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"the report cannot be written to {folder}: {there} is not a directory that you may write to; set --to"
        )


def write_tables(found: Sequence[tuple[Study, Findings]], records: Sequence[RunRecord], folder: Path) -> None:
    """Write the tables of all studies in four formats, and the runs."""
    results, areas = Flat.of(RESULTS, found, lambda f: f.findings), Flat.of(AREAS, found, lambda f: f.curves)
    for name, flat in {"results": results, "areas": areas}.items():
        flat.write_csv(folder / f"{name}.csv")
        flat.write_parquet(folder / f"{name}.parquet")
    tables = [tables_of(study, findings) for study, findings in found]
    write_atomic(folder / "results.md", markdown(tables))
    write_atomic(folder / "results.tex", latex(tables))
    write_atomic(folder / "runs.csv", runs_csv(records))


def _draw(root: Path, study: Study, findings: Findings, folder: Path, steps: Progress) -> StudyReport:
    """Measure the picks of a study, and draw their figures into a directory."""
    picks = look_at_picks(root, study)
    steps.update()
    drawings = draw_into(folder, study, findings, picks)
    steps.update()
    return StudyReport(study, findings, drawings, picks)


def _origin(root: Path, studies: Sequence[Study], sweeps: Sequence[Sweep], folder: Path) -> Origin:
    """Report what the report was made from."""
    newest = max((record for study in studies for record in study.records), key=lambda record: record.finished)
    name, key, _ = newest.stages[-1]
    made_with = read_record(root / name.split()[0] / key) or {}
    addresses = {r.id: address_of(Store(root).run_directory(r.id)) for study in studies for r in study.records}
    return Origin(
        made=time.strftime("%Y-%m-%d %H:%M"),
        commands=[sweep.command for sweep in sweeps],
        versions=made_with.get("libraries", {}),
        progress=" ".join(progress_of(root, sweep) for sweep in sweeps),
        runs=Path(os.path.relpath(Store(root).runs, folder)).as_posix(),
        urls={run: url for run, url in addresses.items() if url},
    )


def progress_of(root: Path, sweep: Sweep) -> str:
    """Say how many of a sweep's runs are finished."""
    finished = sum((Store(root).run_directory(run.id) / "results.json").exists() for run in sweep.runs)
    return f"Sweep {sweep.id}: {finished:,} of {len(sweep.runs):,} runs finished."


def _sweeps(root: Path, names: Sequence[str]) -> list[Sweep]:
    return [Sweep.load(Store(root), name) for name in names]


def _finished(root: Path, sweeps: Sequence[Sweep]) -> list[RunRecord]:
    """Return the finished runs.

    Raises:
        ValueError: there are no finished runs.
    """
    records = read_records(root, sweeps)
    if not records and sweeps:
        raise ValueError(f"{' '.join(progress_of(root, sweep) for sweep in sweeps)} There is nothing to report yet")
    if not records:
        raise ValueError(f"no finished runs in {root}/; run one with `python run.py`, or name another with --store")
    return records


def _studies(root: Path, records: Sequence[RunRecord], weighting: str) -> list[Study]:
    """Return the studies of these runs.

    Raises:
        ValueError: there are no studies.
    """
    with Progress("read", len(records), "run") if len(records) >= _MANY else nullcontext() as bar:
        studies = studies_of(root, records, weighting, bar.update if bar else lambda: None)
    if not studies:
        raise ValueError(
            f"of {len(records):,} finished runs in {root}/ none was evaluated and can be read, so there is nothing to "
            "compare; `python -m aliquot report --runs` lists them"
        )
    return studies
