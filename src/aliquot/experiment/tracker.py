"""A mirror of each run in Weights & Biases.

`metrics.jsonl` next to the results is authoritative. If the mirror fails (no network, no account, a full disk), the
run continues: the failure is logged once, and tracking stops for that run. docs/dashboards.md lists the names.
"""

from __future__ import annotations

import logging
import math
import netrc
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from aliquot.store.store import write_atomic

log = logging.getLogger(__name__)

_ADDRESS = "wandb_url.txt"  # in the directory of a run that was mirrored online

#: Rows of the selection that W&B shows as a table; selected.jsonl has all rows.
TABLE_ROWS = 1000
#: The largest file, in bytes, that W&B reads for a checksum; a larger one is identified by its path alone.
_CHECKSUM_BYTES = 2**28


class Tracked(Protocol):
    """A run being mirrored."""

    def log(self, values: dict[str, Any]) -> None:
        """Log a line from finetuning: `step`, `loss` and other values."""

    def selection(self, rows: Sequence[dict[str, Any]], file: Path) -> None:
        """Log the selected rows, in the order selected, and the file that holds all of them."""

    def adapter(self, directory: Path) -> None:
        """Log the directory of the finetuned adapter."""

    def results(self, summary: dict[str, Any]) -> None:
        """Log the final numbers."""

    def finish(self, failed: bool) -> None:
        """Close the run, or this process's part of it."""


class Tracker(Protocol):
    """Says where runs are mirrored."""

    @property
    def live(self) -> bool:
        """Whether another process can continue a run, so that several processes may log to it during the work."""
        ...

    def start(self, key: str, config: dict[str, Any], directory: Path) -> Tracked:
        """Open the mirrored run of an experiment.

        Args:
            key: the experiment's id.
            config: all its settings, and `experiment` (see `aliquot.experiment.run`); in a sweep, also `sweep`.
            directory: of the run, for the mirror's own files.
        """
        ...


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing."""

    @property
    def live(self) -> bool:
        return False

    def start(self, key: str, config: dict[str, Any], directory: Path) -> Tracked:
        return _Run(None)


@dataclass(frozen=True)
class WandB:
    """Mirrors runs in Weights & Biases: online if the user is logged in, else offline.

    Args:
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        group: of runs; None groups the runs of a sweep by the sweep's id, and others by pool and model.
        tags: added to the strategy, the budget, the pool and the model.
        stagger: each job of a cluster waits up to this many seconds, each a different time: W&B limits starts at once.
        artifacts: let W&B refer to the selection and the adapter in the store; no file is copied.
    """

    project: str = "aliquot"
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    stagger: float = 20.0
    artifacts: bool = True

    @property
    def live(self) -> bool:
        """Whether W&B is online. Online, W&B continues a run of the same id; offline, every start makes a new run."""
        return wandb_mode() == "online"

    def start(self, key: str, config: dict[str, Any], directory: Path) -> Tracked:
        """Open the W&B run whose id is the key, so that the same experiment continues the same run."""
        run = _Run(None, self.artifacts)
        run.attempt(lambda: run.open(self._init(key, config, directory), directory))
        return run

    def _init(self, key: str, config: dict[str, Any], directory: Path) -> Any:
        # By default, payloads of tables are staged in the user's home.
        os.environ.setdefault("WANDB_DATA_DIR", str(directory.parents[1] / "wandb"))
        import wandb

        mode = wandb_mode()
        if mode == "online" and "SLURM_JOB_ID" in os.environ:
            time.sleep(self.stagger * random.Random(key).random())
        if mode == "offline":
            _drop_unfinished(directory)
        about = config["experiment"]
        tags = (about["strategy"], str(about["budget"]), about["pool"], about["model"])
        return wandb.init(
            id=key,
            resume="allow",
            project=self.project,
            entity=self.entity,
            group=self.group or (config["sweep"]["id"] if "sweep" in config else f"{about['pool']}-{about['model']}"),
            job_type="experiment",
            name=f"{about['arm']}, {about['budget']:,}, seed {config['seed']}",
            tags=[tag[:64] for tag in (*tags, *self.tags)],  # W&B refuses longer ones
            config=config,
            dir=str(directory),
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )


class _Run:
    """A W&B run, or none: every call does nothing after tracking is off or has failed.

    Values that the run already has, from an interrupted process or one that did part of it, are not logged again.
    """

    def __init__(self, run: Any, artifacts: bool = False) -> None:
        self._run: Any = run
        self._artifacts = artifacts
        self._last_step = 0
        self._has: frozenset[str] = frozenset()

    def open(self, run: Any, directory: Path) -> None:
        self._run = run
        if run.offline:
            log.info("W&B: offline; `python -m aliquot sync` uploads this run later")
        else:
            log.info("W&B: %s", run.url)
            write_atomic(directory / _ADDRESS, f"{run.url}\n")
            self._last_step = run.summary.get("finetune/step") or 0
            self._has = frozenset(run.summary.keys())
        run.define_metric("finetune/step")
        run.define_metric("finetune/*", step_metric="finetune/step")
        for names in ("finetuned/*", "gain/*"):
            run.define_metric(names, step_metric="budget")

    def log(self, values: dict[str, Any]) -> None:
        if values["step"] > self._last_step:
            self._last_step = values["step"]
            self.attempt(lambda: self._run and self._run.log({f"finetune/{k}": v for k, v in values.items()}))

    def selection(self, rows: Sequence[dict[str, Any]], file: Path) -> None:
        if self._run and "selection" not in self._has:
            self.attempt(lambda: self._run.log({"selection": _table(rows[:TABLE_ROWS])}))
        self.attempt(lambda: self._run and self._run.summary.update(describe_selection(rows)))
        self._refer("selection", [file])

    def adapter(self, directory: Path) -> None:
        self._refer("adapter", sorted(path for path in directory.iterdir() if path.is_file()))

    def results(self, summary: dict[str, Any]) -> None:
        """Log the final numbers once, in one row: W&B plots against the budget only what is logged with it."""
        known = "budget" in self._has
        self.attempt(lambda: self._run and (self._run.summary.update if known else self._run.log)(summary))

    def finish(self, failed: bool) -> None:
        self.attempt(lambda: self._run and self._run.finish(exit_code=int(failed)))

    def attempt(self, action: Callable[[], object]) -> None:
        """Call `action`; if W&B raises, log the error and stop tracking. The run continues."""
        try:
            action()
        except Exception as error:  # a mirror must never break the thing it mirrors
            log.warning("W&B failed (%s: %s); this run continues without it", type(error).__name__, error)
            self._run = None

    def _refer(self, kind: str, files: Sequence[Path]) -> None:
        """Log an artifact that refers to files; the same files again are the same version."""
        if self._run and self._artifacts:
            self.attempt(lambda: self._run.log_artifact(_references(f"{kind}-{self._run.id}", kind, files)))


def describe_selection(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return numbers that distinguish selections: prompt lengths and, for pools with tasks, the number of tasks.

    `selection/effective_tasks` is exp(H) of the shares of the tasks (Hill, 1973): the number of equally frequent tasks
    with the same diversity.
    """
    numbers = {"selection/mean_words": sum(len(row["prompt"].split()) for row in rows) / len(rows)}
    if rows[0]["task"] is not None:
        counts = Counter(row["task"] for row in rows)
        shares = [count / len(rows) for count in counts.values()]
        numbers["selection/num_tasks"] = len(counts)
        numbers["selection/effective_tasks"] = math.exp(-sum(share * math.log(share) for share in shares))
    return numbers


