"""Contamination: prompts that share a run of words with a benchmark's question.

The rule is that of GPT-3 (Brown et al. 2020, appendix C), 13 words, but without its cutoff for frequent runs: a single
shared run is enough. It cannot find a question of fewer words, or one that the prompt states in other words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from aliquot.pools.files import COMPRESSIONS, READERS, format_of, read_lines
from aliquot.pools.shingles import Grams, words
from aliquot.store.content import locate

_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class BenchmarkText:
    """A text of a benchmark, and where it is from."""

    place: str
    text: str


@dataclass(frozen=True)
class Hit:
    """What a prompt shares with a question."""

    question: BenchmarkText
    shared: str


class Benchmarks:
    """Holds the runs of words of all questions, and finds prompts that share one.

    Args:
        questions: no prompt may share a run with these texts.
        size: the words of a run.
    """

    def __init__(self, questions: Iterable[BenchmarkText], size: int) -> None:
        self._grams = Grams(size)
        self._questions = [q for q in questions if len(words(q.text)) >= size]
        hashes: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for start in range(0, len(self._questions), _TEXTS_AT_ONCE):
            block = self._questions[start : start + _TEXTS_AT_ONCE]
            found, counts = self._grams([words(q.text) for q in block])
            hashes.append(found)
            owners.append(np.repeat(np.arange(start, start + len(block)), counts))
        flat = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        self._hashes, first = np.unique(flat, return_index=True)
        self._owners = np.concatenate(owners)[first] if owners else np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._questions)

    def find(self, prompts: Sequence[str]) -> list[Hit | None]:
        """Return for each prompt the first run it shares with a question, or None."""
        split = [words(prompt) for prompt in prompts]
        hashes, counts = self._grams(split)
        positions = np.searchsorted(self._hashes, hashes)
        same = np.zeros(len(hashes), dtype=bool)
        inside = positions < len(self._hashes)
        same[inside] = self._hashes[positions[inside]] == hashes[inside]
        hits: list[Hit | None] = [None] * len(prompts)
        starts = np.cumsum(counts) - counts
        for at in np.flatnonzero(same).tolist():
            row = int(np.searchsorted(starts, at, side="right")) - 1
            if hits[row] is None:
                hits[row] = self._verified(split[row], at - int(starts[row]), int(self._owners[positions[at]]))
        return hits

    def _verified(self, prompt: list[str], start: int, owner: int) -> Hit | None:
        """Compare word by word: an equal hash alone does not prove a match."""
        shared = " ".join(prompt[start : start + self._grams.size])
        question = self._questions[owner]
        return Hit(question, shared) if f" {shared} " in f" {' '.join(words(question.text))} " else None


def read_questions(paths: Sequence[str]) -> Iterator[BenchmarkText]:
    """Yield every text in the files that the paths name: jsonl, csv, parquet, json (compressed or not) and txt.

    Raises:
        ValueError: a path names no such file.
    """
    for path in paths:
        place = locate(path)
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        files = [file for file in files if file.is_file() and _kind(file)]
        if not files:
            raise ValueError(
                f"pool.clean.decontaminate: {place} names no benchmark file; give files or folders of "
                ".jsonl, .json, .csv, .parquet or .txt"
            )
        for file in files:
            yield from _questions_in(file)


def _kind(file: Path) -> str | None:
    name = file.with_suffix("") if file.suffix in COMPRESSIONS else file
    return format_of(file) or (name.suffix if name.suffix in (".json", ".txt") else None)


def _questions_in(file: Path) -> Iterator[BenchmarkText]:
    kind = cast(str, _kind(file))
    if kind in READERS:
        for record in READERS[kind](file):
            yield from (BenchmarkText(record.place, text) for text in _texts(record.fields))
        return
    text = "".join(read_lines(file))
    if kind == ".txt":
        yield BenchmarkText(str(file), text)
        return
    try:
        yield from (BenchmarkText(str(file), found) for found in _texts(json.loads(text)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); fix it or leave it out of pool.clean.decontaminate") from error


def _texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in cast(Mapping[str, object], value).values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in cast(list[object], value):
            yield from _texts(inner)
