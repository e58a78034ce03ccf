"""What makes two runs comparable and what distinguishes them: from records of stages to arms and replicates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aliquot.report.analysis.study import Arm

#: A stage's record, as stored in stage.json.
Record = Mapping[str, Any]
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Choice:
    """How prompts were selected, regardless of the budget.

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
    def of(cls, strategy: str, select: Record, score: Record | None) -> Choice:
        """Read it from the records of two stages; `score` is None if the strategy reads no signals."""
        settings = flatten(select["fields"]["strategy"])
        if score is not None:
            settings |= flatten(_without(score, "model", "pool")) | _version(score)
        seeds = {name: value for name, value in settings.items() if _is_seed(name) and isinstance(value, int)}
        parameters = {name: value for name, value in settings.items() if name not in seeds}
        return cls(strategy, parameters, seeds, json.dumps(parameters, sort_keys=True))


def setting_of(evaluate: Record, finetune: Record, annotate: Record, select: Record) -> dict[str, Any]:
    """Return the settings that must be equal in two runs for them to be compared.

    These are all that their stages depend on, except the strategy, the scorer, the budget and the finetuning seed.
    """
    pool = select["fields"]["pool"]
    fields = {
        "model": finetune["fields"]["model"],
        "pool": {"digest": pool.get("digest") or pool["key"]},
        **_without(annotate, "select", "budget", "digest"),
        **_without(finetune, "annotate", "model", "recipe"),
        "finetune": {name: value for name, value in finetune["fields"]["recipe"].items() if name != "seed"},
        **_without(evaluate, "finetune", "model"),
    }
    for stage in (select, annotate, finetune, evaluate):
        fields |= _version(stage)
    return fields


def _without(stage: Record, *names: str) -> dict[str, Any]:
    return {name: value for name, value in stage["fields"].items() if name not in names}


def _version(stage: Record) -> dict[str, object]:
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


def differences(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Return one text for each: the settings in which it differs from the others, "" if nothing differs.

    A setting that only some have is named only if the rest does not distinguish them: that a kernel has no gamma
    follows from its kind.
    """
    texts = _differences(settings, {name for each in settings for name in each}, absent_differs=False)
    if len(set(texts)) < len(texts):
        texts = _differences(settings, {name for each in settings for name in each}, absent_differs=True)
    return texts


def _differences(settings: Sequence[Mapping[str, object]], names: set[str], absent_differs: bool) -> list[str]:
    def values(name: str) -> set[str]:
        found = {json.dumps(each[name]) for each in settings if name in each}
        return found | ({""} if absent_differs and any(name not in each for each in settings) else set())

    differing = {name for name in names if len(values(name)) > 1}
    return [" ".join(f"{name}={shown(each[name])}" for name in each if name in differing) for each in settings]


def shown(value: object) -> str:
    """Write a setting as it is typed on the command line; a hash by its first digits."""
    if isinstance(value, str) and value.isprintable():
        return value[:8] if _HASH.fullmatch(value) else value
    return json.dumps(value)


def name_arms(choices: Iterable[Choice]) -> dict[str, Arm]:
    """Return the arm of each identity; if the same selection has several names, the first is used."""
    first: dict[str, Choice] = {}
    for choice in choices:
        first.setdefault(choice.identity, choice)
    arms: dict[str, Arm] = {}
    for strategy in sorted({choice.strategy for choice in first.values()}):
        alike = {identity: choice for identity, choice in first.items() if choice.strategy == strategy}
        texts = differences([choice.parameters for choice in alike.values()])
        for (identity, choice), text in zip(alike.items(), texts, strict=True):
            arms[identity] = Arm(f"{strategy} {text}".rstrip(), strategy, choice.parameters)
    return arms


def label_replicates(seeds: Sequence[tuple[int, Mapping[str, int]]]) -> list[str]:
    """Return labels that distinguish the runs of one arm, so that replicates of different arms pair by label.

    A label is the seed of finetuning and, after a slash, any different seed of the strategy: "0/7". A seed that is the
    same in all runs, such as that of a kernel's sample, distinguishes nothing and is left out.

    Args:
        seeds: of each run: the seed of finetuning, and the others by name.
    """
    moving = [name for name in seeds[0][1] if len({others[name] for _, others in seeds}) > 1]

    def label(seed: int, others: Mapping[str, int]) -> str:
        apart = {name: others[name] for name in moving if others[name] != seed}
        texts = [f"{name}={value}" if len(moving) > 1 else f"{value}" for name, value in apart.items()]
        return "/".join([f"{seed}", *texts])

    return [label(*of_run) for of_run in seeds]
