"""The annotated prompts that a teacher is shown before a question: the nearest ones (LLMaAA, Zhang et al. 2023).

They come from earlier rounds. So the answers of one round depend neither on each other nor on their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64

from aliquot.annotation.teachers.reasoning import without_reasoning
from aliquot.store.store import write_atomic
from aliquot.types import AnnotatedSet

#: A prompt with its response.
Example = tuple[str, str]
#: Prompt -> the examples that are shown before it, the nearest last.
Shown = Mapping[str, Sequence[Example]]

_NUMBERS = 1 << 24  # similarities held in memory at once
#: Similarities this close to the k-th are computed again, in an order of additions that no other row affects.
_CLOSE = 1e-9


def examples_of(annotated: AnnotatedSet) -> dict[str, Example]:
    """Return id -> the prompt with its response, without reasoning; a response of nothing else is no example."""
    rows = zip(annotated.ids, annotated.prompts, map(without_reasoning, annotated.responses), strict=True)
    return {row_id: (prompt, response) for row_id, prompt, response in rows if response.strip()}


def choose(
    features: Float[np.ndarray, "n d"], asked: Mapping[str, int], known: Mapping[str, int], k: int
) -> dict[str, list[str]]:
    """Return, by the id of each question, the ids of its examples; `asked` and `known` say which row an id has."""
    questions, answered = (np.array(list(some.values()), dtype=np.int64) for some in (asked, known))
    id_of = {row: row_id for row_id, row in known.items()}
    found = nearest(features, questions, answered, k)
    return {row_id: [id_of[row] for row in best] for row_id, best in zip(asked, found, strict=True)}


def nearest(
    features: Float[np.ndarray, "n d"], asked: Int64[np.ndarray, " q"], known: Int64[np.ndarray, " m"], k: int
) -> list[list[int]]:
    """Find the rows that are most similar to each of the asked ones, by the cosine of their features.

    Of equally similar rows, the lower ones are taken. A row of zeros has similarity 0 to every row.

    Args:
        features: of the pool; may be memory-mapped.
        asked: the rows of the questions.
        known: the rows to choose from.
        k: how many to find, or all of `known` if it has fewer.

    Returns:
        The rows found for each question, the most similar last.

    Raises:
        ValueError: features are not finite.
    """
    known, k = np.sort(known), min(k, len(known))
    if k == 0:
        return [[] for _ in asked]
    directions = _directions(features, known)
    found: list[list[int]] = []
    size = max(1, _NUMBERS // len(known))
    for start in range(0, len(asked), size):
        block = _directions(features, asked[start : start + size])
        similar = block @ directions.T
        least = np.partition(similar, -k, axis=1)[:, -k] - _CLOSE
        for direction, row, bound in zip(block, similar, least, strict=True):
            close = np.flatnonzero(row >= bound)
            exact = (directions[close] * direction).sum(axis=1)
            best = np.argsort(-exact, kind="stable")[:k]
            found.append(known[close[best[::-1]]].tolist())
    return found


def _directions(features: Float[np.ndarray, "n d"], rows: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, "m d"]:
    """Scale rows to length 1; rows of zeros stay as they are."""
    vectors = features[rows].astype(np.float64)
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    if bad := int((~np.isfinite(lengths)).sum()):
        raise ValueError(
            f"features of {bad} of {len(rows)} prompts hold NaN or infinity, so the examples nearest to them are "
            "unknown; score again with model.dtype=float32, or set annotator.examples=0"
        )
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def save_examples(chosen: Mapping[str, Sequence[str]], path: Path) -> None:
    """Write one JSON object per line: the id of a question, and the ids of its examples."""
    lines = (json.dumps({"id": row_id, "examples": list(ids)}, ensure_ascii=False) for row_id, ids in chosen.items())
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def load_examples(path: Path) -> dict[str, list[str]]:
    """Read what `save_examples` wrote."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["id"]: row["examples"] for row in rows}
