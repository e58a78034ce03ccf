"""Printing to standard output."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def say(text: str, out: Console | None = None) -> None:
    """Print one line for the user, on a console that `new_console` returned, or else on a new one."""
    (out or new_console()).print(text, highlight=False, markup=False)


def print_table(table: Table, out: Console | None = None) -> None:
    """Print a table."""
    (out or new_console()).print(table)


def new_console(silent: bool = False) -> Console:
    """Return a console that never breaks lines; without a terminal, tables are 110 columns wide.

    When several processes run one experiment, only the first speaks; the others are `silent`.
    """
    return Console(soft_wrap=True, quiet=silent, width=None if sys.stdout.isatty() else 110)
