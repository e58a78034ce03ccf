"""What can be asked of a store, `python -m aliquot report`; and the command line of a sweep's workers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from aliquot.cli import errors_explained


def main() -> None:
    """Parse the command line and answer."""
    parser = argparse.ArgumentParser(prog="python -m aliquot", description="Look at finished runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    report = commands.add_parser("report", help="list all finished runs as a table")
    report.add_argument(
        "--csv", nargs="?", const="-", metavar="FILE", help="a line a run and benchmark, into FILE or printed"
    )
    work = commands.add_parser("work", help="build stages of a planned sweep (started by its launcher)")
    work.add_argument("sweep", help="its id")
    work.add_argument("task", nargs="?", help="a stage and its key; without, names are read from standard input")
    status = commands.add_parser("status", help="how a sweep stands: what is done, runs, waits and failed")
    logs = commands.add_parser("logs", help="the end of the logs of a sweep: of one task, or of all that run or failed")
    cancel = commands.add_parser("cancel", help="cancel the jobs of a sweep; what they saved is kept")
    sync = commands.add_parser("sync", help="upload the W&B runs that were made offline, each once")
    for command in (status, logs, cancel):
        command.add_argument(
            "sweep", nargs="?", default="", help="its id, or the beginning of it; the only one if left out"
        )
    logs.add_argument("task", nargs="?", help="a stage, or a stage and its key")
    logs.add_argument("--lines", type=int, default=20, help="of each log (default: %(default)s)")
    for command in (report, status, logs, cancel, sync, work):
        store = Path(os.environ.get("ALIQUOT_STORE", "outputs"))
        command.add_argument("--store", type=Path, default=store, help="where results live (default: %(default)s)")
    arguments = parser.parse_args()
    with errors_explained():
        if arguments.command == "report":
            _report(arguments.store, arguments.csv)
        elif arguments.command == "sync":
            _sync(arguments.store)
        elif arguments.command == "work":
            _work(arguments.store, arguments.sweep, arguments.task)
        else:
            _ask(arguments)


def _ask(arguments: argparse.Namespace) -> None:
    """Answer status, logs or cancel."""
    from aliquot.launch.status import cancel_sweep, show_logs, show_status
    from aliquot.launch.sweep import Sweep
    from aliquot.store import Store

    store = Store(arguments.store)
    sweep = Sweep.load(store, arguments.sweep)
    if arguments.command == "status":
        show_status(store, sweep)
    elif arguments.command == "logs":
        show_logs(store, sweep, arguments.task, arguments.lines)
    else:
        cancel_sweep(store, sweep)


def _sync(root: Path) -> None:
    from aliquot.console import set_up_logging
    from aliquot.tracker import sync

    set_up_logging()
    uploaded, failed = sync(root / "runs")
    print(f"uploaded {uploaded} W&B runs; {failed} failed")
    if failed:
        sys.exit(1)


def _work(root: Path, sweep: str, task: str | None) -> None:
    from aliquot.console import set_up_logging
    from aliquot.launch.sweep import Sweep
    from aliquot.launch.worker import attempt, serve
    from aliquot.store import Store

    set_up_logging()
    store = Store(root)
    planned = Sweep.load(store, sweep)
    if task is None:
        serve(store, planned, sys.stdin)
    elif not attempt(store, planned, task):
        sys.exit(1)


def _report(root: Path, csv: str | None) -> None:
    from aliquot.console import show_runs
    from aliquot.results import read_runs, write_csv

    runs = read_runs(root)
    if not runs:
        sys.exit(f"error: no finished runs in {root}/; run one with `python run.py`, or name another with --store")
    if csv is None:
        show_runs(runs)
    elif csv == "-":
        write_csv(runs, sys.stdout)
    else:
        with open(csv, "w", encoding="utf-8", newline="") as file:
            write_csv(runs, file)
        print(f"wrote {len(runs)} runs to {csv}")


if __name__ == "__main__":
    main()
