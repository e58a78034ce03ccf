"""A stage at work: it says that it goes on, and what a library raises in it ends in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aliquot.config.help import explain, in_one_line
from aliquot.runtime.progress import watched
from aliquot.store.store import Pending, Stage, Store


def do(stage: Stage[Any], store: Store) -> None:
    """Build a stage unless it is done.

    Raises:
        ValueError: a library failed, or aliquot itself; says what was asked, the words of the error, and where the
            traceback is.
    """
    try:
        with watched(stage.name):
            store.ensure(stage)
    except Pending:
        raise
    except Exception as error:
        if explain(error) is not None or os.environ.get("ALIQUOT_DEBUG"):
            raise
        where: Path = store.directory(stage) / "error.txt"  # the store has written it, unless it cannot be written to
        raise ValueError(f"{stage.title()}: {in_one_line(error)}; the traceback is in {where}") from error
