"""The typed root of the configuration; its leaves are the plain yaml files in `conf/`.

Hydra composes, and this module checks: each unknown field, wrong type or unknown choice ends in one message that says
what was asked, what was found and what to do.
"""

from __future__ import annotations

import difflib
import enum
import pkgutil
import re
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import MISSING as REQUIRED
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from aliquot.config.quoting import typed

_HERE = Path(__file__).parents[1]  # the package
#: The directory that holds conf/, experiments/ and sweeps/: the checkout, or this package when installed from a wheel.
ROOT = _HERE if (_HERE / "conf").is_dir() else _HERE.parents[1]

#: The config groups, in the order of the pipeline.
GROUPS = ("model", "pool", "scorer", "strategy", "annotator", "finetune", "evaluate", "trainer", "tracker")
#: The groups of files that set several groups at once; they add no node of their own.
FILES = ("experiments", "sweeps")
#: What to do instead of removing a part that every run has.
_INSTEAD = {
    "annotator": "to stop before it is needed: until=select",
    "finetune": "to stop before it is needed: until=annotate",
    "evaluate": "to stop before it is needed: until=finetune",
    "tracker": "to run without a mirror: tracker=none",
}
#: The error for a setting that has another name now.
WORKERS = "hydra.launcher.jobs is now hydra.launcher.workers, the number of workers of hydra/launcher=local"
#: Fields that name files or directories.
_PATHS = ("path", "folder", "include", "data")
#: The objects that `create` has made, by request; all of them are frozen.
_CREATED: dict[str, Any] = {}


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
    seed: int = 0
    until: Until = Until.evaluate
    check: bool = False
    store: str = "outputs"
    model: Any = MISSING
    pool: Any = MISSING
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
            raise ValueError(f"{name} is gone (~{name}?), and every run has one; {instead}")
    if not cfg.store:
        raise ValueError("store= is empty; name the folder where results live, or leave it out")


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


def parse_budget(text: str, num_prompts: int, pool: str) -> int:
    """Turn `45k`, `1234`, `50%` or `all` into a number of prompts.

    Raises:
        ValueError: it is none of these, or is outside 1..num_prompts.
    """
    try:
        budget = _budget_number(text.strip().lower(), num_prompts)
    except ValueError:
        raise ValueError(f"budget={text} is not a number of prompts; write 45k, 1234, 50% or all") from None
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


def create(cfg: DictConfig, group: str) -> Any:
    """Instantiate one group of the config. Equal configs share one object: a sweep has hundreds of them.

    Only classes of this package are instantiated: a config file from elsewhere cannot name any other.

    Raises:
        ValueError: a target outside `aliquot.`, or a field that is missing, unknown, of the wrong type, or refused.
    """
    from hydra.utils import instantiate

    missing = sorted(OmegaConf.missing_keys(cfg[group]))
    if missing:
        raise ValueError(f"{group} needs {', '.join(missing)}; set it on the command line")
    node = cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True))
    if group == "strategy":
        node.pop("name", None)  # of the choice (`strategy_name`), and no field of its class
    asked = f"{group}={node}"
    if asked in _CREATED:
        return _CREATED[asked]
    _check(node, group)
    try:
        return _CREATED.setdefault(asked, instantiate(node, _convert_="all"))
    except InstantiationException as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, (ValueError, TypeError)):
            raise
        raise ValueError(f"{group}: {cause or error}") from error


