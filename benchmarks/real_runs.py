"""The runs of the study on a real model, one after another, and the file that says which are done."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from aliquot.evaluation.held_out.measures import weighted_mean, weights
from aliquot.evaluation.weightings import POOL, TASKS
from aliquot.experiment.record import RunRecord
from aliquot.finetuning.recipe import RECORD
from aliquot.store.store import read_record

#: The weighting of the tasks that the pool does not have, all alike.
NEW = "new"
WEIGHTINGS = (TASKS, POOL, NEW)
MEASURES = ("likelihood",)
_SECONDS = ("score", "select", "finetune", "evaluate")
_SETTINGS = ("learning_rate", "epochs")
COLUMNS = (
    *("arm", "budget", "seed", "overrides", "run", "select", "finetune"),
    *(f"{measure}_{weighting}" for measure in MEASURES for weighting in WEIGHTINGS),
    *(f"base_{measure}_{weighting}" for measure in MEASURES for weighting in WEIGHTINGS),
    *("rows", "response_tokens", "steps", *_SETTINGS),
    *(f"seconds_{stage}" for stage in _SECONDS),
    *("finished", "commit", "versions", "likelihood_by_task"),
)


@dataclass(frozen=True)
class Job:
    """One run: the name of a file in `experiments/real`, and what the command line adds."""

    arm: str
    budget: int
    seed: int
    overrides: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What a line of the file says of a run that is done."""
        return self.arm, str(self.budget), str(self.seed), self.overrides

    def command(self) -> list[str]:
        """Return the arguments of run.py."""
        named = [f"experiments=real/{self.arm}", f"budget={self.budget}", f"seed={self.seed}"]
        return [*named, *self.overrides.split()]


def in_blocks(arms: Sequence[str], budgets: Sequence[int], seeds: Sequence[int]) -> list[Job]:
    """Return all runs: all arms of a seed and budget first, then the next seed, then the next budget."""
    return [Job(arm, budget, seed) for budget in budgets for seed in seeds for arm in arms]


def read(path: Path) -> list[dict[str, str]]:
    """Return the finished runs in a file; the last line does not count if it was cut off."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def append(path: Path, line: Mapping[str, object]) -> None:
    """Add a line in one write, after removing one that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
    whole = text.rfind(b"\n") + 1
    added = io.StringIO()
    table = csv.DictWriter(added, COLUMNS, lineterminator="\n")
    if not whole:
        table.writeheader()
    table.writerow(line)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(whole)
        file.seek(whole)
        file.write(added.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def run_all(jobs: Iterable[Job], store: Path, data: Path, out: Path, more: Sequence[str] = ()) -> list[Job]:
    """Do the runs that the file does not have, and return those that failed."""
    failed = list[Job]()
    for job in jobs:
        if job.key in {tuple(line[name] for name in ("arm", "budget", "seed", "overrides")) for line in read(out)}:
            continue
        print(f"--- {job.arm}, budget {job.budget:,}, seed {job.seed} {job.overrides}".rstrip(), flush=True)
        command = [sys.executable, "run.py", *job.command(), f"store={store}", *more]
        if subprocess.run(command, env={**os.environ, "REAL_STUDY": str(data)}, check=False).returncode:
            failed.append(job)
            continue
        append(out, line_of(job, store, data))
    return failed


def line_of(job: Job, store: Path, data: Path) -> dict[str, object]:
    """Return what the file keeps of a finished run: shares are in %, times in seconds."""
    record = _record_of(job, store)
    keys = {name: key for name, key, _ in record.stages}
    parts = [json.loads(line) for line in (data / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
    new = {row["task"] for row in parts if row["part"] == NEW}
    trained = json.loads((store / "finetune" / keys["finetune"] / RECORD).read_text(encoding="utf-8"))
    made = read_record(store / "finetune" / keys["finetune"]) or {}
    recipe = OmegaConf.load(store / "runs" / record.id / "config.yaml").finetune
    after = _evaluated(store / "evaluate" / keys["evaluate finetuned"])
    before = _evaluated(store / "evaluate" / keys["evaluate base"])
    took = {stage: sum(s for name, _, s in record.stages if name.split()[0] == stage) for stage in _SECONDS}
    return {
        **{"arm": job.arm, "budget": job.budget, "seed": job.seed, "overrides": job.overrides, "run": record.id},
        **{"select": keys["select"], "finetune": keys["finetune"]},
        **_means(*after, new),
        **{f"base_{name}": value for name, value in _means(*before, new).items()},
        **{"rows": record.num_annotated, "response_tokens": trained["response_tokens"], "steps": trained["steps"]},
        **{name: recipe[name] for name in _SETTINGS},
        **{f"seconds_{stage}": round(seconds, 1) for stage, seconds in took.items()},
        **{"finished": record.finished, "commit": made.get("git_commit") or ""},
        "versions": " ".join(f"{name}={version}" for name, version in made.get("libraries", {}).items()),
        "likelihood_by_task": _by_task(*after),
    }


def _record_of(job: Job, store: Path) -> RunRecord:
    """Return the record of the run that ended last, of those that a job's command has made."""
    wanted = set(job.command())
    files = sorted((store / "runs").glob("*/results.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    records = (RunRecord.read(file.parent) for file in files)
    found = next((record for record in records if wanted <= set(record.overrides)), None)
    if found is None:
        raise FileNotFoundError(f"{store}/runs has no run of {' '.join(job.command())}; give the store it was made in")
    return found


def _evaluated(directory: Path) -> tuple[dict[str, list[float]], list[str], Mapping[str, float]]:
    """Return the values of every measure, the task of each row, and the task shares of the pool."""
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    values = json.loads((directory / "correct.json").read_text(encoding="utf-8"))
    return values, metrics["tasks"][MEASURES[0]], metrics["shares"]


def _means(
    values: Mapping[str, Sequence[float]], tasks: Sequence[str], shares: Mapping[str, float], new: set[str]
) -> dict[str, float]:
    """Return the mean of each measure under each weighting, in %.

    Tasks alike and the pool's shares are means over the tasks that the pool has.
    """
    is_new = np.array([task in new for task in tasks])
    found: dict[str, float] = {}
    for measure in MEASURES:
        for weighting in WEIGHTINGS:
            rows = np.flatnonzero(is_new if weighting == NEW else ~is_new)
            labels = [tasks[row] for row in rows]
            weight = weights(labels, len(rows), POOL if weighting == POOL else TASKS, shares)
            mean = weighted_mean(np.array(values[measure])[rows], weight)[0] if weight is not None else float("nan")
            found[f"{measure}_{weighting}"] = round(100 * mean, 3)
    return found


def _by_task(values: Mapping[str, Sequence[float]], tasks: Sequence[str], shares: Mapping[str, float]) -> str:
    """Return the mean likelihood of each task in %, in the order of their names."""
    labels, column = np.array(tasks), np.array(values[MEASURES[0]])
    return " ".join(f"{100 * column[labels == task].mean():.1f}" for task in sorted(set(tasks)))
