"""The state of a long ranking on disk, so that a kill loses at most a minute of it."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

log = logging.getLogger(__name__)

_SECONDS = 30.0  # between two saves
_SHARE = 0.05  # of the time that saving may take
_KEPT = "kept.npz"


@dataclass(frozen=True)
class Workspace:
    """The directory and device of a ranking. Neither changes which set function is maximized.

    Args:
        directory: where the ranking saves its state and resumes from; None saves nothing.
        device: of torch: "cpu" or "cuda". Products round differently on another device, so near ties may be resolved
            differently.
    """

    directory: Path | None = None
    device: str = "cpu"


class Checkpoint:
    """One file of arrays, replaced as a whole at intervals. State that another task has left there is ignored.

    A second, small file outlives the ranking and makes a deeper one faster.

    Args:
        directory: of the file; None keeps nothing.
        task: everything that the saved state depends on, see `digest`.
    """

    def __init__(self, directory: Path | None, *task: object) -> None:
        self._path = None if directory is None else directory / "checkpoint.npz"
        self._task = 0 if directory is None else digest(*task)
        self._seconds = _SECONDS
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray]:
        """Return the arrays of the last save, or else the kept ones; empty if neither belongs to this task."""
        if self._path is None:
            return {}
        return self._read(self._path) or self._read(self._path.with_name(_KEPT))

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as arrays:
            saved = dict(arrays)
        return saved if saved.pop("task", None) == self._task else {}

    def due(self) -> bool:
        """Tell whether it is time to save again."""
        return self._path is not None and time.monotonic() - self._saved >= self._seconds

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace the saved state. A full disk does not end a ranking: the last save stays."""
        if self._path is None:
            return
        started = time.monotonic()
        self._write(self._path, arrays)
        self._saved = time.monotonic()
        self._seconds = max(_SECONDS, (self._saved - started) / _SHARE)

    def keep(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the state from which a deeper ranking continues, beyond the end of this one (see `clear`)."""
        if self._path is not None:
            self._write(self._path.with_name(_KEPT), arrays)

    def _write(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        temporary = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, task=np.array(self._task), **arrays)  # pyright: ignore[reportArgumentType]
            temporary.replace(path)
        except OSError as error:
            log.warning("the ranking continues, but could not be saved: %s", error)
            temporary.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Remove what a finished ranking has left in its workspace, except the state from which a deeper one continues."""
    if not (directory / _KEPT).exists():
        shutil.rmtree(directory, ignore_errors=True)
        return
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _KEPT:
            path.unlink(missing_ok=True)


def digest(*parts: object) -> int:
    """Return a number that differs if the parts differ, except with a chance of one in 2^32.

    Args:
        parts: arrays, numbers, words, None, and tuples and dataclasses of these.
    """
    checksum = 0
    for part in parts:
        if isinstance(part, tuple):
            part = digest(*cast("tuple[object, ...]", part))
        if dataclasses.is_dataclass(part):
            part = digest(*(getattr(part, field.name) for field in dataclasses.fields(part)))
        if isinstance(part, np.ndarray):
            checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
            part = (part.dtype.str, part.shape)
        checksum = zlib.crc32(repr(part).encode(), checksum)
    return checksum
