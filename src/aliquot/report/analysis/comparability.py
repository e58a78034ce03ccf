"""What makes two runs comparable and what distinguishes them: from records of stages to arms and replicates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aliquot.config.schema import parse_limit
from aliquot.experiment.arm import USES_RESPONSE, ArmSettings, Record, marked, shown, version_of, without
from aliquot.report.analysis.study import Arm


def setting_of(evaluate: Record, finetune: Record, annotate: Record, select: Record) -> dict[str, Any]:
    """Return the settings that must be equal in two runs for them to be compared.

    These are all that their stages depend on, except the strategy, the scorer, the budget and the finetuning seed.
    Budgets in prompts, in tokens, and in money at different prices are not compared with one another.
    """
    pool = select["fields"]["pool"]
    fields = {
        "model": finetune["fields"]["model"],
        "pool": {"digest": pool.get("digest") or pool["key"]},
        **without(annotate, "select", "budget", "digest", "before"),
        **without(finetune, "annotate", "model", "recipe"),
        "finetune": {name: value for name, value in finetune["fields"]["recipe"].items() if name != "seed"},
        **without(evaluate, "finetune", "model"),
    }
    if terms := select["fields"].get("terms"):
        limit = parse_limit(terms["limit"])
        assert limit is not None
        fields |= {"budget_in": limit.unit, **{name: terms[name] for name in ("tariff",) if name in terms}}
    for stage in (select, annotate, finetune, evaluate):
        fields |= version_of(stage)
    return fields


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


def name_arms(every: Iterable[ArmSettings]) -> dict[str, Arm]:
    """Return the arm of each identity; if the same selection has several names, the first is used."""
    first: dict[str, ArmSettings] = {}
    for settings in every:
        first.setdefault(settings.identity, settings)
    arms: dict[str, Arm] = {}
    for strategy in sorted({settings.strategy for settings in first.values()}):
        alike = {identity: settings for identity, settings in first.items() if settings.strategy == strategy}
        texts = differences([settings.parameters for settings in alike.values()])
        for (identity, settings), text in zip(alike.items(), texts, strict=True):
            name = marked(strategy, settings.parameters.get(USES_RESPONSE))
            arms[identity] = Arm(f"{name} {text}".rstrip(), strategy, settings.parameters)
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
