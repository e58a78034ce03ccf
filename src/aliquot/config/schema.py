"""The typed root of the configuration; its leaves are the plain yaml files in `conf/`.

Hydra composes, and this module checks the root: each unknown setting ends in one message that says what was asked, what
was found and what to do. `aliquot.config.create` checks the groups when it instantiates them.
"""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

_HERE = Path(__file__).parents[1]  # the package
#: The directory that holds conf/, experiments/ and sweeps/: the checkout, or this package when installed from a wheel.
ROOT = _HERE if (_HERE / "conf").is_dir() else _HERE.parents[1]

#: The config groups, in the order of the pipeline.
GROUPS = ("model", "pool", "target", "scorer", "strategy", "annotator", "finetune", "evaluate", "trainer", "tracker")
#: The groups of files that set several groups at once; they add no node of their own.
FILES = ("experiments", "sweeps")
#: What to do instead of removing a part that every run has.
_INSTEAD = {
    "target": "to run without one: target.path=null",
    "annotator": "to stop before it is needed: until=select",
    "finetune": "to stop before it is needed: until=annotate",
    "evaluate": "to stop before it is needed: until=finetune",
    "tracker": "to run without a mirror: tracker=none",
}
#: The unit of a budget in tokens, and those of one in money.
TOKENS = "tokens"
CURRENCIES = ("usd", "eur", "gbp", "chf", "jpy", "cny", "inr", "krw", "brl", "cad", "aud")
#: The error for a setting that has another name now.
WORKERS = "hydra.launcher.jobs is now hydra.launcher.workers, the number of workers of hydra/launcher=local"


class Until(enum.Enum):
    """The stage after which a run stops."""

    score = "score"
    select = "select"
    annotate = "annotate"
    finetune = "finetune"
    evaluate = "evaluate"


@dataclass
class Config:
    """The fields allowed in `conf/config.yaml`. The groups are instantiated into the classes their `_target_` names."""

    budget: str = "45k"
    cost_aware: bool = False
    rounds: Any = 1
    stop_below: float | None = None
    seed: int = 0
    until: Until = Until.evaluate
    check: bool = False
    store: str = "outputs"
    model: Any = MISSING
    pool: Any = MISSING
    target: Any = MISSING
    scorer: Any = MISSING
    strategy: Any = MISSING
    annotator: Any = MISSING
    finetune: Any = MISSING
    evaluate: Any = MISSING
    trainer: Any = MISSING
    tracker: Any = MISSING


ConfigStore.instance().store(name="schema", node=Config)


def check_root(cfg: DictConfig) -> None:
    """Refuse settings that nothing reads, and the removal of settings that every run needs.

    Raises:
        ValueError: such a setting was added (`+name=value`) or removed (`~name`), or is empty.
    """
    known = [field.name for field in fields(Config)]
    for name, value in cast(dict[str, object], OmegaConf.to_container(cfg, resolve=False)).items():
        if name not in (*known, "hydra"):
            meant = did_you_mean(name, (*known, *FILES), f"={as_typed(value)}")
            raise ValueError(
                f"{name}={as_typed(value)}: there is no setting '{name}', so nothing would read it{meant}; the "
                f"settings are {', '.join(known)}, and the files {' and '.join(FILES)}"
            )
    for name in known:
        if name not in cfg or OmegaConf.is_missing(cfg, name):
            instead = _INSTEAD.get(name) or f"leave ~{name} out, or choose another: {name}=..."
            raise ValueError(f"{name} was removed (~{name}?), but every run needs one; {instead}")
    if not cfg.store:
        raise ValueError("store= is empty; name the folder where results live, or leave it out")


def name_target(cfg: DictConfig) -> None:
    """Turn `target: prompts.jsonl` of a file into the settings of a target with this path."""
    if cfg.target is None or isinstance(cfg.target, str):
        node = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(choices_of("target") / "file.yaml")))
        node.pop("defaults")
        with open_dict(cfg):
            cfg.target = node | {"path": cfg.target}


def check_hydra(node: DictConfig) -> None:
    """Refuse Hydra settings that nothing reads, old names, and the one that would change what relative paths mean.

    Args:
        node: the `hydra` node of a composed configuration.

    Raises:
        ValueError: such a setting was given.
    """
    known = [field.name for field in fields(HydraConf)]
    for name in node:
        if name not in (*known, "env"):  # Hydra itself adds env
            meant = did_you_mean(str(name), known)
            raise ValueError(f"hydra.{name}: Hydra has no such setting{meant}; its settings are {', '.join(known)}")
    if "jobs" in node.launcher:
        raise ValueError(WORKERS)
    if node.job.chdir:
        raise ValueError(
            "hydra.job.chdir=true would run in another folder, where store, pool.path and other relative paths mean "
            "something else; leave it out, and set store=FOLDER for where results live"
        )


def choices_of(group: str) -> Path:
    """Return the directory that holds the choices of a group."""
    return ROOT / group if group in FILES else ROOT / "conf" / group


