"""What a model is scored on: how a config names a benchmark, and the checks before anything is spent on it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aliquot.evaluation.local_copies import SUITES, Suite, suite_of
from aliquot.models.hub import dataset_obstacle
from aliquot.store.content import content_hash, locate
from aliquot.store.store import key_fields

#: Maximum number of names listed in an error message.
_NAMES_SHOWN = 30
_BACKENDS = ("hf", "vllm")
#: Time allowed for the hub to answer that a data set exists.
_SECONDS = 5.0


@dataclass(frozen=True)
class Benchmark:
    """Names what the model is scored on.

    Args:
        tasks: lm-eval groups or tasks; each becomes one `Metric`.
        include: directory of task yamls (a path or `pkg://`), the only one searched; None means lm-eval's catalog.
        data: directory with local copies of MMLU (`mmlu/`) and BIG-Bench Hard (`bbh/`); None loads from the hub.
        num_fewshot: worked examples before each question, one number or one per name in `tasks`; None keeps each
            task's own number.
        limit: use only the first N questions of each task, one number or one per name; None uses all.
        max_new_tokens: maximum length of a generated answer; None keeps each task's own number.
        batch_size: number of simultaneous questions. Padding moves scores a little, so it is part of a result's key.
        backend: hf (transformers), or vllm, which must be installed and is faster on generated answers.
    """

    #: Whether questions are put in the model's template and cut to its `max_tokens`. lm-eval does both in its own way.
    reads_format: ClassVar[bool] = False

    tasks: Sequence[str]
    include: str | None = None
    data: str | None = None
    num_fewshot: int | Mapping[str, int] | None = None
    limit: int | Mapping[str, int] | None = None
    max_new_tokens: int | None = None
    batch_size: int = 64
    backend: str = "hf"

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str) or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"evaluate.tasks={self.tasks} must be a list of distinct names, such as [demo_mmlu]")
        for name, least in (("num_fewshot", 0), ("limit", 1), ("max_new_tokens", 1), ("batch_size", 1)):
            self._check_numbers(name, least)
        if self.backend not in _BACKENDS:
            raise ValueError(f"evaluate.backend={self.backend} is unknown; choose {' or '.join(_BACKENDS)}")
        if self.data is not None and self.include is not None:
            raise ValueError(
                f"evaluate.data={self.data} is for lm-eval's own tasks, and evaluate.include={self.include} brings "
                "others; set one of them to null"
            )

    def _check_numbers(self, name: str, least: int) -> None:
        value: int | Mapping[str, int] | None = getattr(self, name)
        numbers = dict(value) if isinstance(value, Mapping) else {"": value}
        for task, number in numbers.items():
            asked = f"evaluate.{name}{'.' if task else ''}{task}={number}"
            if number is not None and type(number) is not int:
                raise ValueError(f"{asked} is {type(number).__name__}; it must be a whole number or null")
            if number is not None and number < least:
                raise ValueError(f"{asked} is too small; give at least {least}")

    def _check_settings(self) -> None:
        """Refuse numbers for names that are not asked, and numbers of worked examples that exceed those available."""
        for name in ("num_fewshot", "limit"):
            value: int | Mapping[str, int] | None = getattr(self, name)
            for task, number in value.items() if isinstance(value, Mapping) else ():
                if task not in self.tasks:
                    raise ValueError(
                        f"evaluate.{name}.{task}={number}: '{task}' is not in evaluate.tasks={list(self.tasks)}; "
                        f"add it there, or drop the number with '~evaluate.{name}.{task}'"
                    )
        for task in self.tasks:
            suite = None if self.include is not None else suite_of(task)
            if suite and (self.for_task(self.num_fewshot, task) or 0) > suite.num_examples:
                raise ValueError(
                    f"evaluate.num_fewshot={self.for_task(self.num_fewshot, task)} for {task}: {suite.name} has "
                    f"{suite.num_examples} worked examples; give {suite.num_examples} at most"
                )

    @staticmethod
    def for_task(value: int | Mapping[str, int] | None, task: str) -> int | None:
        """Return the number for one of the requested names."""
        return value.get(task) if isinstance(value, Mapping) else value

    def identity(self) -> dict[str, object]:
        """Identify tasks and data by content, and lm-eval, which runs them and ships its own, by its version."""
        source = f"lm-eval {lm_eval_version()}"
        if self.include is not None:
            source = f"{content_hash(locate(self.include))}, {source}"
        data = None if self.data is None else {suite.name: suite.content(locate(self.data)) for suite in self.suites()}
        return {**key_fields(self), "tasks": list(self.tasks), "include": source, "data": data}

    def suites(self) -> list[Suite]:
        """Return the suites that the tasks belong to; with `include` they belong to none."""
        found = [] if self.include is not None else [suite_of(task) for task in self.tasks]
        return [suite for suite in SUITES if suite in found]

    def folders(self) -> list[Path]:
        """Return the directories to search for tasks, or none for lm-eval's whole catalog, which takes long to read."""
        if self.include is not None:
            return [locate(self.include)]
        known = all(suite_of(task) for task in self.tasks)
        return [suite.folder() for suite in self.suites()] if known else []

    def check(self) -> None:
        """Raise ValueError if a task, its data or the backend is missing; most of the catalog is not checked."""
        if self.backend == "vllm" and importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "evaluate.backend=vllm: vllm is not installed; pip install vllm, or set evaluate.backend=hf"
            )
        if self.include is not None and not locate(self.include).is_dir():
            folder = locate(self.include)
            raise ValueError(
                f"evaluate.include={self.include}: {folder} is not a directory; give one with lm-eval yamls"
            )
        if folders := self.folders():
            check_tasks(self.tasks, sorted(set(_names(folders))), str(self.include or "lm-eval"))
        self._check_settings()
        if self.data is None:
            for suite in self.suites():
                _check_hub(suite)
            return
        foreign = [task for task in self.tasks if suite_of(task) is None]
        if foreign:
            raise ValueError(
                f"evaluate.data={self.data} holds {' and '.join(suite.name for suite in SUITES)}, and evaluate.tasks "
                f"names {', '.join(foreign)}; drop it, or set evaluate.data=null"
            )
        for suite in self.suites():
            suite.rows(locate(self.data))

    def bare(self) -> Benchmark:
        """Return the benchmark without the fields that do not change its questions."""
        return Benchmark(self.tasks, self.include, self.data)


