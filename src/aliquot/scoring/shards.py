"""Finished parts of a pass on disk, and how they are merged into arrays in pool order."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy.lib.npyio import NpzFile

from aliquot.scoring.batching import spans

log = logging.getLogger(__name__)


class Shards:
    """Finished parts of a pass on disk, one npz file each: `rows` and the signals of these rows.

    A shard is written under a temporary name and then renamed, so each is complete or absent. It is named after its
    smallest row: shards are disjoint, so restarts and parallel writers need no shared counter.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __iter__(self) -> Iterator[NpzFile]:
        """Open the shards one after the other; an array is read when it is accessed."""
        for path in sorted(self.directory.glob("*.npz")):
            with np.load(path, allow_pickle=False) as arrays:
                yield arrays

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Save one shard; `arrays` holds its `rows`, and all other arrays are in the order of `rows`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        save_arrays(self.directory / f"{arrays['rows'].min():08}.npz", arrays)

    def finished_rows(self, num_rows: int) -> Bool[np.ndarray, " n"]:
        """Return which of `num_rows` rows are in some shard."""
        done = np.zeros(num_rows, dtype=bool)
        for shard in self:
            done[shard["rows"]] = True
        return done

    def remove(self) -> None:
        """Delete all shards."""
        shutil.rmtree(self.directory, ignore_errors=True)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file under a temporary name and rename it, so that no reader ever sees half of it."""
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    temporary.replace(path)


class ShardBuffer:
    """Collects the signals of batches, and saves those of enough rows as one shard.

    Args:
        shards: where they are saved.
        size: rows of a shard; the last batch may exceed it.
    """

    def __init__(self, shards: Shards, size: int) -> None:
        self._shards, self._size = shards, size
        self._waiting: list[Mapping[str, np.ndarray]] = []

    def add(self, signals: Mapping[str, np.ndarray]) -> None:
        """Keep the signals of a batch, its `rows` among them."""
        self._waiting.append(signals)

    @property
    def full(self) -> bool:
        """Whether there are enough rows for a shard."""
        return sum(len(signals["rows"]) for signals in self._waiting) >= self._size

    def save(self) -> None:
        """Save what there is, if there is any."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._shards.write({name: np.concatenate([s[name] for s in waiting]) for name in waiting[0]})


def merge_ragged(
    shards: Shards, num_rows: int, lengths_name: str, names: Sequence[str], directory: Path
) -> list[np.memmap]:
    """Write lengths and flat arrays, each shard's flat entries in the place of their rows; return the flat arrays."""
    lengths = np.zeros(num_rows, dtype=np.int64)
    for shard in shards:
        lengths[shard["rows"]] = shard[lengths_name]
    reserve(directory / f"{lengths_name}.npy", lengths.dtype, lengths.shape)[:] = lengths
    starts, total = np.cumsum(lengths) - lengths, int(lengths.sum())
    shapes = next({name: (total, *shard[name].shape[1:]) for name in names} for shard in shards)
    arrays = {name: reserve(directory / f"{name}.npy", np.dtype(np.float32), shapes[name]) for name in names}
    for shard in shards:
        entries = spans(starts[shard["rows"]], shard[lengths_name])
        for name, values in arrays.items():
            values[entries] = shard[name]
    return list(arrays.values())


def reserve(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Map a new npy file and allocate its space at once: if the disk filled up later, SIGBUS would end the process."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            log.debug("%s: space cannot be taken in advance (%s)", path, error)  # not supported by this file system
    return array
