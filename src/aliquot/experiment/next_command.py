"""The suggested next command after a run, and the command equivalent to a configuration composed in Python."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aliquot.config.command_line import command
from aliquot.config.compose import composed, values_of
from aliquot.config.create import create
from aliquot.config.quoting import setting
from aliquot.config.schema import GROUPS, Until, as_typed, choices_of, strategy_name, target_of
from aliquot.experiment.record import RunRecord

#: The number of fields that may differ from the default choice of a group; beyond it, another choice may be nearer.
_FEW = 2


def next_command(run: RunRecord, cfg: DictConfig, overrides: Sequence[str]) -> str:
    """Return the command of the reference run; of the whole experiment if the run stopped early; or of the report.

    Args:
        run: a finished run.
        cfg: its configuration.
        overrides: those that lead to it, as Hydra sees them.
    """
    if run.strategy == "random" and run.finetuned:
        default = os.environ.get("ALIQUOT_STORE", "outputs")
        store = [] if str(cfg.store) == default else ["--store", str(cfg.store)]
        return shlex.join(["python", "-m", "aliquot", "report", *store])
    kept = _without(overrides, "sweeps")
    if run.finetuned:
        for name in ("strategy", "rounds", "stop_below", "cost_aware"):
            kept = _without(kept, name)
        if run.rounds and any(o.startswith("experiments=") for o in kept):  # its file may set them
            kept += ["rounds=1", "stop_below=null"]
        if run.stop_below is not None:
            kept = [*_without(kept, "budget"), f"budget={run.budget}"]
        kept = ["strategy=random", *kept]
        return command(kept, sys.argv[0]) + "   (the reference; reuses what it can)"
    return command(_whole(kept, cfg, run), sys.argv[0])


def after_sweep(sweep: str, typed: str, runs: Sequence[RunRecord], cfg: DictConfig) -> str:
    """Return the command that reports a sweep or, if its runs stopped early, the command of the whole sweep.

    Args:
        sweep: its id.
        typed: the command that started it.
        runs: the finished ones.
        cfg: the configuration of one of these runs.
    """
    if any(run.finetuned for run in runs):
        return shlex.join(["python", "-m", "aliquot", "report", sweep, "--store", str(cfg.store)])
    python, program, *words = shlex.split(typed)
    return shlex.join([python, program, *_whole(words, cfg, runs[0])])


def _whole(overrides: Sequence[str], cfg: DictConfig, run: RunRecord) -> list[str]:
    """Return the overrides of the whole experiment, with an annotator that can answer."""
    kept = _without(overrides, "until")
    if len(kept) == len(overrides) and cfg.until != Until.evaluate:
        kept.append("until=evaluate")  # an experiments file stopped it early
    if not any(name == "annotate" for name, _, _ in run.stages) and not _has_responses(cfg):
        folder = setting("annotator.folder", f"annotate_{run.pool}")
        kept = [*_without(kept, "annotator"), "annotator=file", folder]
    return kept


def _without(overrides: Sequence[str], name: str) -> list[str]:
    """Return the overrides without those of one setting, or of one group and the settings below it."""
    names = [override.lstrip("+~").partition("=")[0] for override in overrides]
    return [o for o, known in zip(overrides, names, strict=True) if known.split(".")[0].split("/")[0] != name]


def _has_responses(cfg: DictConfig) -> bool:
    """Tell whether the pool has what the annotator needs: an oracle needs responses."""
    annotator = create(cfg, "annotator")
    if not annotator.reads_source:
        return True
    try:
        annotator.check(create(cfg, "pool"))
    except ValueError:
        return False
    return True


def again(cfg: DictConfig) -> str:
    """Return the command that leads to a run: as typed, or equivalent to a configuration that was not typed."""
    if HydraConfig.initialized():
        return shlex.join(["python", *sys.argv])
    return command(overrides_of(cfg), sys.argv[0])


def overrides_of(cfg: DictConfig) -> tuple[str, ...]:
    """Return overrides that compose to a configuration: the nearest choice of each group, then the differences."""
    asked = values_of(cfg)
    asked.pop("hydra", None)
    asked["strategy"].setdefault("name", strategy_name(cfg))
    changed = (o for o in _changes(composed(()), asked) if o.partition("=")[0] in asked)
    overrides = [o.replace('"', "") if o.startswith("budget=") else o for o in changed]  # a budget is always text
    for group in GROUPS:
        default = composed(tuple(overrides))[group]
        changes = list(_changes(default, asked[group]))
        another = ("_target_", "name") if group == "strategy" else ("_target_",)
        if len(changes) > _FEW or any(default.get(field) != asked[group].get(field) for field in another):
            overrides += _nearest(group, asked[group], tuple(overrides))
    return (*overrides, *_changes(composed(tuple(overrides)), asked))


def _nearest(group: str, asked: Mapping[str, Any], overrides: tuple[str, ...]) -> list[str]:
    """Return the choice of a group that differs least from `asked`; empty where no choice has its class."""
    files = sorted(choices_of(group).glob("*.yaml"))
    choices = [f"{group}={file.stem}" for file in files if target_of(file) == asked.get("_target_")]
    differences = {o: len(list(_changes(composed((*overrides, o))[group], asked))) for o in choices}
    return sorted(differences, key=lambda choice: differences[choice])[:1]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the overrides that turn one configuration into another."""
    for name, value in new.items():
        known, here = old.get(name), f"{above}{name}"
        if isinstance(known, dict) and isinstance(value, dict):
            yield from _changes(cast(dict[str, Any], known), cast(dict[str, Any], value), f"{here}.")
        elif name not in old or known != value:
            assigned = setting(here, value) if isinstance(value, str) else f"{here}={_written(value)}"
            yield assigned if name in old else f"+{assigned}"
    yield from (f"~{above}{name}" for name in old if name not in new)


def _written(value: object) -> str:
    """Write a value in Hydra's syntax."""
    if isinstance(value, str):
        return setting("x", value).removeprefix("x=")
    if isinstance(value, dict):
        pairs = cast(dict[str, object], value).items()
        return "{" + ",".join(f"{name}:{_written(part)}" for name, part in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(part) for part in cast(list[object], value)) + "]"
    return as_typed(value)
