"""Whether the nodes of a cluster see the store, as far as the submitting machine can tell."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from aliquot.launch.slurm_queue import node_names

_MOUNTS = Path("/proc/self/mounts")
_LOCAL_TYPES = ("tmpfs", "ramfs", "overlay")
_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # local regardless of what is mounted there
#: The end of a message about a store that nodes do not see.
REMEDY = "the store must be on a file system that all nodes see: give store=FOLDER, or ALIQUOT_STORE, on one"


def doubt(root: Path) -> str | None:
    """Return why nodes may not see a directory, which need not exist yet; None if nothing here suggests that."""
    kind = file_system(root)
    folder = next((folder for folder in _LOCAL_FOLDERS if root.is_relative_to(folder)), None)
    if kind not in _LOCAL_TYPES and folder is None:
        return None
    others = sorted(node_names() - {socket.gethostname().partition(".")[0]})
    if not others:
        return None
    why = f"of type {kind}" if kind in _LOCAL_TYPES else f"below {folder}"
    return f"{root} is {why}, which is usually local to a node, and {others[0]} is another node; {REMEDY}"


def file_system(path: Path) -> str | None:
    """Return the type of the file system that a path is on, such as nfs4 or tmpfs; None if it is unknown."""
    if not _MOUNTS.exists():
        return None
    longest, found = 0, None
    for line in _MOUNTS.read_text().splitlines():
        _, mount, kind, *_ = line.split()
        mount = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount)  # a space is \040
        if path.resolve().is_relative_to(mount) and len(mount) >= longest:  # a later mount hides an earlier one
            longest, found = len(mount), kind
    return found
