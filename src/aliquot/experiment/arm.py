"""What an arm of a study is: the settings that decide which prompts are selected, except the budget and the seeds.

Reports tell arms apart by the records of finished stages, dashboards by the stages of a run; both do it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from omegaconf import OmegaConf

from aliquot.config.compose import composed
from aliquot.config.create import create
from aliquot.config.schema import choices_of
from aliquot.scoring.spec import Scorer
from aliquot.selection.upper_reference import READS_RESPONSES
from aliquot.stages import Select
from aliquot.store.store import Stage, canonical

#: A stage's record, as stored in stage.json.
Record = Mapping[str, Any]
_HASH = re.compile("[0-9a-f]{64}")
_NOTHING = object()  # equals no setting
_LEARNS = "Allocation"  # the class whose `learn` is not in its key
_SCORER = "default"  # the choice that goes without saying
#: The parameter that only upper references have.
USES_RESPONSE = "uses_response"


@dataclass(frozen=True)
class ArmSettings:
    """How prompts are selected, regardless of the budget.

    Args:
        strategy: the name of the strategy on the command line.
        parameters: of the strategy and, if it reads signals, of the scorer, as dotted names, without seeds.
        seeds: those of the strategy and the scorer, by dotted name.
        identity: what all runs of an arm have in common.
    """

    strategy: str
    parameters: Mapping[str, object]
    seeds: Mapping[str, int]
    identity: str

    @classmethod
    def of(
        cls,
        strategy: str,
        select: Record,
        score: Record | None,
        rounds: Sequence[float] = (),
        stop_below: float | None = None,
    ) -> ArmSettings:
        """Read them from the records of two stages; `score` is None if the strategy reads no signals.

        Args:
            strategy: its name.
            select: the record of the selection, the last one of several rounds.
            score: the record of the pass that it reads.
            rounds: prompts after each round that is configured, or what they may cost, if there are several.
            stop_below: ends the rounds, or None.
        """
        settings = flatten(select["fields"]["strategy"])
        if score is not None:
            settings |= flatten(without(score, "model", "pool", "adapter")) | version_of(score)
            view = settings.pop("features", None)
            settings |= _as_read(view if isinstance(view, str) else None, score["fields"]["scorer"])
        if target := select["fields"].get("target"):
            settings["target"] = target["prompts"].get("digest") or target["prompts"]["key"]
        if select["fields"].get("terms", {}).get("cost_aware"):
            settings["cost_aware"] = True
        if len(rounds) > 1:
            settings["rounds"] = _shares(rounds)
            settings |= {} if stop_below is None else {"stop_below": stop_below}
            if settings["type"] == _LEARNS and "bought" not in select["fields"]:
                settings["learn"] = False
        seeds = {name: value for name, value in settings.items() if _is_seed(name) and isinstance(value, int)}
        parameters = {name: value for name, value in settings.items() if name not in seeds}
        return cls(strategy, parameters, seeds, json.dumps(parameters, sort_keys=True))


def _shares(rounds: Sequence[float]) -> int | str:
    """Return the number of equal rounds, or the shares of the budget that uneven ones reach."""
    budget, number = rounds[-1], len(rounds)
    if tuple(rounds) == equal_parts(budget, number):
        return number
    return "[" + ",".join(f"{100 * part / budget:.10g}%" for part in rounds) + "]"


@overload
def equal_parts(budget: int, rounds: int) -> tuple[int, ...]: ...
@overload
def equal_parts(budget: float, rounds: int) -> tuple[float, ...]: ...
def equal_parts(budget: float, rounds: int) -> tuple[float, ...]:
    """Return the number of prompts after each of several equal rounds; of a float, the amounts of a limit."""
    digits = None if isinstance(budget, int) else 9
    return tuple(round(budget * number / rounds, digits) for number in range(1, rounds + 1))


def _as_read(view: str | None, scorer: Mapping[str, Any]) -> dict[str, object]:
    """Return the position and layer of the view that a strategy reads, as settings; the other views do not matter."""
    kept = Scorer(position=scorer["position"], layer=scorer["layer"])
    position, layer = kept.views[kept.view(view)]
    return {"scorer.layer": layer, "scorer.position": position}


def marked(strategy: str, uses_response: object) -> str:
    """Return the name of a strategy for plans, tables and figures: that of an upper reference says that it is one."""
    return f"{strategy} {READS_RESPONSES}" if uses_response else strategy


def score_of(select: Record) -> str | None:
    """Return the key of the pass that a selection reads, from its record; None if it reads none."""
    return next((key for stage, _, key in (up.partition("/") for up in select["upstream"]) if stage == "score"), None)


def label_of(strategy: str, select: Select, rounds: Sequence[float] = (), stop_below: float | None = None) -> str:
    """Return the strategy's name and the settings in which a selection differs from the plain choice of that name.

    It does not matter where a setting comes from: the command line, or a file of `experiments/`. Two runs have the same
    label if and only if a report counts them as the same arm, unless one selection has two names.
    """
    ours = _parameters(strategy, select, rounds, stop_below)
    others = {file.stem for file in choices_of("scorer").glob("*.yaml")} - {_SCORER} if select.score else set[str]()
    ways = [_changes(ours, _plain(strategy, name, select), name) for name in (_SCORER, *sorted(others))]
    return " ".join([marked(strategy, ours.get(USES_RESPONSE)), *min(ways, key=len)])


def _changes(ours: Mapping[str, object], plain: Mapping[str, object], scorer: str) -> list[str]:
    """Return the texts that lead from the choice of a strategy and of a scorer to these parameters."""
    changed = {name: f"{name}={shown(value)}" for name, value in ours.items() if plain.get(name, _NOTHING) != value}
    # that a kernel has no gamma follows from its kind, which is among the changes
    lacking = [f"without {name}" for name in plain if name not in ours and _kind_of(name) not in changed]
    return [*([] if scorer == _SCORER else [f"scorer={scorer}"]), *changed.values(), *lacking]


def _kind_of(name: str) -> str:
    """Return the setting that names the class of the component to which a setting belongs."""
    return name.rpartition(".")[0] or "type"


def _plain(strategy: str, scorer: str, select: Select) -> Mapping[str, object]:
    """Return the parameters of two choices as they come; empty for a strategy that is not one, or needs settings."""
    if not (choices_of("strategy") / f"{strategy}.yaml").exists():
        return {}
    cfg = OmegaConf.create(composed((f"strategy={strategy}", f"scorer={scorer}")))
    try:
        chosen = create(cfg, "strategy")
    except ValueError:
        return {}
    score = select.score and replace(select.score, scorer=create(cfg, "scorer"))
    return _parameters(
        strategy, replace(select, strategy=chosen, target=None, score=score, before=None, bought=None, terms=None)
    )


def _parameters(
    strategy: str, select: Select, rounds: Sequence[float] = (), stop_below: float | None = None
) -> Mapping[str, object]:
    score = _record(select.score) if select.score else None
    if select.before is None and stop_below is None:
        rounds = ()  # what reads nothing new is the same arm in any number of rounds
    return ArmSettings.of(strategy, _record(select), score, rounds, stop_below).parameters


def _record(stage: Stage[Any]) -> Record:
    """Return the entries of a stage's record that say what it depends on."""
    return {"stage": stage.name, "version": stage.version, "fields": canonical(stage.inputs())}


def without(stage: Record, *names: str) -> dict[str, Any]:
    """Return the fields in a record except those of these names."""
    return {name: value for name, value in stage["fields"].items() if name not in names}


def version_of(stage: Record) -> dict[str, object]:
    """Return the version of a stage as a setting, if it is not the first."""
    return {} if stage["version"] == 1 else {f"{stage['stage']}.stage_version": stage["version"]}


def _is_seed(name: str) -> bool:
    return name.rpartition(".")[2].endswith("seed")


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Flatten nested fields to dotted names.

    A component, such as a kernel, is represented by the name of its class (`type` for the outermost), and by its
    version if that is not 1.
    """
    flat: dict[str, object] = {}
    for name, value in fields.items():
        if name == "type":
            flat[prefix.removesuffix(".") or name] = value.rpartition(".")[2]
        elif name == "version" and "type" in fields:
            flat |= {} if value == 1 else {f"{prefix}{name}": value}
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def shown(value: object) -> str:
    """Write a setting as it is typed on the command line; a hash by its first digits."""
    if isinstance(value, str) and value.isprintable():
        return value[:8] if _HASH.fullmatch(value) else value
    return json.dumps(value)
