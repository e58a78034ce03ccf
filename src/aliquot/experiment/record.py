"""The files of a run that people read: the selected prompts and the numbers.

`runs/<id>/` holds selected.jsonl, quality.html (statistics of the responses), results.json, metrics.jsonl and
config.yaml. All of these can be regenerated from the stages.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from aliquot.config.schema import parse_limit
from aliquot.experiment.prospect import Prospect
from aliquot.experiment.rounds import Round, next_budget
from aliquot.experiment.stability import Stability, stability_of
from aliquot.pools.conversation import as_text
from aliquot.stages import Annotate, Evaluate, Finetune, Prepare, ReadBought, Score, Select
from aliquot.store.store import Stage, Store, upstream_first, write_atomic
from aliquot.types import Metric, Pool, Selection

if TYPE_CHECKING:
    from aliquot.experiment.build import Experiment

_RESULTS = "results.json"
_ROUND = " of round "


@dataclass(frozen=True)
class RoundRecord:
    """The numbers of one round, counted over all rounds up to it.

    Args:
        budget: prompts asked.
        num_annotated: responses that are trained on; None where a bill is missing.
        cost: of the responses.
        finetuned: metrics of the model trained on them; empty if the run stopped before evaluation.
        prospect: what the next batch was projected to gain; None if nothing is left to buy.
    """

    budget: int
    num_annotated: int | None
    cost: float
    finetuned: Sequence[Metric]
    prospect: Prospect | None

    @classmethod
    def of(cls, one: Round, following: int, store: Store) -> RoundRecord:
        """Collect the numbers of a round whose stages are done; `following` is the budget after the next batch."""
        bill = one.annotate.bill(store) if store.record(one.annotate) else None
        metrics = store.get(one.evaluate).metrics if store.record(one.evaluate) else ()
        read = one.bought if one.bought and store.record(one.bought) else None
        prospect = Prospect.after(read, following, store) if read else None
        num_responses, cost = (bill.num_responses, bill.cost) if bill else (None, 0.0)
        return cls(one.annotate.num_rows(store), num_responses, cost, metrics, prospect)

    @classmethod
    def read(cls, values: dict[str, Any]) -> RoundRecord:
        """Make it from its fields in JSON."""
        values = dict(values)
        values["finetuned"] = [Metric(**metric) for metric in values["finetuned"]]
        values["prospect"] = Prospect(**values["prospect"]) if values["prospect"] else None
        return cls(**values)


@dataclass(frozen=True)
class RunRecord:
    """The numbers of one finished run.

    Args:
        id: the name of its directory.
        strategy: the name of the strategy's config choice.
        budget: prompts asked, of the pool's `num_prompts`.
        base: metrics of the model before finetuning; empty if the run stopped before evaluation.
        finetuned: metrics after finetuning.
        stages: (name, key, seconds), upstream first; the seconds are from the run that built the stage.
        finished: when the last stage finished.
        num_annotated: responses bought; None if the run stopped earlier, or predates bills.
        annotator: who wrote the responses, or "".
        annotation_cost: of these responses, whichever run paid for them: runs that share prompts share their cost.
        arm: what reports compare: the strategy and the settings that distinguish it from the plain choice; "" in the
            records of older runs.
        uses_response: whether the strategy is an upper reference, which reads the responses of the whole pool.
        rounds: of an experiment that has several; empty for all others.
        planned: prompts after each round, also of those that were not worth it.
        stop_below: points that a round had to be projected to gain, or None.
        selection: device-seconds of all that the selection depends on; None in the records of older runs.
        stability: signal -> how far it stayed the same from the first round's model to the last one's.
        limit: the budget, if it is in money or tokens, or "".
        tokens_trained: of the prompts and responses that the model was finetuned on, each counted once; None if the run
            stopped earlier, or its record is older than this field.
    """

    id: str
    strategy: str
    pool: str
    num_prompts: int
    budget: int
    seed: int
    overrides: Sequence[str]
    base: Sequence[Metric]
    finetuned: Sequence[Metric]
    stages: Sequence[tuple[str, str, float]]
    finished: str
    num_annotated: int | None = None
    annotator: str = ""
    annotation_cost: float = 0.0
    arm: str = ""
    uses_response: bool = False
    rounds: Sequence[RoundRecord] = ()
    planned: Sequence[float] = ()
    stop_below: float | None = None
    selection: float | None = None
    stability: Mapping[str, Stability] = field(default_factory=dict[str, Stability])
    limit: str = ""
    tokens_trained: int | None = None

    @classmethod
    def of(cls, experiment: Experiment, store: Store) -> RunRecord:
        """Collect the numbers of a finished experiment from its stages."""
        metrics: dict[bool, Sequence[Metric]] = {False: (), True: ()}
        stages: list[tuple[str, str, float]] = []
        finished, bill, tokens_trained, budget = "", None, None, experiment.budget
        for stage in experiment.stages:
            record = store.record(stage)
            assert record is not None, f"{stage.name} {stage.key} is not done"
            name = stage.name
            if isinstance(stage, Evaluate):
                metrics[stage.finetune is not None] = store.get(stage).metrics
                name += " finetuned" if stage.finetune else " base"
            if isinstance(stage, Annotate):
                bill, budget = stage.bill(store), stage.num_rows(store)
            if isinstance(stage, Select) and stage.terms:
                budget = stage.num_fitting(store)
            if isinstance(stage, Finetune):
                tokens_trained = stage.num_tokens(store)
            stages.append((name + _of_round(stage, experiment.rounds), stage.key, record["seconds"]))
            finished = max(finished, record["finished"])
        return cls(
            id=experiment.id,
            strategy=experiment.strategy,
            pool=experiment.pool,
            num_prompts=experiment.num_prompts,
            budget=budget,
            seed=experiment.seed,
            overrides=experiment.overrides,
            base=metrics[False],
            finetuned=metrics[True],
            stages=stages,
            finished=finished,
            num_annotated=bill.num_responses if bill else None,
            annotator=bill.by if bill else "",
            annotation_cost=bill.cost if bill else 0.0,
            arm=experiment.arm,
            uses_response=experiment.uses_response,
            rounds=_rounds(experiment, store),
            planned=experiment.planned if len(experiment.planned) > 1 else (),
            stop_below=experiment.stop_below,
            selection=_selection_seconds(experiment, store),
            stability=stability_of(experiment.rounds, store),
            limit=str(experiment.limit or ""),
            tokens_trained=tokens_trained,
        )

    def mean_score(self) -> float:
        """Return the mean over benchmarks of the finetuned model, NaN if no benchmark was evaluated."""
        values = [metric.value for metric in self.finetuned]
        return sum(values) / len(values) if values else math.nan

    def selection_seconds(self) -> float:
        """Return the time that selection took: passes over the pool, rankings, and what later rounds learned from."""
        if self.selection is not None:
            return self.selection
        stages = ("score", "responses", "select_part", "select")
        return sum(seconds for name, _, seconds in self.stages if name in stages)

    def summary(self) -> dict[str, Any]:
        """Return the numbers as a flat dictionary, as trackers and metrics.jsonl need them."""
        limit = parse_limit(self.limit)  # dashboards compare runs at the same budget
        values: dict[str, Any] = {"budget": limit.amount if limit else self.budget, "seed": self.seed}
        for when, metrics in (("base", self.base), ("finetuned", self.finetuned)):
            for metric in metrics:
                values[f"{when}/{metric.name}"] = metric.value
                values[f"{when}/{metric.name}_stderr"] = metric.stderr
                values |= {f"{when}/{metric.name}_by_{by}": mean for by, (mean, _) in metric.weighted.items()}
        base = {metric.name: metric.value for metric in self.base}
        values |= {f"gain/{metric.name}": metric.value - base[metric.name] for metric in self.finetuned}
        for name, _, seconds in self.stages:  # a ranking in parts has several stages of one name
            key = f"seconds/{name.replace(' ', '_')}"
            values[key] = round(values.get(key, 0) + seconds, 2)
        if self.num_annotated is not None:
            values |= {"annotations": self.num_annotated, "annotation_cost": self.annotation_cost}
        if self.tokens_trained is not None:
            values["tokens_trained"] = self.tokens_trained
        for number, one in enumerate(self.rounds, start=1):
            values |= {f"round_{number}/{metric.name}": metric.value for metric in one.finetuned}
            values |= {f"round_{number}/annotations": one.budget, f"round_{number}/annotation_cost": one.cost}
            if one.prospect:
                values[f"round_{number}/projected_points"] = one.prospect.points
        for name, found in self.stability.items():
            values[f"stability/{name}_overlap"] = found.overlap
            if found.correlation is not None:
                values[f"stability/{name}"] = found.correlation
        return values | {"selection_seconds": round(self.selection_seconds(), 2)}

    def write(self, directory: Path, losses: str) -> None:
        """Write results.json, and metrics.jsonl: the lines logged while finetuning, then one line with the results."""
        write_atomic(directory / "metrics.jsonl", f"{losses}{json.dumps(self.summary())}\n")
        write_atomic(directory / _RESULTS, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> RunRecord:
        """Read what `write` wrote."""
        values: dict[str, Any] = json.loads((directory / _RESULTS).read_text(encoding="utf-8"))
        for when in ("base", "finetuned"):
            values[when] = [Metric(**metric) for metric in values[when]]
        values["rounds"] = [RoundRecord.read(one) for one in values.get("rounds", ())]
        values["stability"] = {name: Stability(**found) for name, found in values.get("stability", {}).items()}
        return cls(**values)


def _of_round(stage: Stage[Any], rounds: Sequence[Round]) -> str:
    """Return what distinguishes a stage of an earlier round from those of the last; "" for one of the last."""
    if not rounds or not isinstance(stage, (Score, Select, Annotate, ReadBought, Finetune, Evaluate)):
        return ""
    for number, one in list(enumerate(rounds, start=1))[::-1]:
        if stage.key in {own.key for own in one.stages}:
            return "" if one is rounds[-1] else f"{_ROUND}{number}"
    return ""


def _selection_seconds(experiment: Experiment, store: Store) -> float:
    """Return the seconds of the passes, rankings, readings and trainings that the last selection depends on."""
    selects = [stage for stage in experiment.stages if isinstance(stage, Select)]
    others = (Prepare, Annotate)
    used = {s.key: s for s in upstream_first(selects[-1:] or experiment.stages[-1:]) if not isinstance(s, others)}
    records = (store.record(stage) for stage in used.values())
    return sum(record["seconds"] for record in records if record)


def _rounds(experiment: Experiment, store: Store) -> list[RoundRecord]:
    """Return the numbers of each round of an experiment that has several; a projection only where it was evaluated."""
    planned, rounds = experiment.planned, experiment.rounds
    if len(planned) < 2:
        return []
    return [
        RoundRecord.of(one, next_budget(one, planned, number, experiment.num_prompts, store), store)
        for number, one in enumerate(rounds)
    ]


def find_run(directory: Path) -> RunRecord | None:
    """Return the record of a finished run, or None."""
    return RunRecord.read(directory) if (directory / _RESULTS).exists() else None


def save_config(cfg: DictConfig, directory: Path) -> dict[str, Any]:
    """Write the configuration of a run with all references resolved, and return it."""
    resolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    write_atomic(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(resolved)))
    return resolved


def write_selection(pool: Pool, selection: Selection, path: Path) -> list[dict[str, Any]]:
    """Write the prompts to annotate, one JSON object per line in the order selected; return the rows."""
    rows: list[dict[str, Any]] = []
    picked: list[int] = selection.indices.tolist()
    for rank, row in enumerate(picked):
        task = pool.tasks[row] if pool.tasks else None
        gain = float(selection.gains[rank])
        rows.append(
            {
                "rank": rank,
                "id": pool.ids[row],
                "task": task,
                "gain": gain,
                "prompt": as_text(pool.prompts[row]),
            }
        )
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows
