"""What the code of a class is: the modules that it depends on, without comments, docstrings and layout.

Those are the modules of the class and its bases, and what these import in turn of the same package, or of any code that
lies outside Python's own library and the installed packages. They are found by their files: nothing is imported.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
#: Where code lies that others release: a key does not look into it.
_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in _PATHS)


def code_hashes(kind: type, follow: Callable[[str], bool]) -> dict[str, str]:
    """Return module -> hash of its code, for each module that the class depends on.

    Args:
        kind: the class.
        follow: tells of the name of a module that is imported whether it counts.

    Raises:
        ValueError: the class is in no file, such as one that was typed into an interpreter.
    """
    own = kind.__module__.partition(".")[0]
    bases = [base.__module__ for base in kind.__mro__]
    waiting = [name for name in bases if name == kind.__module__ or _find(name, own)]
    files: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        file = _find(name, own)
        if file is None:
            raise ValueError(
                f"class {kind.__qualname__} of module {name} is in no Python file, so a change of its code would go "
                "unnoticed and old results would come back; move it into a .py file and import it from there"
            )
        files[name] = file
        imported = (found for found in _imports(file, name) if found not in files and _find(found, own))
        waiting += [found for found in imported if follow(found)]
    return {name: code_hash(file) for name, file in sorted(files.items())}


@functools.cache
def code_hash(file: Path) -> str:
    """Return a hash of the code in a Python file, 16 hexadecimal digits: the same under every version of Python."""
    return hashlib.sha256(_shape(_parsed(file)).encode()).hexdigest()[:16]


def _shape(node: object) -> str:
    """Write a syntax tree as text, without what is empty: versions of Python differ in the empty parts they add."""
    if isinstance(node, ast.JoinedStr):  # 3.12 ends a format with an empty text
        return f"f({','.join(_shape(part) for part in node.values if getattr(part, 'value', None) != '')})"
    if isinstance(node, ast.AST):
        fields = ((name, _shape(value)) for name, value in ast.iter_fields(node) if value is not None)
        return f"{type(node).__name__}({','.join(f'{name}={text}' for name, text in fields if text != '[]')})"
    if isinstance(node, list):
        return f"[{','.join(_shape(part) for part in cast(list[object], node) if not _does_nothing(part))}]"
    return repr(node)


def _does_nothing(part: object) -> bool:
    """Tell whether a part of a list is a docstring or another constant that stands alone."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


@functools.cache
def _imports(file: Path, name: str) -> tuple[str, ...]:
    """Return the full names that a module imports, anywhere in it, each of which may be a module or what is in one."""
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
    """Yield a.b.c, a.b and a: Python runs the packages around a module too."""
    while name:
        yield name
        name = name.rpartition(".")[0]


@functools.cache
def _find(name: str, own: str) -> Path | None:
    """Return the file of a module; None where it has none or is installed, unless it belongs to the package `own`."""
    top, _, inside = name.partition(".")
    folder = _folder(top)
    if top not in (own, "aliquot") and (folder is None or any(map(folder.resolve().is_relative_to, _INSTALLED))):
        return None
    if loaded := getattr(sys.modules.get(name), "__file__", None):
        return Path(loaded) if loaded.endswith(".py") else None
    if folder is None:
        return None
    place = folder.joinpath(top, *inside.split(".")) if inside else folder / top
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


@functools.cache
def _folder(top: str) -> Path | None:
    """Return the folder that holds a package, or a module that is in none; None where it is in no file."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module that was made by hand has no spec
        return None
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        return None
    return Path(next(iter(spec.submodule_search_locations or [str(spec.origin)]))).parent
