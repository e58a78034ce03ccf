"""The commands that read a store, such as `python -m aliquot report`, and the command that a sweep's workers run."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from aliquot.config.help import errors_explained
from aliquot.evaluation.weightings import WEIGHTINGS
from aliquot.runtime.garbage import collect_rarely

_REPORT = """\
Compare finished runs with random at the same budget, on the same questions: accuracy with 95 % intervals, differences
with p-values corrected for how many there are, annotations saved at equal accuracy. Runs are compared if they differ
only in how the prompts were chosen, how many, and the seed. A running sweep is reported with the results so far.

  python -m aliquot report                    all runs of the store
  python -m aliquot report 4e2f               the runs of one sweep, named by the beginning of its id
  python -m aliquot report --to paper/gamma   write there instead of outputs/report
  python -m aliquot report --runs             list one run per line, also runs that stopped before evaluation
  python -m aliquot report --weighting tasks  of held-out rows: every task counts alike, whatever its number of rows

The folder has index.html (everything on one page, no network needed), figures/ (SVG and PNG), results and areas as CSV
and Parquet (unrounded), results.md, results.tex (booktabs, longtable), runs.csv (one line per run and benchmark).
"""


def main() -> None:
    """Parse the command line and answer."""
    parser = argparse.ArgumentParser(prog="python -m aliquot", description="Look at finished runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    report = commands.add_parser(
        "report",
        help="results of finished runs: tables, figures, one page",
        description=_REPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "sweeps", nargs="*", metavar="SWEEP", help="its id, or the beginning of it; all runs if left out"
    )
    report.add_argument("--to", type=Path, metavar="FOLDER", help="where the report goes (default: STORE/report)")
    report.add_argument("--runs", action="store_true", help="only list the finished runs; write nothing")
    report.add_argument(
        "--weighting",
        choices=WEIGHTINGS,
        default=WEIGHTINGS[0],
        help="of held-out rows (evaluate=heldout): rows alike, by the task shares of the pool, tasks alike, or by the "
        "task shares of the target (default: %(default)s)",
    )
    work = commands.add_parser("work", help="build stages of a planned sweep (started by its launcher)")
    work.add_argument("sweep", help="its id")
    work.add_argument("task", nargs="?", help="a stage and its key; without, names are read from standard input")
    status = commands.add_parser("status", help="the state of a sweep: what is done, running, waiting or failed")
    logs = commands.add_parser("logs", help="the end of the logs of a sweep: of one task, or of all that run or failed")
    cancel = commands.add_parser("cancel", help="cancel the jobs of a sweep; what they saved is kept")
    sync = commands.add_parser("sync", help="upload the W&B runs that were made offline, each once")
    dashboard = commands.add_parser("dashboard", help="create a W&B view and report of a sweep, or say what they hold")
    dashboard.add_argument("--entity", help="W&B user or team (default: that of the runs)")
    dashboard.add_argument("--project", help="W&B project (default: that of the runs)")
    for command in (status, logs, cancel, dashboard):
        command.add_argument(
            "sweep", nargs="?", default="", help="its id, or the beginning of it; the only one if left out"
        )
    logs.add_argument("task", nargs="?", help="a stage, or a stage and its key")
    logs.add_argument("--lines", type=int, default=20, help="of each log (default: %(default)s)")
    for command in (report, status, logs, cancel, sync, dashboard, work):
        store = Path(os.environ.get("ALIQUOT_STORE", "outputs"))
        command.add_argument("--store", type=Path, default=store, help="where results live (default: %(default)s)")
    arguments = parser.parse_args()
    collect_rarely()
    with errors_explained():
        if arguments.command == "report":
            _report(arguments)
        elif arguments.command == "sync":
            _sync(arguments.store)
        elif arguments.command == "dashboard":
            _dashboard(arguments)
        elif arguments.command == "work":
            _work(arguments.store, arguments.sweep, arguments.task)
        else:
            _ask(arguments)


def _ask(arguments: argparse.Namespace) -> None:
    """Answer status, logs or cancel."""
    from aliquot.launch.status import cancel_sweep, show_logs, show_status
    from aliquot.launch.sweep import Sweep
    from aliquot.store.store import Store

    store = Store(arguments.store)
    sweep = Sweep.load(store, arguments.sweep)
    if arguments.command == "status":
        show_status(store, sweep)
    elif arguments.command == "logs":
        show_logs(store, sweep, arguments.task, arguments.lines)
    else:
        cancel_sweep(store, sweep)


def _sync(root: Path) -> None:
    from aliquot.experiment.tracker import sync
    from aliquot.runtime.logs import set_up_logging
    from aliquot.store.store import Store

    set_up_logging()
    uploaded, failed = sync(Store(root).runs)
    print(f"uploaded {uploaded} W&B runs; {failed} failed")
    if failed:
        sys.exit(1)


def _dashboard(arguments: argparse.Namespace) -> None:
    if find_spec("wandb_workspaces") is None:
        raise ValueError(
            "dashboard needs the package wandb-workspaces, which is not installed; run: pip install "
            "'aliquot[dashboards]'"
        )
    from aliquot.report.dashboards.command import create_dashboards
    from aliquot.runtime.logs import set_up_logging

    set_up_logging()
    create_dashboards(arguments.store, arguments.sweep, arguments.entity, arguments.project)


def _work(root: Path, sweep: str, task: str | None) -> None:
    from aliquot.launch.worker import assigned, attempt, serve
    from aliquot.runtime.logs import set_up_logging
    from aliquot.store.store import Store

    set_up_logging()
    store = Store(root)
    planned = assigned(store, sweep)
    if task is None:
        serve(store, planned, sys.stdin)
    elif not attempt(store, planned, task):
        sys.exit(1)


def _report(arguments: argparse.Namespace) -> None:
    from aliquot.report.command import list_runs, report
    from aliquot.runtime.logs import set_up_logging

    set_up_logging()
    if arguments.runs:
        list_runs(arguments.store, arguments.sweeps)
    else:
        report(arguments.store, arguments.sweeps, arguments.to or arguments.store / "report", arguments.weighting)


if __name__ == "__main__":
    main()
