"""How a key names a class: one that is as aliquot ships it by its name and version, any other by its code as well.

`shipped.json` lists what is shipped: the classes that may stand in a key, with their versions, and hashes of the code
that decides what they do. A class that is not listed, or whose code or version is no longer as listed, is named by its
code as well: an added or edited strategy never gets the results of the code before it.

    python -m aliquot.shipped

writes the table anew, after a change of the code that is to be shipped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pkgutil
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aliquot.source_code import code_hashes

TABLE = Path(__file__).with_name("shipped.json")
#: Packages and modules that strategies are made of: of these the code counts wherever a listed class imports it.
_SELECTION = ("strategies", "greedy", "kernels", "features", "clustering", "uncertainty")
#: The groups whose classes have all their own code watched, and those where the version of a stage speaks for the code.
_WATCHED, _NAMED = ("strategy", "annotator", "evaluate"), ("model", "pool", "scorer", "finetune")
#: A class that no config names, but a key does.
_FURTHER = ("aliquot.pools.fields.Columns",)


def named(kind: type) -> dict[str, object]:
    """Return what stands for a class in a key: name and version (1 where it has none) and, unless shipped, its code.

    The name says nothing of the module, so that code can move.

    Raises:
        ValueError: the class is not shipped, and is in no file.
    """
    return dict(_named(kind))


def code(kind: type) -> dict[str, str]:
    """Return module -> hash of the code that the results of a class depend on.

    The modules of aliquot that all strategies share (pools, scores, progress, the store, ...) do not count: the
    versions of the stages speak for them.
    """
    hashes, apart = code_hashes(kind, _counts), _table()["apart"]
    return {module: found for module, found in hashes.items() if module not in apart or _is_watched(module)}


@functools.cache
def _named(kind: type) -> dict[str, object]:
    version = getattr(kind, "version", 1)
    name: dict[str, object] = {"type": kind.__qualname__, "version": version}
    listed = _table()["classes"].get(f"{kind.__module__}.{kind.__qualname__}")
    if listed == version and code(kind).items() <= _table()["modules"].items():
        return name
    return name | {"code": hashlib.sha256(json.dumps(code(kind)).encode()).hexdigest()[:16]}


def _counts(module: str) -> bool:
    """Tell whether a module's code counts wherever it is imported: what aliquot has besides strategies does not."""
    return module not in _table()["apart"]


def _is_watched(module: str) -> bool:
    return module in _table()["modules"]


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def make_table() -> dict[str, Any]:
    """Return what `shipped.json` should hold: the classes that configs name, and the code of those that are watched."""
    import aliquot

    modules = [found.name for found in pkgutil.walk_packages(aliquot.__path__, "aliquot.")]
    inside = tuple(f"aliquot.{name}" for name in _SELECTION)
    apart = ["aliquot", *(name for name in modules if not name.startswith(inside))]
    watched, others = _classes(_WATCHED), [*_classes(_NAMED), *map(pkgutil.resolve_name, _FURTHER)]
    codes: dict[str, str] = {}
    for kind in watched:
        codes |= code_hashes(kind, lambda module: module not in apart)
    versions = {f"{kind.__module__}.{kind.__qualname__}": getattr(kind, "version", 1) for kind in {*watched, *others}}
    return {"classes": dict(sorted(versions.items())), "modules": dict(sorted(codes.items())), "apart": sorted(apart)}


def _classes(groups: Iterable[str]) -> Sequence[type]:
    """Return the classes that the configs of these groups name."""
    from aliquot.config import ROOT

    files = (file for group in groups for file in sorted((ROOT / "conf" / group).rglob("*.yaml")))
    names = {name for file in files for name in re.findall(r"_target_: *(aliquot\.[\w.]+)", file.read_text())}
    return [pkgutil.resolve_name(name) for name in sorted(names)]


def main() -> None:
    """Write the table, and say which classes have other code under the same version."""
    old, new = _table(), make_table()
    TABLE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    changed = {name for name, found in new["modules"].items() if old["modules"].get(name, found) != found}
    for kind in _classes(_WATCHED):
        name = f"{kind.__module__}.{kind.__qualname__}"
        if old["classes"].get(name) == new["classes"][name] and (moved := changed & code_hashes(kind, _counts).keys()):
            print(f"{name}: still version {new['classes'][name]}, changed code in {', '.join(sorted(moved))}")
    print(f"{TABLE.name} is written. Where results change, raise the version of the class and give the command again.")


if __name__ == "__main__":
    main()