def check_tasks(asked: Sequence[str], found: Sequence[str], where: str) -> None:
    """Raise ValueError, listing the available names, if a task is not among them."""
    unknown = sorted(set(asked) - set(found))
    if unknown:
        import difflib

        near = [name for task in unknown for name in difflib.get_close_matches(task, found, cutoff=0.3)]
        names = list(dict.fromkeys([*near, *found]))
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise ValueError(f"unknown task '{unknown[0]}'; tasks in {where}: {', '.join(names[:_NAMES_SHOWN])}{more}")


def lm_eval_version() -> str:
    """Return the installed version of lm-eval."""
    from importlib.metadata import version

    return version("lm_eval")


def _names(folders: Iterable[Path]) -> Iterable[str]:
    """Yield the tasks, groups and tags that task files define, without importing lm-eval."""
    for file in (file for folder in folders for file in folder.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        yield from re.findall(r"^['\"]?(?:task|group|tag)['\"]?: *['\"]?([^\s'\"\[]+)", text, re.M)


def _check_hub(suite: Suite) -> None:
    """Raise ValueError early if the data set is neither cached nor available from the hub."""
    from datasets.config import HF_DATASETS_CACHE

    if (Path(HF_DATASETS_CACHE) / suite.hub.replace("/", "___")).is_dir():
        return
    if obstacle := dataset_obstacle(suite.hub, _SECONDS):
        raise ValueError(
            f"{suite.hub}, the data of {suite.name}, is not in the cache and the Hugging Face hub does not provide it "
            f"({obstacle}); point evaluate.data at a folder with a copy of it in {suite.name}/"
        )
