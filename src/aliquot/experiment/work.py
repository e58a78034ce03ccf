"""Build a stage: report that it is at work, and turn an error of a library into one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aliquot.config.help import explain, in_one_line
from aliquot.runtime.progress import watched
from aliquot.store.store import OnMetrics, Pending, Stage, Store, ignore


def do(stage: Stage[Any], store: Store, on_metrics: OnMetrics = ignore) -> None:
    """Build a stage unless it is done; `on_metrics` takes the values that it logs meanwhile.

    Raises:
        ValueError: a library or aliquot itself failed; the message has the task, the error's own message, and the path
            of the traceback.
    """
    if store.record(stage) is not None:
        return
    try:
        with watched(stage.name):
            store.ensure(stage, on_metrics)
    except Pending:
        raise
    except Exception as error:
        if explain(error) is not None or os.environ.get("ALIQUOT_DEBUG"):
            raise
        where: Path = store.directory(stage) / "error.txt"  # written by the store, unless the store is not writable
        raise ValueError(f"{stage.title()}: {in_one_line(error)}; the traceback is in {where}") from error
