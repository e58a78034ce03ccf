"""Which code, on which machine, produced a result."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from aliquot.store.content import content_hash

_LIBRARIES = ("aliquot", "torch", "transformers", "peft", "pytorch-lightning", "lm-eval", "numpy", "numba")
#: Libraries whose releases may change a result that is not computed again.
_MAJOR = ("torch", "transformers", "peft")


def provenance() -> dict[str, Any]:
    """Return time, host, versions and, inside a checkout, the git commit and whether files differ from it."""
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "libraries": versions(),
        **_git(),
    }


def environment() -> dict[str, Any]:
    """Return what determines how a stage is computed: a hash of our code, Python, and the libraries' versions."""
    folder = Path(__file__).parents[1]
    lines = [f"{file.relative_to(folder)}\0{content_hash(file)}" for file in sorted(folder.rglob("*.py"))]
    code = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return {"code": code, "python": platform.python_version(), "libraries": versions()}


def of_other_libraries(record: Mapping[str, Any]) -> str | None:
    """Name the libraries whose major version differs between a stage's build and now; None if there is none.

    Those are torch, transformers and peft. Before 1.0, the second number counts as the major version.
    """
    then, here = record.get("libraries", {}), versions()
    other = [name for name in _MAJOR if name in then and _major(then[name]) != _major(here[name])]
    return ", ".join(f"{name} {then[name]} (here {here[name]})" for name in other) or None


def _major(version: str) -> list[str]:
    numbers = version.split(".")
    return numbers[:2] if numbers[0] == "0" else numbers[:1]


def reset_peak_memory() -> None:
    """Make `peak_memory_gb` count from now on, if the system supports it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gb() -> float:
    """Return the largest resident memory of this process since the reset, in GB (10^9 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(peak.split()[1]) * 1024 / 1e9, 2)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, other systems kibibytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


@functools.cache
def versions(libraries: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """Return the versions of libraries, by name; nothing is imported."""
    return {name: metadata.version(name) for name in libraries}


@functools.cache
def _git() -> dict[str, Any]:
    """Ask git about the checkout that this package was imported from; an installed wheel has no commit."""
    here = Path(__file__).parent
    try:
        _run_git(here, "ls-files", "--error-unmatch", __file__)  # fails for a wheel inside another checkout
        commit = _run_git(here, "rev-parse", "HEAD")
        dirty = bool(_run_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": dirty}


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
