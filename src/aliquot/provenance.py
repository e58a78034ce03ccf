"""Which code, on which machine, made a result."""

from __future__ import annotations

import functools
import platform
import resource
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = ("aliquot", "torch", "transformers", "peft", "pytorch-lightning", "lm-eval", "numpy", "numba")


def provenance() -> dict[str, Any]:
    """Return time, host, versions and, inside a checkout, the git commit and whether files differ from it."""
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "libraries": _versions(),
        **_git(),
    }


def peak_memory_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


@functools.cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _LIBRARIES}


@functools.cache
def _git() -> dict[str, Any]:
    """Ask git about the folder this package was imported from; an installed wheel has no commit."""
    here = Path(__file__).parent
    try:
        commit = _run_git(here, "rev-parse", "HEAD")
        dirty = bool(_run_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": dirty}


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