def _table(rows: Sequence[dict[str, Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def _references(name: str, kind: str, files: Sequence[Path]) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for file in files:  # one by one: for a directory, wandb prints that it reads it
        artifact.add_reference(file.as_uri(), name=file.name, checksum=file.stat().st_size <= _CHECKSUM_BYTES)
    return artifact


def _drop_unfinished(directory: Path) -> None:
    """Delete the offline files of an interrupted run: W&B cannot continue it, and everything is logged again."""
    for folder in unsynced(directory):
        shutil.rmtree(folder)


def unsynced(directory: Path) -> list[Path]:
    """Return the W&B runs that were made offline in the directory of a run and are not uploaded yet."""
    return [folder for folder in sorted(directory.glob("wandb/offline-run-*")) if not any(folder.glob("*.synced"))]


def wandb_mode() -> str:
    """Return the mode of W&B: that of WANDB_MODE, else online if somebody is logged in, else offline."""
    return os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")


def logged_in() -> bool:
    """Look for a key where wandb looks (its environment variables, then ~/.netrc), without prompting the user."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def address_of(directory: Path) -> str | None:
    """Return the URL where W&B shows the run of this directory; None if the run was not mirrored online."""
    file = directory / _ADDRESS
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def sync(runs: Path) -> tuple[int, int]:
    """Upload the offline W&B runs below a directory not uploaded yet; return the numbers of uploads and failures.

    Raises:
        ValueError: nobody is logged in to W&B.
    """
    if not logged_in():
        raise ValueError("not logged in to W&B, so nothing was uploaded; run `wandb login`, or set WANDB_API_KEY")
    waiting = [folder for run in sorted(runs.glob("*")) for folder in unsynced(run)]
    failed = 0
    for folder in waiting:
        answer = subprocess.run([sys.executable, "-m", "wandb", "sync", str(folder)], capture_output=True, text=True)
        if answer.returncode or not any(folder.glob("*.synced")):
            failed += 1
            log.warning("%s was not uploaded: %s", folder, (answer.stderr or answer.stdout).strip().rpartition("\n")[2])
    return len(waiting) - failed, failed