def _check(node: object, where: str) -> None:
    """Refuse targets outside this package, and fields whose type is not the one that their class declares."""
    if isinstance(node, list):
        for value in cast(list[object], node):
            _check(value, where)
    if not isinstance(node, dict):
        return
    values = cast(dict[str, object], node)
    target = _target(str(values["_target_"]), where) if "_target_" in values else None
    if target is not None and is_dataclass(target):
        _check_names(values, target, where)
    hints = typing.get_type_hints(target) if target else {}
    for name, value in values.items():
        hint = hints.get(name)
        allowed = _plain_types(hint)
        if allowed and type(value) not in allowed:
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
            remedy = (
                ""
                if value is None or str not in allowed
                else f"; to mean the text, type {typed(f'{where}.{name}', as_typed(value))}"
            )
            raise ValueError(f"{where}.{name}={as_typed(value)} is {type(value).__name__}; it must be {wanted}{remedy}")
        if name in _PATHS and value == "":
            raise ValueError(f"{where}.{name}= is empty; name a file or folder: {where}.{name}=...")
        part, may_be_null = _part(hint), type(None) in _options(hint)
        if part and not isinstance(value, dict) and not (value is None and may_be_null):
            ways = _ways(part, may_be_null, where, name)
            raise ValueError(f"{where}.{name}={value} is one value, and has settings of its own: {ways}")
        if typing.get_origin(hint) is Sequence and isinstance(value, str):
            raise ValueError(f"{where}.{name}={value} is one value; it must be a list: {where}.{name}=[{value}]")
        _check(value, f"{where}.{name}")


def _check_names(values: dict[str, object], target: type, where: str) -> None:
    """Refuse names that are not fields of the class, and fields that have no value."""
    known = [field.name for field in fields(target) if field.init]
    for name, value in values.items():
        if name not in (*known, "_target_"):
            raise ValueError(
                f"{where}.{name}={as_typed(value)}: {target.__name__} has no field '{name}'"
                f"{did_you_mean(name, known)}; its fields are {', '.join(known) or 'none'}"
            )
    for field in fields(target):
        if field.init and field.default is REQUIRED and field.default_factory is REQUIRED and field.name not in values:
            raise ValueError(f"{where}.{field.name} has no value, and {target.__name__} needs one; set it")


def as_typed(value: object) -> str:
    """Write a value in Hydra's syntax."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _target(name: str, where: str) -> type:
    """Return the class of this package that a `_target_` names."""
    if not name.startswith("aliquot."):
        raise ValueError(f"{where}._target_={name} is not part of aliquot; only aliquot.* is instantiated")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        if moved := _targets_named(name.rpartition(".")[2]):
            raise ValueError(f"{where}._target_={name} has moved: write _target_: {moved[0]}") from error
        raise ValueError(f"{where}._target_={name} cannot be imported: {error}") from error
    if not isinstance(target, type) or not target.__module__.startswith("aliquot."):
        raise ValueError(f"{where}._target_={name} is not a class of aliquot's own; name one")
    return target


def _part(hint: object) -> type | None:
    """Return the aliquot class that a type hint names, which has a config of its own."""
    ours = (o for o in _options(hint) if isinstance(o, type) and o.__module__.startswith("aliquot."))
    return next(ours, None)


def _ways(part: type, may_be_null: bool, where: str, name: str) -> str:
    """Say how to set a part of a config: by a choice of its group, or by its fields."""
    group = f"{where}.{name}".replace(".", "/")
    ways = [f"{group}={file.stem}" for file in sorted(choices_of(group).glob("*.yaml"))]
    if choices_of(group).with_suffix(".yaml").exists():
        ways.append(f"{where}={name}")
    if is_dataclass(part) and not may_be_null:  # where the part is null, it has no fields yet
        ways += [f"{where}.{name}.{field.name}=..." for field in fields(part)]
    return f"write {', '.join(ways[:-1])}{' or ' if len(ways) > 1 else ''}{ways[-1]}"


def _options(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _plain_types(hint: object) -> tuple[type, ...]:
    """Return the plain types that a hint allows; empty where the hint also allows other types."""
    options = _options(hint)
    plain = {int: (int,), float: (float, int), str: (str,), bool: (bool,), type(None): (type(None),)}
    if not all(isinstance(option, type) and option in plain for option in options):
        return ()
    return tuple(dict.fromkeys(t for option in options for t in plain[cast(type, option)]))


def _targets_named(kind: str) -> list[str]:
    """Return the targets with this class name in the configs that aliquot ships."""
    pattern = re.compile(rf"_target_: (aliquot\S+\.{re.escape(kind)})$", re.MULTILINE)
    files = sorted((ROOT / "conf").rglob("*.yaml"))
    return [found for file in files for found in pattern.findall(file.read_text(encoding="utf-8"))]
