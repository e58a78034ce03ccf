"""The files that finished runs leave in a store, made up: what a report reads, and nothing else.

Fields and records are those of real runs; keys are hashes of the fields, as `aliquot.store.store` makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RBF = {"type": "aliquot.selection.kernels.RBF", "version": 1, "gamma": 0.25, "unit": "median", "seed": 0}
COSINE = {"type": "aliquot.selection.kernels.Cosine", "version": 1}
EXACT = {"type": "aliquot.selection.greedy.modes.Exact", "version": 1}
FACILITY_LOCATION = {
    "type": "aliquot.selection.strategies.facility_location.FacilityLocation",
    "version": 1,
    "kernel": RBF,
    "mode": EXACT,
}
SCORER = {
    "type": "aliquot.scoring.spec.Scorer",
    "version": 1,
    "max_new_tokens": 8,
    "layer": -1,
    "position": "last",
    "normalize": "raw",
    "token_features": None,
}
RECIPE = {
    "type": "aliquot.finetuning.recipe.LoRA",
    "version": 1,
    "rank": 16,
    "alpha": 32,
    "dropout": 0,
    "target_modules": "auto",
    "learning_rate": 0.002,
    "warmup": 0.03,
    "schedule": "linear",
    "epochs": 1,
    "tokens_per_batch": 1024,
    "rows_per_step": None,
}
MODEL = {
    "weights": "4a" * 32,
    "dtype": "float32",
    "attention": "sdpa",
    "quantization": None,
    "template": "{prompt}\nAnswer: {response}",
    "max_tokens": 256,
    "overlong": "cut_start",
}
SOURCE = {
    "content": "79" * 32,
    "columns": {"type": "aliquot.pools.rows.Columns", "version": 1, "prompt": "prompt", "context": None},
    "clean": {"exact": True, "near": None},
    "drawn": None,
}
#: Benchmark -> task -> questions.
TASKS = {"demo_mmlu": {"moth": 30, "crab": 12}, "demo_bbh": {"count": 20}}
#: What the stages before finetuning take.
SECONDS = {"score": 60.0, "select": 30.0, "annotate": 1.0}


def random(seed: int = 0) -> dict[str, Any]:
    """Return the canonical fields of the reference."""
    return {"type": "aliquot.selection.strategies.random.Random", "version": 1, "seed": seed}


def wrong_answers(seed: int = 0) -> dict[str, Any]:
    """Return the canonical fields of an upper reference."""
    return {"type": "WrongAnswers", "version": 1, "uses_response": True, "seed": seed}


def facility_location(**kernel: Any) -> dict[str, Any]:
    """Return the canonical fields of facility location with some fields of its kernel changed."""
    return FACILITY_LOCATION | {"kernel": RBF | kernel}


@dataclass
class SyntheticStore:
    """Writes runs; whatever several of them share is written once."""

    root: Path
    tasks: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: TASKS)
    model: Mapping[str, Any] = field(default_factory=lambda: MODEL)
    recipe: Mapping[str, Any] = field(default_factory=lambda: RECIPE)
    scorer: Mapping[str, Any] | None = field(default_factory=lambda: SCORER)
    limit: int | None = None
    num_runs: int = 0

    def add(
        self,
        choice: str,
        strategy: Mapping[str, Any],
        budget: int,
        seed: int = 0,
        accuracy: float = 0.5,
        correct: Mapping[str, Sequence[float]] | None = None,
    ) -> str:
        """Write a finished run and return its id; `correct` is task -> one value a question, drawn where left out."""
        pool = {"stage": "pool", "digest": "2d" * 32}
        scored = {"model": self.model, "pool": pool, "scorer": self.scorer}
        reads_responses = bool(strategy.get("uses_response"))
        score = None if choice == "random" or reads_responses else self._stage("score", scored)
        select = self._stage("select", {"pool": pool, "strategy": strategy, "score": score, "budget": None})
        oracle = {"type": "aliquot.annotation.annotator.Oracle", "version": 1}
        annotated = {"select": select, "annotator": oracle, "budget": budget, "source": SOURCE}
        annotate = self._stage("annotate", annotated)
        recipe = {**self.recipe, "seed": seed}
        finetune = self._stage("finetune", {"model": self.model, "annotate": annotate, "recipe": recipe})
        asked = {"tasks": list(self.tasks), "limit": self.limit, "batch_size": 64}
        before = self._stage("evaluate", {"model": self.model, "finetune": None, "benchmark": asked})
        after = self._stage("evaluate", {"model": self.model, "finetune": finetune, "benchmark": asked})
        stages = [(each["stage"], each["key"], SECONDS[each["stage"]]) for each in (score, select, annotate) if each]
        stages += [("evaluate base", before["key"], 10.0), ("finetune", finetune["key"], 100.0)]
        stages += [("evaluate finetuned", after["key"], 10.0)]
        name = f"{after['key']}-{budget}"
        self.num_runs += 1
        hours, minutes, seconds = self.num_runs // 3600, self.num_runs // 60 % 60, self.num_runs % 60
        record = {
            "id": name,
            "strategy": choice,
            "pool": "demo",
            "num_prompts": 99_000,
            "budget": budget,
            "seed": seed,
            "overrides": [f"strategy={choice}", f"budget={budget}", f"seed={seed}"],
            "base": self._answers(before["key"], 0.25, {}),
            "finetuned": self._answers(after["key"], accuracy, correct or {}),
            "stages": stages,
            "finished": f"2026-01-01T{hours:02}:{minutes:02}:{seconds:02}+0000",
            **({"uses_response": True} if reads_responses else {}),
        }
        directory = self.root / "runs" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "results.json").write_text(json.dumps(record, indent=2))
        (directory / "config.yaml").write_text("model:\n  path: pkg://aliquot.demo/model\n")
        return name

    def _stage(self, stage: str, fields: Mapping[str, Any]) -> dict[str, str]:
        """Write a stage's record unless it is there; return what stands for it downstream."""
        key = hashlib.sha256(json.dumps({"stage": stage, **fields}, sort_keys=True).encode()).hexdigest()[:16]
        file = self.root / stage / key / "stage.json"
        if not file.exists():
            file.parent.mkdir(parents=True)
            record = {"stage": stage, "key": key, "version": 1, "fields": fields, "libraries": {"torch": "2.13.0"}}
            upstream = [value for value in fields.values() if isinstance(value, dict) and "key" in value]
            record["upstream"] = [f"{value['stage']}/{value['key']}" for value in upstream]
            record |= {"depth": 45_000} if stage == "select" else {}
            file.write_text(json.dumps(record, indent=2))
        return {"stage": stage, "key": key}

    def _answers(self, key: str, accuracy: float, correct: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
        """Write correct.json unless it is there, and return the metrics."""
        file = self.root / "evaluate" / key / "correct.json"
        sizes = {task: count for tasks in self.tasks.values() for task, count in tasks.items()}
        if not file.exists():
            rng = np.random.default_rng(int(key, 16))
            drawn = {task: (rng.random(count) < accuracy).astype(float).tolist() for task, count in sizes.items()}
            file.write_text(json.dumps(drawn | dict(correct)) + "\n")
        answers = json.loads(file.read_text())
        metrics: list[dict[str, Any]] = []
        for name, tasks in self.tasks.items():
            values = np.array([value for task in tasks for value in answers[task]])
            count, mean = len(values), float(values.mean())
            stderr = float(np.sqrt(mean * (1 - mean) / (count - 1)))
            metrics.append({"name": name, "value": mean, "stderr": stderr, "num_questions": count})
        return metrics

    def plan(self, sweep: str, runs: Sequence[str]) -> None:
        """Write the plan of a sweep."""
        planned = [{"id": run, "strategy": "", "overrides": [], "stages": []} for run in runs]
        record = {"id": sweep, "command": f"python run.py -m sweep={sweep}", "folder": "/", "runs": planned}
        directory = self.root / "sweeps" / sweep
        directory.mkdir(parents=True)
        (directory / "sweep.json").write_text(json.dumps({**record, "tasks": [], "environment": {}}))