def strategy_name(cfg: DictConfig) -> str:
    """Return the name of the strategy's choice; for a config without one, the name of its class in snake case."""
    kind = str(cfg.strategy._target_).rpartition(".")[2]
    return str(cfg.strategy.get("name") or re.sub(r"(?<!^)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", kind).lower())


def name_strategy(cfg: DictConfig, choice: str) -> None:
    """Name the strategy after its choice on the command line if its file has no name, or inherited that of another."""
    name = cfg.strategy.get("name")
    if name is None or (name != choice and (choices_of("strategy") / f"{name}.yaml").exists()):
        with open_dict(cfg.strategy):
            cfg.strategy.name = choice


def target_of(file: Path) -> str | None:
    """Return the class that a choice names, itself or through the choices of its group that it inherits; else None."""
    node = cast(DictConfig, OmegaConf.load(file))
    if "_target_" in node:
        return str(node._target_)
    names = [name for name in node.get("defaults") or () if isinstance(name, str)]
    parents = [file.parent / f"{name}.yaml" for name in reversed(names) if name != "_self_" and name[0] != "/"]
    return next(filter(None, (target_of(parent) for parent in parents if parent.exists())), None)


def did_you_mean(name: str, known: Iterable[str], ending: str = "") -> str:
    """Return a question that suggests the closest known name, or an empty string where none is close."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}{ending}?" if near else ""


def as_typed(value: object) -> str:
    """Write a value in Hydra's syntax."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


@dataclass(frozen=True)
class Limit:
    """A budget in money or in tokens.

    Args:
        amount: positive.
        unit: "tokens", or a currency of `CURRENCIES`. The currency is a label: prices are in the same one.
    """

    amount: float
    unit: str

    def __str__(self) -> str:
        """Write it as `parse_limit` reads it."""
        return f"{_plain(self.amount)}{'_' if self.in_tokens else ''}{self.unit}"

    @property
    def in_tokens(self) -> bool:
        return self.unit == TOKENS

    def of(self, share: float) -> Limit:
        """Return a share of it."""
        return replace(self, amount=round(self.amount * share, 9))


def parse_limit(text: str) -> Limit | None:
    """Turn `200usd`, `2.5eur` or `500k_tokens` into a limit; None for a budget in prompts.

    Raises:
        ValueError: it begins like such a limit and is none.
    """
    found = re.fullmatch(r"\s*(\S*?)([km]?)[ _]?([a-z]{2,})\s*", text.lower())
    if found is None or not found[1] or not re.search(r"\d", found[1]):
        return None
    number, thousands, unit = found.groups()
    known = (*CURRENCIES, TOKENS)
    if unit not in known:
        meant = did_you_mean(unit, known)
        raise ValueError(
            f"budget={text}: '{unit}' is no unit of a budget{meant}; write a number of prompts (45k, 1234, 50% or "
            f"all), tokens (500k_tokens), or money in {', '.join(CURRENCIES)} (200usd)"
        )
    try:
        amount = _finite(number) * {"": 1, "k": 1e3, "m": 1e6}[thousands]
    except ValueError:
        raise ValueError(f"budget={text}: '{number}' is no number; write 200usd, 2.5eur or 500k_tokens") from None
    if amount <= 0:
        raise ValueError(f"budget={text} buys nothing; give more than 0, such as 200usd, 2.5eur or 500k_tokens")
    if unit == TOKENS and amount != int(amount):
        raise ValueError(f"budget={text} is not a whole number of tokens; write {math.ceil(amount)}_tokens")
    return Limit(amount, unit)


def _plain(amount: float) -> str:
    """Write a number without an exponent and without zeros at its end."""
    return f"{amount:.9f}".rstrip("0").rstrip(".")


def parse_budget(text: str, num_prompts: int, pool: str) -> int:
    """Turn `45k`, `1234`, `50%` or `all` into a number of prompts.

    Raises:
        ValueError: it is none of these, or is outside 1..num_prompts.
    """
    try:
        budget = _budget_number(text.strip().lower(), num_prompts)
    except ValueError:
        raise ValueError(
            f"budget={text} is not a number of prompts; write 45k, 1234, 50% or all, or a budget in money or tokens "
            "(200usd, 500k_tokens)"
        ) from None
    if budget < 1:
        raise ValueError(f"budget={text} selects {budget} prompts; give 1 or more, such as 45k, 50% or all")
    if budget > num_prompts:
        raise ValueError(
            f"budget {budget} exceeds the {num_prompts} prompts of pool '{pool}'; lower budget, or use budget=all"
        )
    return budget


def _budget_number(text: str, num_prompts: int) -> int:
    if text == "all":
        return num_prompts
    if text.endswith("%"):
        return round(_finite(text[:-1]) / 100 * num_prompts)
    number = _finite(text[:-1]) * 1000 if text.endswith("k") else _finite(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


def _finite(text: str) -> float:
    if not text.replace(".", "", 1).removeprefix("-").isdigit():  # float() would also accept nan, inf and 1_000
        raise ValueError(text)
    return round(float(text), 9)
