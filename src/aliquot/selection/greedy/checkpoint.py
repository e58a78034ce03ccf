"""The state of a long ranking on disk, so that a kill loses a minute of it at most."""

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
    """Where and on what a ranking runs. Neither changes which set function is maximised.

    Args:
        directory: where the ranking saves itself and is taken up again; None saves nothing.
        device: of torch: "cpu" or "cuda". Products of another device round differently, so near ties may fall
            the other way.
    """

    directory: Path | None = None
    device: str = "cpu"


class Checkpoint:
    """One file of arrays, replaced as a whole now and then. What another task has left there is not taken up.

    A second file, a small one, outlives the ranking: what a deeper one is quicker with.

    Args:
        directory: where it lives; None keeps nothing.
        task: all that what is saved depends on, see `digest`.
    """

    def __init__(self, directory: Path | None, *task: object) -> None:
        self._path = None if directory is None else directory / "checkpoint.npz"
        self._task = 0 if directory is None else digest(*task)
        self._seconds = _SECONDS
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray]:
        """Return the arrays of the last save, else those kept; none where there are none of this task."""
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
        """Replace what is saved. A disk that is full ends no ranking: the last save stays."""
        if self._path is None:
            return
        started = time.monotonic()
        self._write(self._path, arrays)
        self._saved = time.monotonic()
        self._seconds = max(_SECONDS, (self._saved - started) / _SHARE)

    def keep(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what a deeper ranking goes on from, beyond the end of this one (see `clear`)."""
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
            log.warning("the ranking goes on, but could not be saved: %s", error)
            temporary.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Remove what a finished ranking has left in its workspace, but for what a deeper one goes on from."""
    if not (directory / _KEPT).exists():
        shutil.rmtree(directory, ignore_errors=True)
        return
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _KEPT:
            path.unlink(missing_ok=True)


def digest(*parts: object) -> int:
    """Return a number that differs where the parts do, but for one chance in 2^32.

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
