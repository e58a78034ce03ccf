"""A mirror of each run in Weights & Biases.

`metrics.jsonl` beside the results is the truth. Whatever happens to the mirror (no network, no account, a full
disk), the run goes on: a failure is logged once, and tracking stops for that run. docs/dashboards.md lists the names.
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

_ADDRESS = "wandb_url.txt"  # in a run's folder, of a run that was mirrored online

#: Rows of the selection that W&B shows as a table; selected.jsonl has them all.
TABLE_ROWS = 1000
#: Bytes up to which a file that W&B refers to is read for its checksum; of larger ones the path alone identifies it.
_CHECKSUM_BYTES = 2**28


class Tracked(Protocol):
    """A run being mirrored."""

    def log(self, values: dict[str, Any]) -> None:
        """Take a line of what finetuning logs: `step`, `loss` and others."""

    def selection(self, rows: Sequence[dict[str, Any]], file: Path) -> None:
        """Take what was chosen, in the order picked, and the file that holds all of it."""

    def adapter(self, directory: Path) -> None:
        """Take the place of the finetuned adapter."""

    def results(self, summary: dict[str, Any]) -> None:
        """Take the final numbers."""

    def finish(self, failed: bool) -> None:
        """Close the run, or this process's part of it."""


class Tracker(Protocol):
    """Names where runs are mirrored."""

    @property
    def live(self) -> bool:
        """Whether another process can go on with a run, so that several may have a part in it as they work."""
        ...

    def start(self, key: str, config: dict[str, Any], directory: Path) -> Tracked:
        """Open the run of an experiment.

        Args:
            key: the experiment's id.
            config: all its settings, and `experiment` (see `aliquot.experiment.run`); of a sweep's run, `sweep` too.
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
    """Mirrors runs in Weights & Biases: online where the user is logged in, else offline.

    Args:
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        group: of runs; None groups those of a sweep by its id, others by pool and model.
        tags: added to the strategy, the budget, the pool and the model.
        stagger: jobs of a cluster wait up to so many seconds, each its own time: W&B limits how many start at once.
        artifacts: have W&B refer to the selection and the adapter where they lie in the store; no file is copied.
    """

    project: str = "aliquot"
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    stagger: float = 20.0
    artifacts: bool = True

    @property
    def live(self) -> bool:
        """Online, where W&B goes on with a run of the same id; offline every start would make another one."""
        return wandb_mode() == "online"

    def start(self, key: str, config: dict[str, Any], directory: Path) -> Tracked:
        """Open the W&B run whose id is the key, so that the same experiment continues the same run."""
        run = _Run(None, self.artifacts)
        run.attempt(lambda: run.open(self._init(key, config, directory), directory))
        return run

    def _init(self, key: str, config: dict[str, Any], directory: Path) -> Any:
        # Payloads of tables are staged in the user's home unless told otherwise.
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
            tags=[tag[:64] for tag in (*tags, *self.tags)],  # longer ones are refused
            config=config,
            dir=str(directory),
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )


class _Run:
    """A W&B run, or none: every call does nothing once tracking is off or has failed.

    What the run has already, from a process that was cut off or did a part of it, is not logged again.
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
        """Log the final numbers once, in one row: W&B draws lines over the budget from what is logged with it."""
        known = "budget" in self._has
        self.attempt(lambda: self._run and (self._run.summary.update if known else self._run.log)(summary))

    def finish(self, failed: bool) -> None:
        self.attempt(lambda: self._run and self._run.finish(exit_code=int(failed)))

    def attempt(self, action: Callable[[], object]) -> None:
        """Do it; whatever W&B raises is logged, and tracking stops, but the run goes on."""
        try:
            action()
        except Exception as error:  # a mirror must never break the thing it mirrors
            log.warning("W&B failed (%s: %s); this run goes on without it", type(error).__name__, error)
            self._run = None

    def _refer(self, kind: str, files: Sequence[Path]) -> None:
        """Log an artifact that says where files lie; the same files again are the same version."""
        if self._run and self._artifacts:
            self.attempt(lambda: self._run.log_artifact(_references(f"{kind}-{self._run.id}", kind, files)))


def describe_selection(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return numbers that tell selections apart: how long the prompts are and, of pools with tasks, how many there are.

    `selection/effective_tasks` is exp(H) of the shares of the tasks (Hill, 1973): as many tasks of equal share would be
    as diverse.
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
    for file in files:  # one by one: of a folder, wandb prints that it reads it
        artifact.add_reference(file.as_uri(), name=file.name, checksum=file.stat().st_size <= _CHECKSUM_BYTES)
    return artifact


def _drop_unfinished(directory: Path) -> None:
    """Delete what a run that was cut off left offline: it cannot go on, and all of it is logged again."""
    for folder in unsynced(directory):
        shutil.rmtree(folder)


def unsynced(directory: Path) -> list[Path]:
    """Return the W&B runs that were made offline in the directory of a run and not uploaded yet."""
    return [folder for folder in sorted(directory.glob("wandb/offline-run-*")) if not any(folder.glob("*.synced"))]


def wandb_mode() -> str:
    """Return how W&B is used: as WANDB_MODE says, else online where somebody is logged in and offline where not."""
    return os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")


def logged_in() -> bool:
    """Look where wandb looks for a key (its environment variables, then ~/.netrc), without asking anybody."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def address_of(directory: Path) -> str | None:
    """Return where W&B shows the run that has this folder; None where it was not mirrored online."""
    file = directory / _ADDRESS
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def sync(runs: Path) -> tuple[int, int]:
    """Upload the offline W&B runs below a folder that were not uploaded yet; return how many were, and how many failed.

    Raises:
        ValueError: nobody is logged in to W&B.
    """
    if not logged_in():
        raise ValueError("nobody is logged in to W&B, so nothing was uploaded; run `wandb login`, or set WANDB_API_KEY")
    waiting = [folder for run in sorted(runs.glob("*")) for folder in unsynced(run)]
    failed = 0
    for folder in waiting:
        answer = subprocess.run([sys.executable, "-m", "wandb", "sync", str(folder)], capture_output=True, text=True)
        if answer.returncode or not any(folder.glob("*.synced")):
            failed += 1
            log.warning("%s was not uploaded: %s", folder, (answer.stderr or answer.stdout).strip().rpartition("\n")[2])
    return len(waiting) - failed, failed
