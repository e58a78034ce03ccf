"""Which questions an evaluation answered right, benchmark by benchmark."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from aliquot.evaluation.held_out.measures import weights
from aliquot.evaluation.weightings import ROWS, TARGET
from aliquot.types import Metric

_TOLERANCE = 1e-6  # between a metric and the mean over its questions

Correct = Float32[np.ndarray, " questions"]


class _Binary:
    """Reads the answers 0.0 and 1.0 to the questions of some tasks: files that differ in one digit per question."""

    def __init__(self, tasks: Sequence[tuple[str, int]]) -> None:
        wrong, right = (
            np.frombuffer(f"{json.dumps({task: [value] * count for task, count in tasks})}\n".encode(), np.uint8)
            for value in (0.0, 1.0)
        )
        self._wrong, self._digits = wrong, np.flatnonzero(wrong != right)

    def read(self, text: bytes) -> Float64[np.ndarray, " questions"] | None:
        """Return the answers, much faster than a parser; None if there is anything else in the text."""
        characters = np.frombuffer(text, np.uint8)
        if characters.size != self._wrong.size:
            return None
        answers = characters != self._wrong
        values = answers[self._digits]
        binary = values.sum() == answers.sum() and (characters[self._digits] - ord("0") == values).all()
        return values.astype(np.float64) if binary else None


class Evaluations:
    """Reads evaluations of the same questions, and refuses an evaluation of others.

    The tasks in correct.json are in the order of the benchmarks, so the benchmarks' numbers of questions determine
    which task belongs to which benchmark.
    """

    def __init__(
        self,
        evaluations: Sequence[Sequence[Metric]],
        weighting: str = ROWS,
        target: Mapping[str, float] | None = None,
    ) -> None:
        """Use the benchmarks and numbers of questions that most of the evaluations have.

        Args:
            evaluations: the metrics of each.
            weighting: of held-out rows, one of `WEIGHTINGS`.
            target: the share of each task in the target, or None if there is none, or no labels.
        """
        self._weighting, self._target = weighting, target
        self._weights: dict[str, tuple[Float64[np.ndarray, " questions"], float]] = {}  # and what they are around
        self.unweighed: set[str] = set()  #: benchmarks whose questions cannot be weighed, so that they count alike
        self._asked = Counter(_asked(metrics) for metrics in evaluations).most_common(1)[0][0]
        self._tasks: Sequence[tuple[str, int]] | None = None  # of the first evaluation that was read
        self._binary: _Binary | None = None

    @property
    def _counts(self) -> list[int]:
        return [count for _, count in self._asked]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The names of the benchmarks, in the order of the configuration."""
        return tuple(name for name, _ in self._asked)

    def read(self, directory: Path, metrics: Sequence[Metric]) -> Mapping[str, Correct]:
        """Return the correctness of every question, by benchmark.

        Raises:
            ValueError: the questions differ from those of the other evaluations, or do not reproduce the metrics.
            OSError: correct.json cannot be read.
        """
        if _asked(metrics) != self._asked:
            raise ValueError(f"it has {_counted(_asked(metrics))}, where most runs have {_counted(self._asked)}")
        text = (directory / "correct.json").read_bytes()
        values = self._binary.read(text) if self._binary else None
        if values is None:
            correct: dict[str, list[float]] = json.loads(text)
            self._check_tasks([(task, len(answers)) for task, answers in correct.items()])
            values = np.fromiter(itertools.chain.from_iterable(correct.values()), np.float64, sum(self._counts))
        parts = np.split(values, np.cumsum(self._counts)[:-1])
        for metric, part in zip(metrics, parts, strict=True):
            if abs(part.mean() - metric.value) > _TOLERANCE:
                raise ValueError(f"its {metric.name} is {metric.value:.6f}, but {part.mean():.6f} by its questions")
        if self._weighting != ROWS:
            parts = [self._weighed(name, part, directory) for name, part in zip(self.benchmarks, parts, strict=True)]
        return {name: part.astype(np.float32) for name, part in zip(self.benchmarks, parts, strict=True)}

    def _weighed(
        self, name: str, values: Float64[np.ndarray, " questions"], directory: Path
    ) -> Float64[np.ndarray, " questions"]:
        """Return values whose plain mean is the weighted mean of these.

        A value moves away from the mean of the first evaluation in proportion to its weight: what a row of large weight
        adds to the variance is its difference from others, not its weight. What has no labels stays as it is, and is
        noted in `unweighed`.
        """
        if name not in self._weights:
            record = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
            shares = self._target if self._weighting == TARGET else record.get("shares")
            weight = weights(record.get("tasks", {}).get(name), len(values), self._weighting, shares)
            if weight is None:
                self.unweighed.add(name)
                return values
            self._weights[name] = weight, float(np.mean(weight * values))
        weight, center = self._weights[name]
        return center + weight * (values - center)

    def _check_tasks(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Raise ValueError if tasks differ from those of the first evaluation, or do not add up to its benchmarks."""
        if tasks == self._tasks:
            return
        if self._tasks is not None:
            raise ValueError("its correct.json has other tasks than that of most runs")
        sizes = [size for _, size in tasks]
        ends, task_ends = {*itertools.accumulate(self._counts)}, {*itertools.accumulate(sizes)}
        if sum(sizes) != sum(self._counts) or not ends <= task_ends:
            raise ValueError(f"its tasks have {sum(sizes):,} questions, its benchmarks {_counted(self._asked)}")
        self._tasks, self._binary = tasks, _Binary(tasks)

    def unknown(self) -> Mapping[str, Correct]:
        """Return NaN for all questions."""
        return {name: np.full(count, np.nan, dtype=np.float32) for name, count in self._asked}


def _asked(metrics: Sequence[Metric]) -> tuple[tuple[str, int], ...]:
    return tuple((metric.name, metric.num_questions) for metric in metrics)


def _counted(asked: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} questions of {name}" for name, count in asked)
