"""Runs of words as numbers, which near duplicates and contamination are detected with.

A word is a run of letters or digits in lower case, so punctuation and layout do not count. A run of words is hashed to
64 bits, the same on every machine. Every match of hashes is verified, either word by word or by many hashes.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt64

_WORD = re.compile(r"[^\W_]+")
_FACTOR = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_FACTOR, -1, 2**64)
_MOST_WORDS_KEPT = 2_000_000


def words(text: str) -> list[str]:
    """Return the words of a text.

    >>> words("Don't stop: 3 more_times!")
    ['don', 't', 'stop', '3', 'more', 'times']
    """
    return _WORD.findall(text.lower())


class Grams:
    """Hashes all runs of `size` words, for many texts at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._hash_of = _WordHashes()

    def __call__(self, texts: Sequence[Sequence[str]]) -> tuple[UInt64[np.ndarray, " g"], Int64[np.ndarray, " n"]]:
        """Return the hashes of the runs of all texts, end to end, and how many each text has.

        A text of fewer than `size` words has none. The hash of a run w_0 .. w_s is sum_j h(w_j) P^j modulo 2^64, mixed:
        a difference of prefix sums, so the cost does not depend on the size.
        """
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        counts = np.maximum(lengths - self.size + 1, 0)
        starts = np.cumsum(lengths) - lengths
        first = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        flat = itertools.chain.from_iterable(texts)
        hashes = np.fromiter(map(self._hash_of.__getitem__, flat), dtype=np.uint64, count=int(lengths.sum()))
        sums = np.concatenate([[np.uint64(0)], np.cumsum(hashes * _powers(_FACTOR, len(hashes)))])
        shifted = sums[first + self.size] - sums[first]
        return mix(shifted * _powers(_INVERSE, len(hashes))[first]), counts


class _WordHashes(dict[str, int]):
    """Hashes each word once."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS_KEPT:
            self.clear()
        found = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = found
        return found


def _powers(base: int, count: int) -> UInt64[np.ndarray, " n"]:
    """Return base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


def mix(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Mix 64-bit numbers so that each bit depends on all bits (the finalizer of splitmix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
