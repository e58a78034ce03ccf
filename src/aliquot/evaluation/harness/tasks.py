"""lm-eval's tasks: located, given their data, and set to the shots and limits of a benchmark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lm_eval.tasks import TaskManager

from aliquot.evaluation.benchmark import Benchmark, check_tasks
from aliquot.evaluation.harness.quiet import undisturbed
from aliquot.evaluation.local_copies import LOCAL, write_suites
from aliquot.models.hub import reason_of
from aliquot.store.content import locate

#: Metrics that judge an answer right or wrong, in order of preference.
_MEASURES = ("acc", "exact_match")
#: Seed for few-shot examples; lm-eval's own default.
_FEWSHOT_SEED = 1234
#: Maximum length of an answer if the task gives none; lm-eval's own default.
_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Tasks:
    """lm-eval's tasks, ready to run.

    Args:
        tasks: name -> task.
        names: requested name -> names of its tasks; a group has many.
        limits: name of the task -> number of questions, counted from the first.
    """

    tasks: dict[str, Any]
    names: dict[str, list[str]]
    limits: dict[str, int]


def read_questions(benchmark: Benchmark) -> list[str]:
    """Return the text of every question, without worked examples, regardless of `limit`."""
    with undisturbed(), open_tasks(benchmark) as opened:
        return [str(task.doc_to_text(question)) for task in opened.tasks.values() for question in task.eval_docs]


@contextmanager
def open_tasks(benchmark: Benchmark) -> Generator[Tasks]:
    """Load the tasks, with the shots, limits and data that the benchmark asks for.

    Raises:
        ValueError: a task is unknown, or its data is missing or malformed.
    """
    with TemporaryDirectory(prefix="aliquot-") as scratch:
        folders, prefix = benchmark.folders(), ""
        if benchmark.data is not None:
            prefix = LOCAL
            folders.append(write_suites(locate(benchmark.data), benchmark.tasks, Path(scratch)))
        manager = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=not folders)
        check_tasks(benchmark.tasks, manager.all_tasks, str(benchmark.include or "lm-eval"))
        loaded = _load(manager, [prefix + name for name in benchmark.tasks])
        names = {name: _task_names(prefix + name, loaded["groups"], manager) for name in benchmark.tasks}
        limits: dict[str, int] = {}
        for name, tasks in names.items():
            for task in tasks:
                num_fewshot = benchmark.for_task(benchmark.num_fewshot, name)
                _configure(loaded["tasks"][task], num_fewshot, benchmark.max_new_tokens)
                num_questions = len(loaded["tasks"][task].eval_docs)
                limits[task] = min(num_questions, benchmark.for_task(benchmark.limit, name) or num_questions)
        yield Tasks(loaded["tasks"], names, limits)


def _load(manager: TaskManager, names: list[str]) -> Any:
    from datasets.exceptions import DatasetNotFoundError

    try:
        return manager.load(names)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise ValueError(
            f"evaluate.tasks: data of {', '.join(names)} is not in the cache and the Hugging Face hub does not "
            f"provide it ({reason_of(error)}); run "
            "once with a network (HF_HUB_OFFLINE unset), or give copies with evaluate.data"
        ) from error


def longest_answer(benchmark: Benchmark) -> int:
    """Return the maximum tokens of an answer, from the task files alone; 0 if the model only selects among choices."""
    index = TaskManager(include_path=[str(f) for f in benchmark.folders()], include_defaults=False).task_index

    def longest(name: str) -> int:
        entry = index[name]
        if entry.cfg is None or isinstance(entry.cfg["task"], list):  # a tag or a group
            return max(longest(child) for child in (entry.cfg["task"] if entry.cfg else entry.tags))
        options: dict[str, Any] = entry.cfg.get("generation_kwargs") or {}
        asked = benchmark.max_new_tokens or int(options.get("max_gen_toks", _MAX_NEW_TOKENS))
        return asked if entry.cfg["output_type"] == "generate_until" else 0

    return max(longest(name) for name in benchmark.tasks)


def _configure(task: Any, num_fewshot: int | None, max_new_tokens: int | None) -> None:
    if num_fewshot is not None or task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", num_fewshot or 0)
    if max_new_tokens is not None and task.OUTPUT_TYPE == "generate_until":
        task.set_config("generation_kwargs", {"max_gen_toks": max_new_tokens}, update=True)
    task.set_fewshot_seed(_FEWSHOT_SEED)


def _task_names(name: str, groups: Mapping[str, Any], manager: TaskManager) -> list[str]:
    """Return the tasks of a group or tag, or the name itself."""
    if name in groups:
        return [task.task_name for task in groups[name].get_all_tasks()]
    return sorted(manager.task_index[name].tags) if name in manager.all_tags else [name]


def measure_of(name: str, task: Any) -> str:
    """Return the metric of a task that judges answers right or wrong."""
    found = [metric["metric"] for metric in task.config.metric_list]
    measure = next((measure for measure in _MEASURES if measure in found), None)
    if measure is None:
        raise ValueError(
            f"task '{name}' measures {', '.join(found)}; use a task that measures {' or '.join(_MEASURES)}"
        )
    return measure


def max_new_tokens(task: Any, lm: Any) -> int | None:
    """Return the maximum tokens of an answer, or None if the model only selects among choices."""
    if task.OUTPUT_TYPE != "generate_until":
        return None
    return int(task.config.generation_kwargs.get("max_gen_toks", lm.max_gen_toks))


def check_examples(name: str, task: Any) -> None:
    """Raise ValueError if more worked examples are requested than a task has apart from the question itself."""
    asked, sampler = task.get_config("num_fewshot") or 0, getattr(task, "sampler", None)
    shared = task.fewshot_cfg.split is not None and task.fewshot_cfg.split == task.config.test_split
    found = len(sampler.df or ()) - shared if sampler else 0
    if asked > found:
        raise ValueError(
            f"evaluate.num_fewshot={asked}: task '{name}' has {found} worked examples; give {found} at most"
        )


def data_hash(task: Any) -> str:
    """Return a hash of a task's questions and worked examples, as they are in its data set."""
    examples = task.sampler.df if hasattr(task, "sampler") else None
    digest = hashlib.sha256()
    for row in (*task.eval_docs, *(examples or ())):
        digest.update(f"{json.dumps(row, sort_keys=True, default=repr)}\n".encode())
    return digest.hexdigest()[:16]


def check_room(answer: int, context: int) -> None:
    """Raise ValueError if an answer would fill the model's whole context."""
    if answer >= context:
        raise ValueError(
            f"evaluate: an answer may have {answer:,} tokens, and the model's context has {context:,} for question and "
            f"answer; set evaluate.max_new_tokens={context // 4} or so, or take a model of longer context"
        )
