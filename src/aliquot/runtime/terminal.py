"""Printing to standard output."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def say(text: str) -> None:
    """Print one line for the user."""
    new_console().print(text, highlight=False, markup=False)


def print_table(table: Table) -> None:
    """Print a table."""
    new_console().print(table)


def new_console() -> Console:
    """Return a console that never breaks lines; without a terminal, tables are 110 columns wide."""
    return Console(soft_wrap=True) if sys.stdout.isatty() else Console(soft_wrap=True, width=110)
