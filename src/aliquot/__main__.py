"""What can be asked of a store: `python -m aliquot report`."""

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
    report.add_argument("--store", type=Path, default=Path(os.environ.get("ALIQUOT_STORE", "outputs")))
    report.add_argument(
        "--csv", nargs="?", const="-", metavar="FILE", help="a line a run and benchmark, into FILE or printed"
    )
    arguments = parser.parse_args()
    with errors_explained():
        _report(arguments.store, arguments.csv)


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
