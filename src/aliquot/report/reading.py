"""From the files of a store to studies. Nothing is cached between reports: each shows the current state."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from aliquot.config.schema import Limit, parse_limit
from aliquot.evaluation.held_out.measures import task_shares
from aliquot.evaluation.weightings import ROWS, TARGET
from aliquot.evaluation.wording import WEIGHED
from aliquot.experiment.arm import ArmSettings, Record, flatten, score_of, shown
from aliquot.experiment.record import RunRecord
from aliquot.launch.sweep import Sweep
from aliquot.pools.cleaning import PoolReport
from aliquot.pools.prepare import load_prepared
from aliquot.report.analysis.comparability import (
    differences,
    label_replicates,
    name_arms,
    setting_of,
)
from aliquot.report.analysis.correctness import Correct, Evaluations
from aliquot.report.analysis.numbers import price
from aliquot.report.analysis.study import Annotations, Arm, Cell, Study
from aliquot.store.store import Store, read_record

log = logging.getLogger(__name__)

_RUNS_NAMED = 3  # in one warning


@dataclass(frozen=True)
class _Run:
    """A finished run, and the records of its stages."""

    record: RunRecord
    arm_settings: ArmSettings
    budget: float
    unit: str
    seed: int
    setting: Mapping[str, Any]


def read_studies(root: Path, sweeps: Sequence[str] = (), weighting: str = ROWS) -> list[Study]:
    """Return the studies in which the finished runs of a store can be compared, the one with most runs first.

    A run that cannot be read, or does not match the others, is left out with a warning.

    Args:
        root: the store.
        sweeps: ids, or their prefixes: only the runs of these; none for all runs.
        weighting: of held-out rows, one of `WEIGHTINGS`.

    Raises:
        ValueError: the store has no such sweep.
    """
    return studies_of(root, read_records(root, [Sweep.load(Store(root), sweep) for sweep in sweeps]), weighting)


def read_records(root: Path, sweeps: Sequence[Sweep] = ()) -> list[RunRecord]:
    """Return the finished runs of a store, or of some of its sweeps, oldest first; evaluated or not."""
    wanted = {run.id for sweep in sweeps for run in sweep.runs}
    records: list[RunRecord] = []
    for path in Store(root).runs.glob("*/results.json"):
        if sweeps and path.parent.name not in wanted:
            continue
        try:
            records.append(RunRecord.read(path.parent))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("left out: %s: its results.json cannot be read (%s); run it again", path.parent.name, error)
    return sorted(records, key=lambda run: (run.finished, run.id))


def studies_of(
    root: Path, records: Sequence[RunRecord], weighting: str = ROWS, on_run: Callable[[], object] = lambda: None
) -> list[Study]:
    """Return the studies of the evaluated ones among these runs; `on_run` is called for each of them."""
    reader, grouped = _Reader(root, weighting, on_run), defaultdict[str, list[_Run]](list)
    for record in records:
        if record.finetuned and (run := reader.run(record)):
            grouped[json.dumps(run.setting, sort_keys=True)].append(run)
    groups = sorted(grouped.values(), key=len, reverse=True)
    settings = [flatten(runs[0].setting) for runs in groups]
    texts = differences(settings)
    studies = [reader.study(*group) for group in zip(groups, settings, texts, strict=True)]
    reader.warn()
    return [study for study in studies if study.cells]


class _Reader:
    """Reads the files of runs, each stage record once, and collects the problems with them."""

    def __init__(self, root: Path, weighting: str, on_run: Callable[[], object]) -> None:
        self._root, self._weighting, self._on_run = root, weighting, on_run
        self._records: dict[str, Record] = {}
        self._arm_settings: dict[tuple[str, str, tuple[float, ...], float | None], ArmSettings] = {}
        self._left_out: dict[str, list[str]] = {}  # reason -> ids

    def run(self, record: RunRecord) -> _Run | None:
        """Return a run with its stage records; None, and a later warning, if they cannot be read."""
        try:
            evaluate = self._record("evaluate", _key(record, "evaluate finetuned"))
            finetune = self._record(**evaluate["fields"]["finetune"])
            annotate = self._record(**finetune["fields"]["annotate"])
            select = self._record(**annotate["fields"]["select"])
            limit = _limit(select)
            budget = _whole(limit.amount) if limit else annotate["fields"]["budget"]
            unit = limit.unit if limit else ""
            arm_settings = self._settings_of_arm(record, select, limit.amount if limit else budget)
            seed, setting = finetune["fields"]["recipe"]["seed"], setting_of(evaluate, finetune, annotate, select)
            return _Run(record, arm_settings, budget, unit, seed, setting)
        except KeyError as error:
            self._leave_out(record.id, f"the records of its stages have no {error}")
        except (OSError, ValueError) as error:
            self._leave_out(record.id, str(error))
        return None

    def _settings_of_arm(self, record: RunRecord, select: Record, budget: float) -> ArmSettings:
        ends = record.stop_below is not None
        rounds = tuple(record.planned) if ends else (*self._rounds_before(select), budget)
        known = record.strategy, select["key"], rounds if len(rounds) > 1 else (), record.stop_below
        if known not in self._arm_settings:
            key = score_of(select)
            score = self._record("score", key) if key else None
            self._arm_settings[known] = ArmSettings.of(record.strategy, select, score, rounds, record.stop_below)
        return self._arm_settings[known]

    def _rounds_before(self, select: Record) -> tuple[float, ...]:
        """Return the prompts after each round before this selection."""
        before = select["fields"].get("before")
        if before is None:
            return ()
        if "key" in before:  # of an Annotate with a budget in money or tokens
            before = self._record(**before)["fields"]
        earlier = self._record(**before["select"])
        limit = _limit(earlier)
        return (*self._rounds_before(earlier), limit.amount if limit else before["budget"])

    def _record(self, stage: str, key: str) -> Record:
        name = f"{stage}/{key}"
        if name not in self._records:
            record = read_record(self._root / name)
            if record is None:
                raise ValueError(f"{name}/stage.json is gone")
            self._records[name] = record
        return self._records[name]

    def study(self, runs: Sequence[_Run], setting: Mapping[str, object], text: str) -> Study:
        """Return the study of runs that share a setting; `text` distinguishes it from others."""
        first = runs[0].record
        target = self._target_shares(runs) if self._weighting == TARGET else None
        evaluations = Evaluations([run.record.finetuned for run in runs], self._weighting, target)
        arms, by_arm = name_arms(run.arm_settings for run in runs), defaultdict[str, list[_Run]](list)
        for run in runs:
            by_arm[run.arm_settings.identity].append(run)
        cells = [cell for key, alike in by_arm.items() for cell in self._cells(arms[key], alike, evaluations)]
        read = {name for cell in cells for name in cell.runs}
        model = self._model(first)
        unit = runs[0].unit
        if unit and unit not in text:
            text = f"{text}, budgets in {unit}".removeprefix(", ")
        if self._weighting != ROWS:
            setting, text = self._weighed(evaluations, setting, text)
        named = {"pool": first.pool, "prompts": first.num_prompts, "model": model, **_bought(cells), **setting}
        return Study(
            name=", ".join(part for part in (first.pool, model, text) if part),
            setting={name: shown(value) for name, value in named.items()},
            benchmarks=evaluations.benchmarks,
            base=self._base(first, evaluations),
            cells=sorted(cells, key=lambda cell: (cell.arm.strategy, cell.arm.name, cell.budget)),
            records=[run.record for run in runs if run.record.id in read],
            unit=unit,
        )

    def _target_shares(self, runs: Sequence[_Run]) -> Mapping[str, float] | None:
        """Return the share of each task in the target of these runs; None, and a warning, unless they have one."""
        folders = {self._root / name / key for run in runs for name, key, _ in run.record.stages if name == "target"}
        try:
            targets = {PoolReport.read(folder).digest: folder for folder in folders}
            if len(targets) == 1:
                tasks = load_prepared(targets.popitem()[1], "target").tasks
                return None if tasks is None else task_shares(tasks)
            why = (
                f"their runs choose toward {len(targets)} targets; name the sweeps that have one"
                if targets
                else ("none of their runs chooses toward a target (target=prompts.jsonl)")
            )
        except OSError as error:
            why = f"{error.filename} is gone"
        log.warning("held-out rows cannot be weighed by the target: %s", why)
        return None

    def _weighed(
        self, evaluations: Evaluations, setting: Mapping[str, object], text: str
    ) -> tuple[Mapping[str, object], str]:
        """Add the weighting to the setting of a study and to the text that distinguishes it, if anything is weighed."""
        if alike := sorted(evaluations.unweighed):
            lacking = "no task of the target" if self._weighting == TARGET else "no task labels"
            log.warning("%s: %s in its rows, so questions count alike", ", ".join(alike), lacking)
        if len(evaluations.unweighed) == len(evaluations.benchmarks):
            return setting, text
        return {"weighting": self._weighting, **setting}, f"{text}, {WEIGHED[self._weighting]}".removeprefix(", ")

    def _base(self, record: RunRecord, evaluations: Evaluations) -> Mapping[str, Correct]:
        """Return the answers before finetuning, all NaN if they cannot be read."""
        try:
            return evaluations.read(self._root / "evaluate" / _key(record, "evaluate base"), record.base)
        except (OSError, ValueError) as error:
            self._leave_out(f"the base model in {record.id}", str(error))
            return evaluations.unknown()

    def _cells(self, arm: Arm, runs: Sequence[_Run], evaluations: Evaluations) -> Iterator[Cell]:
        """Yield the cells of an arm's runs."""
        by_budget = defaultdict[float, list[tuple[str, _Run]]](list)
        labels = label_replicates([(run.seed, run.arm_settings.seeds) for run in runs])
        for label, run in zip(labels, runs, strict=True):
            by_budget[run.budget].append((label, run))
        for budget, every in by_budget.items():
            # A strategy that reads nothing new has the same last round in any number of rounds: it counts once.
            replicates = list({_key(run.record, "evaluate finetuned"): (label, run) for label, run in every}.values())
            replicates.sort(key=lambda replicate: (replicate[1].seed, replicate[0]))
            read = [(label, run.record, self._correct(run.record, evaluations)) for label, run in replicates]
            kept = [(label, record, correct) for label, record, correct in read if correct]
            if kept:
                labels, records, answers = zip(*kept, strict=True)
                correct = {name: np.stack([answer[name] for answer in answers]) for name in evaluations.benchmarks}
                seconds = float(np.mean([record.selection_seconds() for record in records]))
                yield Cell(
                    arm,
                    budget,
                    labels,
                    tuple(record.id for record in records),
                    correct,
                    seconds,
                    Annotations.of(records, runs[0].unit),
                )

    def _correct(self, record: RunRecord, evaluations: Evaluations) -> Mapping[str, Correct] | None:
        """Return the answers after finetuning; None, and a later warning, if they do not match."""
        self._on_run()
        try:
            return evaluations.read(self._root / "evaluate" / _key(record, "evaluate finetuned"), record.finetuned)
        except (OSError, ValueError) as error:
            self._leave_out(record.id, str(error))
            return None

    def _model(self, record: RunRecord) -> str:
        """Name the model as the run's configuration does, without the directory that contains it on some machine."""
        from omegaconf import OmegaConf

        try:
            path = str(OmegaConf.load(Store(self._root).run_directory(record.id) / "config.yaml").model.path)
        except (OSError, ValueError, AttributeError):
            return "model"
        return "/".join(PurePosixPath(path.removeprefix("pkg://")).parts[-2:])

    def _leave_out(self, run: str, reason: str) -> None:
        self._left_out.setdefault(reason, []).append(run)

    def warn(self) -> None:
        """Report which runs were left out, one line per reason."""
        for reason, runs in self._left_out.items():
            more = f" and {len(runs) - _RUNS_NAMED:,} more" if len(runs) > _RUNS_NAMED else ""
            log.warning("left out: %s%s: %s; run it again", ", ".join(runs[:_RUNS_NAMED]), more, reason)


def _bought(cells: Sequence[Cell]) -> dict[str, str]:
    """Describe who annotated, how much and at what cost, per run (runs share responses), if runs record it."""
    bought = [cell.annotations for cell in cells]
    numbers = [spent.number for spent in bought if spent.number is not None]
    costs = [spent.cost for spent in bought if spent.cost is not None]
    if not numbers or not costs:
        return {}
    return {
        "annotated by": ", ".join(sorted({spent.by for spent in bought if spent.by})),
        "responses of a run": f"{min(numbers):,.0f} to {max(numbers):,.0f}",
        "their price": f"{price(min(costs))} to {price(max(costs))}",
    }


def _whole(amount: float) -> float:
    """Return a whole number as one, so that it is written without a point."""
    return int(amount) if amount == int(amount) else amount


def _limit(select: Record) -> Limit | None:
    """Return the budget in money or tokens of a selection, or None."""
    terms = select["fields"].get("terms")
    return parse_limit(terms["limit"]) if terms else None


def _key(record: RunRecord, stage: str) -> str:
    """Return the key of one of a run's stages."""
    for name, key, _ in record.stages:
        if name == stage:
            return key
    raise ValueError(f"its results.json names no stage '{stage}'")
