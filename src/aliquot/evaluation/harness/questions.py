"""Questions asked and judged by lm-eval, task by task, so that an interrupted evaluation can resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval import evaluator

from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.harness.quiet import undisturbed
from aliquot.evaluation.harness.tasks import (
    Tasks,
    check_examples,
    check_room,
    data_hash,
    max_new_tokens,
    measure_of,
    open_tasks,
)
from aliquot.runtime.progress import Progress
from aliquot.store.store import write_atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """The results of lm-eval on one task.

    Args:
        correct: one float per question, in the order of the task's file.
        version: of the task.
        num_fewshot: worked examples before each question.
        max_new_tokens: of each answer, or None if the model only selects among choices.
        num_cut: number of questions that lost their beginning because they exceed the model's context.
        data: hash of the task's questions and worked examples.
    """

    correct: list[float]
    version: Any
    num_fewshot: int
    max_new_tokens: int | None
    num_cut: int
    data: str


def answer_questions(lm: Any, benchmark: Benchmark, finished: Path) -> dict[str, dict[str, Answers]]:
    """Let the model answer all questions; return requested name -> task -> answers.

    Each task is written to the directory `finished` when it is done, and skipped if it is already there.
    """
    answers: dict[str, dict[str, Answers]] = {}
    with undisturbed(), torch.inference_mode(), open_tasks(benchmark) as opened:
        for name, task in opened.tasks.items():
            measure_of(name, task)
            check_examples(name, task)
            if lm.backend == "causal":
                check_room(max_new_tokens(task, lm) or 0, lm.max_length)
        for name, tasks in opened.names.items():
            answers[name] = _answer(lm, name, tasks, opened, finished)
    return answers


def _answer(lm: Any, name: str, tasks: Sequence[str], opened: Tasks, finished: Path) -> dict[str, Answers]:
    """Answer the tasks of one name, with one progress bar for all of them."""
    answers = {task: _read(finished / f"{task}.json") for task in tasks if (finished / f"{task}.json").exists()}
    done = sum(opened.limits[task] for task in answers)
    with Progress(f"evaluate {name}", sum(opened.limits[task] for task in tasks), "question", done) as progress:
        for number, task in enumerate(tasks, start=1):
            if task not in answers:
                progress.update(0, task=f"{number}/{len(tasks)}")
                with _counting(lm, progress, opened.limits[task]):
                    answers[task] = _answer_task(lm, task, opened)
                write_atomic(finished / f"{task}.json", json.dumps(asdict(answers[task])) + "\n")
    if num_cut := sum(found.num_cut for found in answers.values()):
        log.warning(
            "%s: %d of %d questions are longer than the model's context and lost their beginning",
            *(name, num_cut, sum(len(found.correct) for found in answers.values())),
        )
    return {task: answers[task] for task in tasks}


def _answer_task(lm: Any, name: str, opened: Tasks) -> Answers:
    task, limit, cut = opened.tasks[name], opened.limits[name], getattr(lm, "num_cut", 0)
    alone: Any = {"tasks": {name: task}, "groups": {}, "group_map": {}}
    results: Any = evaluator.evaluate(lm, alone, limit=limit, bootstrap_iters=0, log_samples=True)
    return Answers(
        _correctness(measure_of(name, task), results["samples"][name]),
        results["versions"][name],
        results["n-shot"][name],
        max_new_tokens(task, lm),
        getattr(lm, "num_cut", 0) - cut,
        data_hash(task),
    )


@contextmanager
def _counting(lm: Any, progress: Progress, num_questions: int) -> Generator[None]:
    """Convert rows that went through the model to finished questions, inside the block."""
    told = 0

    def tell(rows: int, of: int) -> None:
        nonlocal told
        now = min(num_questions, num_questions * rows // of)
        progress.update(now - told)
        told = now

    lm.on_rows = tell
    try:
        yield
    finally:
        del lm.on_rows
    progress.update(num_questions - told)


def _read(path: Path) -> Answers:
    return Answers(**json.loads(path.read_text()))


def _correctness(measure: str, samples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return right or wrong for every question, in the order of the file, judged by the task's first filter."""
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return [float(sample[measure]) for sample in sorted(first, key=lambda sample: sample["doc_id"])]
