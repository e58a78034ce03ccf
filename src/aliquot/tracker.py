"""A mirror of each run in Weights & Biases. The only home of wandb.

`metrics.jsonl` beside the results is the truth. Whatever happens to the mirror (no network, no account, a full
disk), the run goes on: a failure is logged once, and tracking stops for that run.
"""

from __future__ import annotations

import logging
import netrc
import os
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

    def start(self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path) -> Tracked: ...


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing."""

    def start(self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path) -> Tracked:
        return _Run(None)


@dataclass(frozen=True)
class WandB:
    """Mirrors runs in Weights & Biases: online where the user is logged in, else offline.

    Args:
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        group: groups runs of one sweep; None groups by pool and model.
        tags: added to the strategy, the budget, the pool and the model.
    """

    project: str = "aliquot"
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()

    def start(self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path) -> Tracked:
        """Open the W&B run whose id is the key, so that the same experiment continues the same run."""
        run = _Run(None)
        run.attempt(lambda: run.open(self._init(key, config, tags, directory)))
        return run

    def _init(self, key: str, config: dict[str, Any], tags: Sequence[str], directory: Path) -> Any:
        # Payloads of tables are staged in the user's home unless told otherwise.
        os.environ.setdefault("WANDB_DATA_DIR", str(directory.parents[1] / "wandb"))
        import wandb

        online = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        return wandb.init(
            id=key,
            resume="allow",
            project=self.project,
            entity=self.entity,
            group=self.group or f"{tags[2]}-{tags[3]}",
            name=f"{tags[0]}-{tags[1]}",
            tags=[tag[:64] for tag in (*tags, *self.tags)],  # longer ones are refused
            config=config,
            dir=str(directory),
            mode=online,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(silent=True, console="off", init_timeout=60),
        )


class _Run:
    """A W&B run, or none: every call does nothing once tracking is off or has failed."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def open(self, run: Any) -> None:
        self._run = run
        if run.offline:
            log.info("W&B: offline; `wandb sync %s` uploads this run later", Path(run.dir).parent)
        else:
            log.info("W&B: %s", run.url)

    def log(self, values: dict[str, Any]) -> None:
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
