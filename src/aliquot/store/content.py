"""Where files are located, and what identifies them.

A path in a config is an ordinary path (`~` and relative paths allowed) or `pkg://package/inside`, a file or directory
shipped inside an installed package. A stage's key names its inputs by content, never by their location.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

_PACKAGE = "pkg://"


def locate(path: str) -> Path:
    """Return the file or directory that `path` names; it need not exist.

    Raises:
        ValueError: `pkg://` names a package that is not installed.
    """
    if not path.startswith(_PACKAGE):
        try:
            return Path(path).expanduser().absolute()
        except RuntimeError:  # not a user of this machine: the name of the file itself begins with ~
            return Path(path).absolute()
    package, _, inside = path.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{path}: package '{package}' is not installed; give a path, or pkg://aliquot.demo/...")
    return Path(spec.submodule_search_locations[0]) / inside


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files below a directory."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        relative = "" if file == path else file.relative_to(path).as_posix()
        if "__pycache__" in relative:
            continue
        stat = file.stat()
        digest.update(f"{relative}\0{_file_hash(str(file), stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@functools.cache
def _file_hash(path: str, size: int, modified_ns: int) -> str:
    """Hash one file; a second call with the same size and time is answered from memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
