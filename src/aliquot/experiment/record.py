"""The files of a run that people read: the selected prompts and the numbers.

`runs/<id>/` holds selected.jsonl, quality.html (statistics of the responses), results.json, metrics.jsonl and
config.yaml. All of these can be regenerated from the stages.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from aliquot.pools.conversation import as_text
from aliquot.stages import Annotate, Evaluate
from aliquot.store.store import Store, write_atomic
from aliquot.types import Metric, Pool, Selection

if TYPE_CHECKING:
    from aliquot.experiment.build import Experiment

_RESULTS = "results.json"


@dataclass(frozen=True)
class RunRecord:
    """The numbers of one finished run.

    Args:
        id: the name of its directory.
        strategy: the name of the strategy's config choice.
        budget: prompts annotated, of the pool's `num_prompts`.
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

    @classmethod
    def of(cls, experiment: Experiment, store: Store) -> RunRecord:
        """Collect the numbers of a finished experiment from its stages."""
        metrics: dict[bool, Sequence[Metric]] = {False: (), True: ()}
        stages: list[tuple[str, str, float]] = []
        finished, bill = "", None
        for stage in experiment.stages:
            record = store.record(stage)
            assert record is not None, f"{stage.name} {stage.key} is not done"
            name = stage.name
            if isinstance(stage, Evaluate):
                metrics[stage.finetune is not None] = store.get(stage).metrics
                name += " finetuned" if stage.finetune else " base"
            if isinstance(stage, Annotate):
                bill = stage.bill(store)
            stages.append((name, stage.key, record["seconds"]))
            finished = max(finished, record["finished"])
        return cls(
            id=experiment.id,
            strategy=experiment.strategy,
            pool=experiment.pool,
            num_prompts=experiment.num_prompts,
            budget=experiment.budget,
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
        )

    def mean_score(self) -> float:
        """Return the mean over benchmarks of the finetuned model, NaN if no benchmark was evaluated."""
        values = [metric.value for metric in self.finetuned]
        return sum(values) / len(values) if values else math.nan

    def selection_seconds(self) -> float:
        """Return the time that selection took: the pass over the pool and the ranking."""
        stages = ("score", "responses", "select_part", "select")
        return sum(seconds for name, _, seconds in self.stages if name in stages)

    def summary(self) -> dict[str, Any]:
        """Return the numbers as a flat dictionary, as trackers and metrics.jsonl need them."""
        values: dict[str, Any] = {"budget": self.budget, "seed": self.seed}
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
        return cls(**values)


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
