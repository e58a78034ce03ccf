"""Benchmark scores by lm-eval, stored question by question.

lm-eval's results, keyed `"acc,none"`, are returned as `EvalResult`.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aliquot.evaluation.benchmark import Benchmark, lm_eval_version
from aliquot.evaluation.held_out.overlap import NOT_COMPARED, Compared
from aliquot.evaluation.held_out.spec import HeldOut
from aliquot.evaluation.judge.spec import WIN_RATE, Judge, Opponent
from aliquot.evaluation.validation_loss import LIKELIHOOD, ValidationLoss, row_losses
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.store.store import write_atomic
from aliquot.types import Adapter, EvalResult, Metric

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from aliquot.evaluation.held_out.run import Measured

log = logging.getLogger(__name__)

#: Everything that a model can be scored on.
Yardstick = Benchmark | ValidationLoss | HeldOut | Judge

_METRICS = "metrics.json"
_CORRECT = "correct.json"
_TASKS = "tasks"  # directory of finished tasks while others are unfinished


def check_evaluable(model: Model, benchmark: Yardstick) -> None:
    """Raise ValueError if the benchmark, or the model for it, is unavailable, before anything expensive starts."""
    benchmark.check()
    if not isinstance(benchmark, Benchmark):
        return
    own = bool(benchmark.suites() and benchmark.folders())  # the task files can be read without the catalog
    if not own and benchmark.backend == "hf":
        return  # early, because importing transformers takes seconds
    config = model.load_config()
    if benchmark.backend == "vllm" and (model.quantization or config.is_encoder_decoder):
        kind = "in 4 bits" if model.quantization else "an encoder-decoder"
        raise ValueError(f"evaluate.backend=vllm: {model.path} is {kind}; set evaluate.backend=hf")
    context: int | None = getattr(config, "max_position_embeddings", None)
    if own and context and not config.is_encoder_decoder:
        from aliquot.evaluation.harness.tasks import check_room, longest_answer

        check_room(longest_answer(benchmark), context)


def evaluate(
    model: Model,
    adapter: Adapter | None,
    benchmark: Yardstick,
    trainer: TrainerSpec,
    directory: Path,
    compared: Compared = NOT_COMPARED,
    opponent: Opponent | None = None,
) -> EvalResult:
    """Score `model`, with `adapter` or bare, and write metrics.json and correct.json to `directory`.

    A metric is the share of right answers over all questions of its tasks, each question counted once; its standard
    error is that of a mean over questions, sqrt(p (1 - p) / (n - 1)). If interrupted and called again with the same
    arguments, it resumes after the last finished task. The metric of a `ValidationLoss` is the mean of its rows'
    values, which are in correct.json, and metrics.json holds the loss in nats per response token. A `HeldOut` has one
    metric per measure; `compared` says which of its rows the pool has, and the pool's task shares. A `Judge`
    has the share of comparisons with the `opponent` that this model wins; without one, every comparison is a tie.

    Raises:
        ValueError: a task is unknown, its data is missing, it has neither `acc` nor `exact_match`, or its answers do
            not fit into the model's context; the adapter belongs to another base model, or changes nothing.
    """
    check_evaluable(model, benchmark)
    if isinstance(benchmark, ValidationLoss):
        return _validate(model, adapter, benchmark, trainer, directory)
    if isinstance(benchmark, HeldOut):
        return _held_out(model, adapter, benchmark, trainer, directory, compared)
    if isinstance(benchmark, Judge):
        return _judge(model, adapter, benchmark, trainer, directory, compared, opponent)
    from aliquot.evaluation.harness.questions import answer_questions
    from aliquot.evaluation.harness.quiet import undisturbed

    with undisturbed():
        lm, effect = _open(model, adapter, benchmark, trainer)
    answers = answer_questions(lm, benchmark, directory / _TASKS)
    metrics = [_metric(name, [task.correct for task in tasks.values()]) for name, tasks in answers.items()]
    by_task = {name: task for tasks in answers.values() for name, task in tasks.items()}
    record = {
        "metrics": [asdict(metric) for metric in metrics],
        "adapter_effect": effect,
        "lm_eval": lm_eval_version(),
        "backend": benchmark.backend,
        "task_versions": {name: task.version for name, task in by_task.items()},
        "task_data": {name: task.data for name, task in by_task.items()},
        "num_fewshot": {name: task.num_fewshot for name, task in by_task.items()},
        "max_new_tokens": {name: task.max_new_tokens for name, task in by_task.items()},
        "num_cut": {name: task.num_cut for name, task in by_task.items()},
        "limit": benchmark.limit,
        "batch_size": benchmark.batch_size,
    }
    write_atomic(directory / _CORRECT, json.dumps({name: task.correct for name, task in by_task.items()}) + "\n")
    write_atomic(directory / _METRICS, json.dumps(record, indent=2) + "\n")
    shutil.rmtree(directory / _TASKS)
    return load_result(directory)


def _validate(
    model: Model, adapter: Adapter | None, spec: ValidationLoss, trainer: TrainerSpec, directory: Path
) -> EvalResult:
    losses, loss, num_cut = row_losses(model, adapter, spec, _device(trainer))
    values = np.exp(-losses)
    stderr = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    metric = Metric(LIKELIHOOD, float(values.mean()), stderr, len(values))
    record = {"metrics": [asdict(metric)], "loss": loss, "num_cut": num_cut, "limit": spec.limit}
    write_atomic(directory / _CORRECT, json.dumps({LIKELIHOOD: values.tolist()}) + "\n")
    write_atomic(directory / _METRICS, json.dumps(record, indent=2) + "\n")
    return load_result(directory)


def _held_out(
    model: Model, adapter: Adapter | None, spec: HeldOut, trainer: TrainerSpec, directory: Path, compared: Compared
) -> EvalResult:
    from aliquot.evaluation.held_out.run import score_held_out

    measures, more = score_held_out(model, _network(model, adapter, trainer), spec, compared, directory)
    return _save_measures(measures, more, compared, directory)


def _judge(
    model: Model,
    adapter: Adapter | None,
    spec: Judge,
    trainer: TrainerSpec,
    directory: Path,
    compared: Compared,
    opponent: Opponent | None,
) -> EvalResult:
    from aliquot.evaluation.judge.run import judge

    rows = compared.rows(spec)
    measured, counts = judge(model, lambda: _network(model, adapter, trainer), spec, rows, opponent, directory)
    return _save_measures({WIN_RATE: measured}, counts, compared, directory)


def _network(model: Model, adapter: Adapter | None, trainer: TrainerSpec) -> PreTrainedModel:
    from aliquot.finetuning.adapter import load_finetuned

    network = load_finetuned(model, adapter) if adapter else model.load()
    return network.to(_device(trainer))  # pyright: ignore[reportArgumentType]


def _save_measures(
    measures: Mapping[str, Measured], more: Mapping[str, object], compared: Compared, directory: Path
) -> EvalResult:
    from aliquot.evaluation.held_out.run import remove_shards

    tasks, shares = next(iter(measures.values())).tasks, compared.shares
    if tasks and shares and (unknown := sum(task not in shares for task in tasks)):
        log.info("%d of %d rows have tasks that the pool lacks, and do not count by its shares", unknown, len(tasks))
    record = {
        "metrics": [asdict(measured.metric(name, compared.shares)) for name, measured in measures.items()],
        **more,
        "num_in_pool": len(compared.twins),
        "shares": compared.shares,
        "tasks": {name: measured.tasks for name, measured in measures.items()},
    }
    write_atomic(directory / _CORRECT, json.dumps({name: found.values for name, found in measures.items()}) + "\n")
    write_atomic(directory / _METRICS, json.dumps(record) + "\n")
    remove_shards(directory)
    return load_result(directory)


def load_result(directory: Path) -> EvalResult:
    """Return the scores that `evaluate` left in `directory`."""
    metrics = json.loads((directory / _METRICS).read_text())["metrics"]
    return EvalResult([Metric(**metric) for metric in metrics], json.loads((directory / _CORRECT).read_text()))


def _metric(name: str, tasks: Sequence[Sequence[float]]) -> Metric:
    correct = [value for task in tasks for value in task]
    n, p = len(correct), sum(correct) / len(correct)
    return Metric(name, p, math.sqrt(p * (1 - p) / max(1, n - 1)), n)


def _open(
    model: Model, adapter: Adapter | None, benchmark: Benchmark, trainer: TrainerSpec
) -> tuple[Any, float | None]:
    """Load the model for lm-eval; return it, and the adapter's change to the log-likelihood of a probe, in nats."""
    from aliquot.evaluation.harness.model import HarnessModel, open_vllm, probe
    from aliquot.finetuning.adapter import load_finetuned

    if benchmark.backend == "vllm":
        return open_vllm(model, adapter, benchmark.batch_size)
    tokenizer, device = model.load_tokenizer(), _device(trainer)
    lm = HarnessModel(model.load().to(device), tokenizer, benchmark.batch_size)  # pyright: ignore[reportArgumentType]
    if adapter is None:
        return lm, None
    bare = probe(lm)
    del lm  # two models at once might not fit
    network = load_finetuned(model, adapter).to(device)  # pyright: ignore[reportArgumentType]
    lm = HarnessModel(network, tokenizer, benchmark.batch_size)
    return lm, probe(lm) - bare


def _device(trainer: TrainerSpec) -> str:
    """Name the one device for lm-eval, which cannot use several."""
    import torch

    if trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available()):
        return "cuda"
    return "mps" if trainer.accelerator == "mps" else "cpu"
