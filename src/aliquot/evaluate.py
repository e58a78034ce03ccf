"""Benchmark scores by lm-eval, kept question by question.

The only door to lm-eval: its results keyed `"acc,none"` come in here and leave as `EvalResult`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aliquot.model import Model
from aliquot.sources import content_hash, locate
from aliquot.store import write_atomic
from aliquot.trainer import TrainerSpec
from aliquot.types import Adapter, EvalResult, Metric

_METRICS = "metrics.json"
_CORRECT = "correct.json"
#: Names that an error message lists at most.
_NAMES_SHOWN = 30


@dataclass(frozen=True)
class Benchmark:
    """Names what the model is scored on.

    Args:
        tasks: lm-eval groups or tasks; each becomes one `Metric`.
        include: folder of task yamls (a path or `pkg://`), the only place looked in; None is lm-eval's catalogue.
        num_fewshot: worked examples before each question; None keeps each task's own number.
        limit: questions of each task, from the first on; None is all of them.
        batch_size: questions at once. Padding moves scores a little, so it is part of the result's identity.
    """

    tasks: Sequence[str]
    include: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str) or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"evaluate.tasks={self.tasks} must be a list of distinct names, such as [demo_mmlu]")
        for name, least in (("num_fewshot", 0), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"evaluate.{name}={value} is too small; give at least {least}")

    def identity(self) -> dict[str, object]:
        """Name the tasks of a folder by its content, those of the catalogue by lm-eval's version."""
        folder = self.folder()
        source = content_hash(folder) if folder else f"lm-eval {_lm_eval_version()}"
        return {**asdict(self), "tasks": list(self.tasks), "include": source}

    def folder(self) -> Path | None:
        """Return the folder of task yamls, or None for lm-eval's catalogue."""
        return None if self.include is None else locate(self.include)

    def check(self) -> None:
        """Raise ValueError where the folder or a task in it is missing; the catalogue is not looked into."""
        folder = self.folder()
        if folder is None:
            return
        if not folder.is_dir():
            raise ValueError(f"evaluate.include={self.include}: {folder} is no folder; give one with lm-eval yamls")
        texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.yaml"))
        names = {
            name for text in texts for name in re.findall(r"^(?:task|group|tag): *['\"]?([^\s'\"\[]+)", text, re.M)
        }
        check_tasks(self.tasks, sorted(names), str(self.include))


def check_tasks(asked: Sequence[str], found: Sequence[str], where: str) -> None:
    """Raise ValueError, with the names there are, where a task is not among them."""
    unknown = sorted(set(asked) - set(found))
    if unknown:
        import difflib

        near = [name for task in unknown for name in difflib.get_close_matches(task, found, cutoff=0.3)]
        names = list(dict.fromkeys([*near, *found]))
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise ValueError(f"unknown task '{unknown[0]}'; tasks in {where}: {', '.join(names[:_NAMES_SHOWN])}{more}")


def evaluate(
    model: Model, adapter: Adapter | None, benchmark: Benchmark, trainer: TrainerSpec, directory: Path
) -> EvalResult:
    """Score `model`, with `adapter` or bare, and leave metrics.json and correct.json in `directory`.

    A metric is the share of right answers over all questions of its tasks, each question counting once; its standard
    error is that of a mean over questions, sqrt(p (1 - p) / (n - 1)).

    Raises:
        ValueError: a task is unknown or has neither `acc` nor `exact_match`; the adapter is of another base model, or
            changes nothing.
    """
    benchmark.check()
    from aliquot.adapter import load_finetuned
    from aliquot.harness import answer_questions

    tokenizer = model.load_tokenizer()
    network = model.load() if adapter is None else load_finetuned(model, adapter)
    answers = answer_questions(network.to(_device(trainer)), tokenizer, benchmark)  # pyright: ignore[reportArgumentType]
    metrics = [_metric(name, [answers.correct[task] for task in tasks]) for name, tasks in answers.tasks.items()]
    record = {
        "metrics": [asdict(metric) for metric in metrics],
        "lm_eval": _lm_eval_version(),
        "task_versions": answers.versions,
        "num_fewshot": answers.num_fewshot,
        "limit": benchmark.limit,
        "batch_size": benchmark.batch_size,
    }
    write_atomic(directory / _CORRECT, json.dumps(answers.correct) + "\n")
    write_atomic(directory / _METRICS, json.dumps(record, indent=2) + "\n")
    return load_result(directory)


def load_result(directory: Path) -> EvalResult:
    """Return the scores that `evaluate` left in `directory`."""
    metrics = json.loads((directory / _METRICS).read_text())["metrics"]
    return EvalResult([Metric(**metric) for metric in metrics], json.loads((directory / _CORRECT).read_text()))


def _metric(name: str, tasks: Sequence[Sequence[float]]) -> Metric:
    correct = [value for task in tasks for value in task]
    n, p = len(correct), sum(correct) / len(correct)
    return Metric(name, p, math.sqrt(p * (1 - p) / max(1, n - 1)), n)


def _device(trainer: TrainerSpec) -> str:
    """Name the one device that lm-eval is to use; it knows no others."""
    import torch

    if trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available()):
        return "cuda"
    return "mps" if trainer.accelerator == "mps" else "cpu"


def _lm_eval_version() -> str:
    from importlib.metadata import version

    return version("lm_eval")
