"""Instantiate the groups of the configuration: each unknown field or wrong type ends in one message."""

from __future__ import annotations

import pkgutil
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING as REQUIRED
from dataclasses import fields, is_dataclass
from typing import Any, cast

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from aliquot.config.quoting import typed
from aliquot.config.schema import ROOT, as_typed, choices_of, did_you_mean

#: Fields that name files or directories.
_PATHS = ("path", "folder", "include", "data")
#: The objects that `create` has made, by request; all of them are frozen.
_CREATED: dict[str, Any] = {}


def create(cfg: DictConfig, group: str) -> Any:
    """Instantiate one group of the config.

    Raises:
        ValueError: as `make`; or a field has no value, or a strategy has a field called `name`.
    """
    missing = sorted(OmegaConf.missing_keys(cfg[group]))
    if missing:
        raise ValueError(f"{group} needs {', '.join(missing)}; set it on the command line")
    node = cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True))
    if group == "strategy":
        _drop_name(node)
    return make(node, group)


def make(node: dict[str, Any], where: str) -> Any:
    """Instantiate what a plain dict describes. Equal dicts share one object: a sweep has hundreds of them.

    Only classes of this package are instantiated: a config file from elsewhere cannot name any other.

    Args:
        node: fields by name, and the class as `_target_`.
        where: the path of the node in the config, for errors.

    Raises:
        ValueError: a target outside `aliquot.`, or a field that is missing, unknown, of the wrong type, or refused.
    """
    from hydra.utils import instantiate

    asked = f"{where}={node}"
    if asked in _CREATED:
        return _CREATED[asked]
    _check(node, where)
    try:
        return _CREATED.setdefault(asked, instantiate(node, _convert_="all"))
    except InstantiationException as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, (ValueError, TypeError)):
            raise
        raise ValueError(f"{where}: {cause or error}") from error


def _drop_name(node: dict[str, Any]) -> None:
    """Remove the name of the choice (`strategy_name`), which is no field of the class."""
    target = _target(str(node["_target_"]), "strategy")
    if is_dataclass(target) and any(field.name == "name" for field in fields(target)):
        raise ValueError(
            f"{node['_target_']} has a field 'name', and strategy.name is the name of the choice; give it another name"
        )
    node.pop("name", None)


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
