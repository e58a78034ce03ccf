"""One builder at a time, across processes and machines that share a file system.

A lease is a file made with O_EXCL, which works where flock does not. It names its holder, who touches it every few
seconds. Whoever finds it taken waits, and takes it over once the holder is known to be dead: its process is gone
from this host, or its file has not been touched for a minute *by the waiter's own clock* (the clocks of two machines
need not agree).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
POLL_SECONDS = 0.5


class Lease:
    """Holds the file `path` for the length of a `with` block.

    Args:
        path: the lease file; its folder exists.
        what: what is being built, for the message to those who wait.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._token = uuid.uuid4().hex
        self._released = threading.Event()

    def __enter__(self) -> Lease:
        while not self._try_acquire():
            self._wait_for_holder()
        threading.Thread(target=self._beat, daemon=True, name="lease").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if (_read(self.path) or {}).get("token") == self._token:
            self.path.unlink(missing_ok=True)

    def _try_acquire(self) -> bool:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": _process_start(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID"),
            "token": self._token,
        }
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(json.dumps(holder))
        except FileExistsError:
            return False
        return True

    def _wait_for_holder(self) -> None:
        """Return when the lease is worth trying again: it is gone, or its holder is dead and it was removed."""
        holder, started, seen, quiet_since = None, time.monotonic(), 0, time.monotonic()
        while True:
            found = _read(self.path)
            if found is None:
                return
            modified = _modified(self.path)
            if found != holder:
                holder = found
                job = f", job {found['job']}" if found["job"] else ""
                log.info("waiting for process %s on %s%s: %s", found["pid"], found["host"], job, self.what)
            if modified != seen:
                seen, quiet_since = modified, time.monotonic()
            if _is_dead(found) or time.monotonic() - quiet_since > STALE_SECONDS:
                log.warning("process %s on %s died building %s; taking over", found["pid"], found["host"], self.what)
                self._bury(found)
                return
            time.sleep(POLL_SECONDS if time.monotonic() - started < 60 else 4 * POLL_SECONDS)

    def _bury(self, dead: dict[str, Any]) -> None:
        """Move a dead holder's lease away. Of several who try, the rename lets one through."""
        grave = self.path.with_name(f".lease.dead.{self._token}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        if _read(grave) != dead and not self.path.exists():
            grave.rename(self.path)  # somebody was faster, and what we moved is the lease of the living
        grave.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                log.warning("lease %s is gone; was its file system interrupted?", self.path)
                return


def _read(path: Path) -> dict[str, Any] | None:
    """Return the holder, None where there is no lease; one just being written, or cut off while it was, has no name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return {"host": None, "pid": "(unknown)", "born": None, "job": None, "token": None}


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return -1


def _is_dead(holder: dict[str, Any]) -> bool:
    """Tell whether the holder ran on this host and no longer does; of another host nothing is known."""
    return holder["host"] == socket.gethostname() and _process_start(holder["pid"]) != holder["born"]


def _process_start(pid: int) -> str | None:
    """Return what tells a process from a later one with the same pid, or None if it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return _alive_without_proc(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]  # a zombie holds nothing; field 22 is the start time


def _alive_without_proc(pid: int) -> str | None:
    """Without /proc (macOS) only existence can be asked."""
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
