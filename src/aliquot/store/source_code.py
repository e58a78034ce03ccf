"""The code of a class: the modules that it depends on, without comments, docstrings and layout.

These are the modules of the class and its bases, and in turn the modules that these import. For a class of aliquot,
only modules of aliquot count. For any other class, modules of aliquot, of its own package, and of files next to that
package count, unless they were installed there. Modules are found by their files: nothing is imported.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

#: Directories of installed packages; one given to pip (`--target`) is recognized by the records of the packages in it.
_INSTALLED, _RECORDS = ("site-packages", "dist-packages"), "*.dist-info"


def code_hashes(kind: type, follow: Callable[[str], bool]) -> dict[str, str]:
    """Return module -> hash of its code, for each module that the class depends on.

    Args:
        kind: the class.
        follow: tells whether an imported module counts, given its name.

    Returns:
        Empty if the class is not in a Python file of its own: it was typed into an interpreter, belongs to Python's own
        library, or is in an archive or in compiled files only.
    """
    own = _name_of(kind)
    if own.partition(".")[0] in sys.stdlib_module_names or _find(own) is None:
        return {}
    waiting = [own, *(base.__module__ for base in kind.__mro__ if _is_near(base.__module__, own))]
    files: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name not in files and (file := _find(name)) is not None:
            files[name] = file
            waiting += [found for found in _imports(file, name) if _is_near(found, own) and follow(found)]
    return {name: code_hash(file) for name, file in sorted(files.items())}


def _name_of(kind: type) -> str:
    """Return the name of the module of a class, also for the script that Python was started with, here or elsewhere."""
    if kind.__module__ not in ("__main__", "__mp_main__"):
        return kind.__module__
    return getattr(sys.modules[kind.__module__].__spec__, "name", "__main__")


@functools.cache
def _is_near(name: str, own: str) -> bool:
    """Tell whether the code of a module can count for a class in module `own`."""
    top, home = name.partition(".")[0], own.partition(".")[0]
    if top == "aliquot" or home == "aliquot":
        return top == "aliquot"
    folder = _folder(home)
    return top == home or (folder is not None and folder == _folder(top) and not _is_installed(folder))


def _is_installed(folder: Path) -> bool:
    return folder.name in _INSTALLED or any(folder.glob(_RECORDS))


@functools.cache
def code_hash(file: Path) -> str:
    """Return a hash of the code in a Python file, 16 hexadecimal digits: the same in every version of Python."""
    return hashlib.sha256("\n".join(_shape(_parsed(file))).encode()).hexdigest()[:16]


def _shape(tree: ast.AST) -> Iterator[str]:
    """Yield a syntax tree level by level, because it may be deeper than the recursion limit.

    Empty parts are left out: versions of Python differ in the empty parts that they add.
    """
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            parts = _parts(node, value)
            if parts:
                yield f"{name} {len(parts)}"
            for part in parts:
                yield "" if isinstance(part, ast.AST) else repr(part)
            waiting += [part for part in parts if isinstance(part, ast.AST)]


def _parts(node: ast.AST, value: object) -> list[object]:
    """Return the content of a field of a node, without parts that have no effect."""
    if not isinstance(value, list):
        return [] if value is None else [value]
    parts = cast(list[object], value)
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends a format with an empty text
        return [part for part in parts if getattr(part, "value", None) != ""]
    return [part for part in parts if not _does_nothing(part)]


def _does_nothing(part: object) -> bool:
    """Tell whether a part of a list is a docstring or another constant on its own."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


@functools.cache
def _imports(file: Path, name: str) -> tuple[str, ...]:
    """Return the full names that a module imports anywhere; each may be a module or something inside one."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            found += [parent for alias in node.names for parent in _parents(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            found += [*_parents(module), *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(found))


def _parents(name: str) -> Iterator[str]:
    """Yield a.b.c, a.b and a: Python also runs the packages around a module."""
    while name:
        yield name
        name = name.rpartition(".")[0]


@functools.cache
def _find(name: str) -> Path | None:
    """Return the file of a module; None if it has none that can be read as Python."""
    if loaded := getattr(sys.modules.get(name), "__file__", None):
        return Path(loaded) if loaded.endswith(".py") and Path(loaded).is_file() else None
    top, _, inside = name.partition(".")
    places = [folder.joinpath(*inside.split(".")) if inside else folder for folder in _places(top)]
    files = (file for place in places for file in (place / "__init__.py", place.with_suffix(".py")))
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _folder(top: str) -> Path | None:
    """Return the directory that holds a top-level package or module; None if it is not in a file."""
    return next((place.resolve().parent for place in _places(top)), None)


@functools.cache
def _places(top: str) -> Sequence[Path]:
    """Return the locations of a package, which may be in parts, or of a top-level module, without its suffix."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module created by hand has no spec
        made = getattr(sys.modules.get(top), "__file__", None)
        return [Path(made).with_suffix("")] if made else []
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        return []
    return [*map(Path, spec.submodule_search_locations or [str(Path(str(spec.origin)).with_suffix(""))])]
