"""How a key names a class: one that aliquot ships unchanged by name and version, any other also by its code.

`shipped.json` lists what is shipped: the classes that may stand in a key, with their versions, and hashes of the code
that determines what the watched ones do. A class that is not listed, or whose code or version has changed since, is
also named by its code: an added or edited strategy never gets the results of earlier code.

    python -m aliquot.store.shipped

writes the table again, after a change of the code to be shipped. It refuses if a class has new code under its old
version, unless `--same-results` says that the results are the same, for all classes or for the named ones.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.resources
import json
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aliquot.store.source_code import code_hashes

TABLE = Path(__file__).with_name("shipped.json")
#: What all strategies, annotators and benchmarks share; the versions of the stages cover it. All other code counts.
_SHARED = (
    *("finetuning.adapter", "finetuning.run", "finetuning.examples", "models.hub", "models.spec", "store.lease"),
    *("pools", "pools.spec", "pools.columns", "pools.conversations", "pools.rows", "pools.files", "pools.jsonl"),
    *("pools.record", "runtime.processes", "runtime.progress", "runtime.trainer", "scoring.run", "scoring.spec"),
    *("scoring.module", "finetuning.recipe", "runtime.logs", "runtime.signals", "runtime.terminal"),
    *("store.content", "store.store", "stages", "types", "evaluation.harness.quiet"),
    *("annotation", "evaluation", "evaluation.harness", "finetuning", "models", "runtime", "scoring", "selection"),
    *("selection.strategies", "store"),
)
#: The groups of configs whose classes have their code watched, and those covered by the version of a stage.
_WATCHED, _NAMED = ("strategy", "annotator", "evaluate"), ("model", "pool", "target", "scorer", "finetune")
#: A class that appears in a key but in no config.
_FURTHER = ("aliquot.pools.columns.Columns",)


def named(kind: type) -> dict[str, object]:
    """Return what stands for a class in a key: name and version (1 if it has none) and, unless shipped, its code.

    The name does not include the module, so that code can move.

    Raises:
        ValueError: the class is not shipped, and is not in a Python file of its own.
    """
    return dict(_named(kind))


def code(kind: type) -> dict[str, str]:
    """Return module -> hash of the code that the results of a class depend on: its own, and its unshared imports.

    The code of the class itself and of its bases always counts.
    """
    return code_hashes(kind, _counts)


@functools.cache
def _named(kind: type) -> dict[str, object]:
    version, table, full = getattr(kind, "version", 1), _table(), _full_name(kind)
    name: dict[str, object] = {"type": kind.__qualname__, "version": version}
    if table["named"].get(full) == version:
        return name
    found = code(kind)
    if table["watched"].get(full) == version and found.items() <= table["modules"].items():
        return name  # also if only compiled files are installed
    if not found:
        raise ValueError(
            f"class {kind.__qualname__} of module {kind.__module__} is in no Python file of its own, so a change of "
            "its code would go unnoticed and old results would come back; write it into a .py file and import it"
        )
    return name | {"code": hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]}


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _counts(module: str) -> bool:
    """Tell whether a module's code counts wherever it is imported."""
    package, _, inside = module.partition(".")
    return package != "aliquot" or inside not in ("", *_SHARED)


@functools.cache
def _table() -> Mapping[str, Any]:
    """Return the table of what is shipped.

    Raises:
        ValueError: the table does not exist, or is damaged.
    """
    try:
        table = json.loads(importlib.resources.files("aliquot.store").joinpath(TABLE.name).read_text(encoding="utf-8"))
        if not all(isinstance(table.get(part), dict) for part in ("watched", "named", "modules")):
            raise ValueError("it lacks a part")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{TABLE} cannot be read ({error}); write it anew: python -m aliquot.store.shipped") from error
    return table


def make_table() -> dict[str, dict[str, Any]]:
    """Return what `shipped.json` should hold: the classes that configs name, and the code of the watched ones."""
    watched = _classes(_WATCHED)
    others = {*_classes(_NAMED), *map(pkgutil.resolve_name, _FURTHER)} - {*watched}
    codes = {module: found for kind in watched for module, found in code(kind).items()}
    return {"watched": _versions(watched), "named": _versions(others), "modules": dict(sorted(codes.items()))}


def _versions(kinds: Iterable[type]) -> dict[str, int]:
    return dict(sorted((_full_name(kind), getattr(kind, "version", 1)) for kind in kinds))


def _classes(groups: Iterable[str]) -> Sequence[type]:
    """Return the classes that the configs of these groups name."""
    from aliquot.config.schema import choices_of

    files = (file for group in groups for file in sorted(choices_of(group).rglob("*.yaml")))
    names = {name for file in files for name in re.findall(r"_target_: *(aliquot\.[\w.]+)", file.read_text())}
    return [pkgutil.resolve_name(name) for name in sorted(names)]


def changed(old: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return class -> modules whose code differs from that of an older table although the version is the same.

    A class that moved is still the same, because keys do not include its location.
    """
    versions = {name.rpartition(".")[2]: version for name, version in old["watched"].items()}
    found: dict[str, list[str]] = {}
    for kind in _classes(_WATCHED):
        moved = [module for module, now in code(kind).items() if old["modules"].get(module) != now]
        if moved and versions.get(kind.__qualname__) == getattr(kind, "version", 1):
            found[kind.__qualname__] = moved
    return found


def main() -> None:
    """Write the table, unless a class has new code under the same version and the user did not pass --same-results."""
    parser = argparse.ArgumentParser(
        prog="python -m aliquot.store.shipped", description="Write the table of what is shipped."
    )
    parser.add_argument(
        "--same-results",
        nargs="*",
        metavar="CLASS",
        help="accept changed code under the same version, of these classes or, without any, of all",
    )
    accepted: list[str] | None = parser.parse_args().same_results
    try:
        found = changed(_table())
    except ValueError as error:
        print(f"Nothing is compared: {error}")
        found = {}
    if unknown := sorted({*(accepted or ())} - found.keys()):
        raise SystemExit(f"--same-results {' '.join(unknown)}: only {', '.join(found) or 'no class'} has changed code")
    refused = {name: moved for name, moved in found.items() if accepted is None or (accepted and name not in accepted)}
    for name, moved in refused.items():
        print(f"{name}: changed code in {', '.join(moved)}")
    if refused:
        raise SystemExit(
            f"{len(refused)} classes have other code under the same version, and {TABLE.name} stays as it was. Where "
            f"results change, raise `version` of the class; for the others: --same-results {' '.join(refused)}"
        )
    TABLE.write_text(json.dumps(make_table(), indent=1) + "\n", encoding="utf-8")
    print(f"{TABLE.name} is written.")


if __name__ == "__main__":
    main()
