"""A mirror of each run in Weights & Biases. The only home of wandb.

`metrics.jsonl` beside the results is the truth. Whatever happens to the mirror (no network, no account, a full
disk), the run goes on: a failure is logged once, and tracking stops for that run.
"""

from __future__ import annotations

import logging
import math
import netrc
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

log = logging.getLogger(__name__)


class Tracked(Protocol):
    """A run being mirrored."""

    def log(self, values: dict[str, Any]) -> None: ...
    def table(self, name: str, rows: Sequence[dict[str, Any]]) -> None: ...
    def finish(self, summary: dict[str, Any] | None) -> None: ...


class Tracker(Protocol):
    """Names where runs are mirrored."""

    def start(
        self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path, sweep: str | None = None
    ) -> Tracked: ...


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing."""

    def start(
        self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path, sweep: str | None = None
    ) -> Tracked:
        return _Run(None)


@dataclass(frozen=True)
class WandB:
    """Mirrors runs in Weights & Biases: online where the user is logged in, else offline.

    Args:
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        group: of runs; None groups those of a sweep by its id, others by pool and model.
        tags: added to the strategy, the budget, the pool and the model.
        stagger: jobs of a cluster wait up to so many seconds, each its own time: W&B limits how many start at once.
    """

    project: str = "aliquot"
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    stagger: float = 20.0

    def start(
        self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path, sweep: str | None = None
    ) -> Tracked:
        """Open the W&B run whose id is the key, so that the same experiment continues the same run."""
        run = _Run(None)
        run.attempt(lambda: run.open(self._init(key, config, tags, directory, sweep)))
        return run

    def _init(self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path, sweep: str | None) -> Any:
        # Payloads of tables are staged in the user's home unless told otherwise.
        os.environ.setdefault("WANDB_DATA_DIR", str(directory.parents[1] / "wandb"))
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        if mode == "online" and "SLURM_JOB_ID" in os.environ:
            time.sleep(self.stagger * random.Random(key).random())
        return wandb.init(
            id=key,
            resume="allow",
            project=self.project,
            entity=self.entity,
            group=self.group or sweep or f"{tags[2]}-{tags[3]}",
            job_type="experiment",
            name=f"{tags[0]}-{tags[1]}",
            tags=[tag[:64] for tag in (*tags, *self.tags)],  # longer ones are refused
            config=config,
            dir=str(directory),
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )


class _Run:
    """A W&B run, or none: every call does nothing once tracking is off or has failed."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._last_step = 0

    def open(self, run: Any) -> None:
        self._run = run
        if run.offline:
            log.info("W&B: offline; `python -m aliquot sync` uploads this run later")
        else:
            log.info("W&B: %s", run.url)
            self._last_step = run.summary.get("step") or 0

    def log(self, values: dict[str, Any]) -> None:
        """Log values; those of a training step that the run has already, from before it was cut off, are left out."""
        if values.get("step", math.inf) > self._last_step:
            self.attempt(lambda: self._run and self._run.log(values))

    def table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        self.attempt(lambda: self._run and self._run.log({name: _table(rows)}))

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Close the run with its final numbers, or as failed where there are none."""
        self.attempt(lambda: self._run and self._run.summary.update(summary or {}))
        self.attempt(lambda: self._run and self._run.finish(exit_code=0 if summary else 1))

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it; whatever W&B raises is logged, and tracking stops, but the run goes on."""
        try:
            action()
        except Exception as error:  # a mirror must never break the thing it mirrors
            log.warning("W&B failed (%s: %s); this run goes on without it", type(error).__name__, error)
            self._run = None


def _table(rows: Sequence[dict[str, Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def _logged_in() -> bool:
    """Look where wandb looks for a key (its environment variables, then ~/.netrc), without asking anybody."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def sync(runs: Path) -> tuple[int, int]:
    """Upload the offline W&B runs below a folder that were not uploaded yet; return how many were, and how many failed.

    Raises:
        ValueError: nobody is logged in to W&B.
    """
    if not _logged_in():
        raise ValueError("nobody is logged in to W&B, so nothing was uploaded; run `wandb login`, or set WANDB_API_KEY")
    waiting = [folder for folder in sorted(runs.glob("*/wandb/offline-run-*")) if not any(folder.glob("*.synced"))]
    failed = 0
    for folder in waiting:
        answer = subprocess.run([sys.executable, "-m", "wandb", "sync", str(folder)], capture_output=True, text=True)
        if answer.returncode or not any(folder.glob("*.synced")):
            failed += 1
            log.warning("%s was not uploaded: %s", folder, (answer.stderr or answer.stdout).strip().rpartition("\n")[2])
    return len(waiting) - failed, failed
