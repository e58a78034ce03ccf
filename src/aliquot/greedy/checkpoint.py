"""The state of a long ranking on disk, so that a kill loses a minute of it at most."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

_SECONDS = 30.0  # between two saves
_SHARE = 0.05  # of the time that saving may take


@dataclass(frozen=True)
class Workspace:
    """Where and on what a ranking runs. Neither changes which set function is maximised.

    Args:
        directory: where the ranking saves itself and is taken up again; None saves nothing.
        device: of torch: "cpu" or "cuda". Products of another device round differently, so near ties may fall
            the other way.
    """

    directory: Path | None = None
    device: str = "cpu"


class Checkpoint:
    """One file of arrays, replaced as a whole now and then.

    Args:
        directory: where it lives; None keeps nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "checkpoint.npz"
        self._seconds = _SECONDS
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray]:
        """Return the arrays of the last save, none where there is none."""
        if self._path is None or not self._path.exists():
            return {}
        with np.load(self._path, allow_pickle=False) as arrays:
            return dict(arrays)

    def due(self) -> bool:
        """Tell whether it is time to save again."""
        return self._path is not None and time.monotonic() - self._saved >= self._seconds

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace what is saved. A disk that is full ends no ranking: the last save stays."""
        if self._path is None:
            return
        started = time.monotonic()
        temporary = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            temporary.replace(self._path)
        except OSError as error:
            log.warning("the ranking goes on, but could not be saved: %s", error)
            temporary.unlink(missing_ok=True)
        self._saved = time.monotonic()
        self._seconds = max(_SECONDS, (self._saved - started) / _SHARE)
