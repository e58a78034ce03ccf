"""lm-eval, made quiet: it builds the questions, asks the model and judges the answers.

What it would leave behind in the process (log levels, progress bars, random states, padding side) is put back.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import lm_eval.api.task
import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from aliquot.evaluate import Benchmark, check_tasks
from aliquot.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: What counts as right, in order of preference.
_MEASURES = ("acc", "exact_match")
#: Draws few-shot examples; lm-eval's own default.
_FEWSHOT_SEED = 1234


@dataclass(frozen=True)
class Answers:
    """What lm-eval found.

    Args:
        correct: task -> one float per question, in the order of the task's file.
        tasks: name asked for -> its tasks; a group has many.
        versions: task -> version.
        num_fewshot: task -> worked examples before each question.
    """

    correct: dict[str, list[float]]
    tasks: dict[str, list[str]]
    versions: dict[str, Any]
    num_fewshot: dict[str, int]


def answer_questions(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> Answers:
    """Let the model answer every question of the benchmark."""
    with _quiet(), _states_kept(), torch.inference_mode():
        loaded, tasks = load_tasks(benchmark)
        measures = {name: _measure(name, task) for name, task in loaded["tasks"].items()}
        lm = _ReportingLM(network, tokenizer, benchmark.batch_size)
        results = cast(
            dict[str, Any],
            evaluator.evaluate(lm, loaded, limit=benchmark.limit, bootstrap_iters=0, log_samples=True),
        )
    samples = cast(dict[str, list[dict[str, Any]]], results["samples"])
    correct = {task: _correctness(measures[task], samples[task]) for names in tasks.values() for task in names}
    return Answers(
        correct,
        tasks,
        versions={task: results["versions"][task] for task in correct},
        num_fewshot={task: results["n-shot"][task] for task in correct},
    )


def load_tasks(benchmark: Benchmark) -> tuple[Any, dict[str, list[str]]]:
    """Load the tasks; return what lm-eval's `evaluate` takes, and the task names behind each name asked for."""
    folder = benchmark.folder()
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    check_tasks(benchmark.tasks, manager.all_tasks, str(benchmark.include or "lm-eval"))
    loaded = cast(Any, manager.load(list(benchmark.tasks)))
    for task in loaded["tasks"].values():
        if benchmark.num_fewshot is not None:
            task.set_config("num_fewshot", benchmark.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(_FEWSHOT_SEED)
    return loaded, {name: _task_names(name, loaded["groups"], manager) for name in benchmark.tasks}


def _task_names(name: str, groups: Mapping[str, Any], manager: TaskManager) -> list[str]:
    """Return the tasks of a group or tag, or the name itself."""
    if name in groups:
        return [task.task_name for task in groups[name].get_all_tasks()]
    return sorted(manager.task_index[name].tags) if name in manager.all_tags else [name]


def _measure(name: str, task: Any) -> str:
    """Return the measure of a task that says right or wrong."""
    found = [metric["metric"] for metric in task.config.metric_list]
    measure = next((measure for measure in _MEASURES if measure in found), None)
    if measure is None:
        raise ValueError(
            f"task '{name}' measures {', '.join(found)}; right or wrong per question needs {' or '.join(_MEASURES)}"
        )
    return measure


def _correctness(measure: str, samples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return right or wrong for every question, in the order of the file, by the task's first filter."""
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return [float(sample[measure]) for sample in sorted(first, key=lambda sample: sample["doc_id"])]


# The decorator that registers HFLM hides its class from type checkers.
_HFLM: Any = HFLM


class _ReportingLM(_HFLM):
    """lm-eval's model with our progress indication in the place of its bars."""

    def __init__(self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        super().__init__(pretrained=network, tokenizer=cast(Any, tokenizer), batch_size=batch_size)
        self._progress: Progress | None = None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        with Progress("evaluate", len(requests), "choice") as self._progress:
            return super().loglikelihood(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        with Progress("evaluate", len(requests), "answer") as self._progress:
            return super().generate_until(requests, disable_tqdm=True)

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._counted(super()._model_call(inps, *args, **kwargs))

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._counted(super()._model_generate(context, *args, **kwargs))

    def _counted(self, rows: torch.Tensor) -> torch.Tensor:
        if self._progress is not None:
            self._progress.update(len(rows))
        return rows


@contextmanager
def _quiet() -> Generator[None]:
    """Silence what lm-eval says at every run and nobody can act on; its other warnings still show."""

    def is_news(record: logging.LogRecord) -> bool:
        said = (
            "`pretrained` model kwarg",
            "Passed an already-initialized model",
            "Custom kwargs can be passed",
        )
        return not any(text in str(record.msg) for text in said)

    def without_bar(items: Iterable[Any], **_: Any) -> Iterable[Any]:
        return items

    loggers = [logging.getLogger(f"lm_eval.{name}") for name in ("api.task", "models.huggingface")]
    bar, lm_eval.api.task.tqdm = lm_eval.api.task.tqdm, without_bar  # pyright: ignore
    for logger in loggers:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar
        for logger in loggers:
            logger.removeFilter(is_news)


@contextmanager
def _states_kept() -> Generator[None]:
    """Put the random states back: tasks may draw from them, lm-eval may seed them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
