"""Near duplicates: prompts that share most of their runs of five words with an earlier one.

MinHash (Broder 1997) with banding (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, ch. 3) proposes pairs;
each is verified by the Jaccard similarity of the runs themselves, so nothing is dropped by chance. A pair may be
missed: at the threshold a pair is proposed with probability >= 0.999, and above it with a higher one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt32, UInt64

from aliquot.pools.shingles import Grams, mix, words
from aliquot.runtime.progress import Progress

_GRAM = 5
_NUM_HASHES = 128
_PROPOSED = 0.999  # of the pairs at the threshold
_PROMPTS_AT_ONCE = 2048


@dataclass(frozen=True)
class Runs:
    """The set of runs of each prompt, as numbers in ascending order; ragged, and no set is empty."""

    flat: UInt32[np.ndarray, " r"]
    starts: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]

    def of(self, row: int) -> UInt32[np.ndarray, " s"]:
        """Return the set of one prompt."""
        return self.flat[self.starts[row] : self.starts[row] + self.sizes[row]]

    def similarity(self, row: int, others: Sequence[int]) -> np.ndarray:
        """Return the Jaccard similarity of one prompt with others: size of intersection over size of union."""
        mine, sizes = self.of(row), self.sizes[others]
        theirs = np.concatenate([self.of(other) for other in others])
        places = np.minimum(np.searchsorted(mine, theirs), len(mine) - 1)
        both = np.add.reduceat(mine[places] == theirs, np.cumsum(sizes) - sizes, dtype=np.int64)
        return both / (len(mine) + sizes - both)


def near_duplicates(prompts: Sequence[str], threshold: float) -> dict[int, int]:
    """Map each row that nearly repeats an earlier one to that earlier row, which is itself kept.

    Rows are processed in order. A row is dropped if its Jaccard similarity with a kept row, over sets of runs of five
    words, is `threshold` or more. A prompt of fewer than five words has a single run: itself.
    """
    keys, runs = _read(prompts, hashes_per_band(threshold))
    buckets = _shared_only(keys)
    kept_in: dict[tuple[int, int], list[int]] = defaultdict(list)
    found: dict[int, int] = {}
    for row in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        own = [(band, bucket) for band, bucket in enumerate(buckets[row].tolist()) if bucket >= 0]
        others = sorted(set(itertools.chain.from_iterable(kept_in[bucket] for bucket in own)))
        near = np.flatnonzero(runs.similarity(row, others) >= threshold) if others else []
        if len(near):
            found[row] = others[near[0]]
            continue
        for bucket in own:
            kept_in[bucket].append(row)
    return found


def twins_of(texts: Sequence[str], pool: Sequence[str], threshold: float) -> dict[int, tuple[int, bool]]:
    """Map each text that repeats a prompt of the pool to that prompt, by their rows, and say whether it does exactly.

    Exactly is but for white space; other texts are compared as `near_twins` does.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows_of[" ".join(text.split())].append(row)
    found: dict[int, tuple[int, bool]] = {}
    for at, prompt in enumerate(pool):
        for row in rows_of.get(" ".join(prompt.split()), ()):
            found[row] = at, True
    rest = [row for row in range(len(texts)) if row not in found]
    near = near_twins([texts[row] for row in rest], pool, threshold) if rest else {}
    return found | {rest[i]: (at, False) for i, at in near.items()}


def near_twins(texts: Sequence[str], pool: Sequence[str], threshold: float) -> dict[int, int]:
    """Map each text that nearly repeats a prompt of the pool to the prompt that is most like it, by their rows.

    Alike are a text and a prompt whose Jaccard similarity, over sets of runs of five words, is `threshold` or more.
    """
    keys, runs = _read([*pool, *texts], hashes_per_band(threshold))
    buckets, first = _shared_only(keys), len(pool)
    candidates: dict[int, set[int]] = defaultdict(set)
    for band in range(buckets.shape[1]):
        ours, theirs = buckets[first:, band], buckets[:first, band]
        prompts_in: dict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero((theirs >= 0) & np.isin(theirs, ours)).tolist():
            prompts_in[int(theirs[row])].append(row)
        for text, bucket in enumerate(ours.tolist()):
            candidates[text].update(prompts_in.get(bucket, ()))
    found: dict[int, int] = {}
    for text, rows in candidates.items():
        near = sorted(rows)
        alike = runs.similarity(first + text, near) if near else np.zeros(1)
        if alike.max() >= threshold:
            found[text] = near[int(alike.argmax())]
    return found


def hashes_per_band(threshold: float) -> int:
    """Return the largest number of hashes per band: few false pairs, while true pairs are still hardly ever missed."""
    misses = ((1 - threshold**r) ** (_NUM_HASHES // r) for r in range(1, _NUM_HASHES + 1))
    return max(1, sum(1 for _ in itertools.takewhile(lambda miss: miss <= 1 - _PROPOSED, misses)))


def _read(prompts: Sequence[str], per_band: int) -> tuple[UInt64[np.ndarray, "n b"], Runs]:
    """Return one number per prompt and band (prompts that share a number are candidate pairs), and the sets."""
    grams, num_bands = Grams(_GRAM), _NUM_HASHES // per_band
    draws = np.random.default_rng(0).integers(0, 2**64, size=(2, _NUM_HASHES), dtype=np.uint64)
    factors, offsets = draws[0] | np.uint64(1), draws[1]
    keys = np.empty((len(prompts), num_bands), dtype=np.uint64)
    flat: list[UInt32[np.ndarray, " r"]] = []
    sizes = np.empty(len(prompts), dtype=np.int64)
    with Progress("near duplicates", len(prompts), "prompt") as progress:
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            block = prompts[start : start + _PROMPTS_AT_ONCE]
            here = slice(start, start + len(block))
            hashes, counts = grams([_filled(words(text) or [text]) for text in block])
            first = np.cumsum(counts) - counts
            for band in range(num_bands):
                key = np.full(len(block), band, dtype=np.uint64)
                for i in range(band * per_band, (band + 1) * per_band):
                    key = mix(key + np.minimum.reduceat(hashes * factors[i] + offsets[i], first))
                keys[here, band] = key
            distinct = _distinct(hashes.astype(np.uint32), counts)
            flat.append(distinct[0])
            sizes[here] = distinct[1]
            progress.update(len(block))
    return keys, Runs(np.concatenate(flat), np.cumsum(sizes) - sizes, sizes)


def _filled(text: list[str]) -> list[str]:
    """Pad a text of fewer than five words, so that it has one run."""
    return text + [""] * (_GRAM - len(text))


def _distinct(
    values: UInt32[np.ndarray, " g"], counts: Int64[np.ndarray, " b"]
) -> tuple[UInt32[np.ndarray, " r"], Int64[np.ndarray, " b"]]:
    """Sort the values of each text and remove repeats; return them end to end, and how many each text has."""
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((values, rows))
    values = values[order]
    new: Bool[np.ndarray, " g"] = np.ones(len(values), dtype=bool)
    new[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
    return values[new], np.bincount(rows[new], minlength=len(counts))


def _shared_only(keys: UInt64[np.ndarray, "n b"]) -> Int32[np.ndarray, "n b"]:
    """Number the keys of each band that several rows share; -1 if a row is alone with its key."""
    numbers = np.full(keys.shape, -1, dtype=np.int32)
    for band in range(keys.shape[1]):
        _, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        shared = counts[inverse] > 1
        numbers[shared, band] = inverse[shared]
    return numbers
