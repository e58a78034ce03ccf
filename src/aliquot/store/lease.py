"""One builder at a time, across processes and machines that share a file system.

A lease is a file created with O_EXCL, which works on file systems where flock does not. It names its holder, which
touches it every few seconds. A process that finds the lease taken waits, and removes it once the holder is known to be
dead: a process of this machine that no longer runs, or another one that has not touched the file for a minute *by the
waiter's own clock* (the clocks of two machines need not agree).
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

import psutil

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
POLL_SECONDS = 0.5


class Lease:
    """Holds the file `path` for the duration of a `with` block.

    Args:
        path: the lease file; its directory exists.
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
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise RuntimeError if the lease was lost, say to a waiter that did not see this machine for a minute."""
        if not self._is_mine():
            raise RuntimeError(f"lost the lease {self.path} to another process, which now builds {self.what}")

    def _is_mine(self) -> bool:
        return (_read(self.path) or {}).get("token") == self._token

    def _try_acquire(self) -> bool:
        holder = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID"),
            "token": self._token,
        }
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(json.dumps(holder))
        except FileExistsError:
            return False
        except OSError:  # a full disk: an empty lease would make others wait
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _wait_for_holder(self) -> None:
        """Return when the lease is worth another try: it is gone, or was removed because its holder is dead."""
        holder, seen, quiet_since = None, -1, time.monotonic()
        while True:
            found, modified = _read(self.path), _modified(self.path)
            if found is None:
                return
            if found != holder:
                holder = found
                job = f", job {found['job']}" if found["job"] else ""
                log.info("waiting for process %s on %s%s: %s", found["pid"], found["host"], job, self.what)
            if modified != seen:
                seen, quiet_since = modified, time.monotonic()
            if _is_dead(found, time.monotonic() - quiet_since):
                log.warning("process %s on %s died building %s; taking over", found["pid"], found["host"], self.what)
                self._remove(found)
                return
            time.sleep(POLL_SECONDS)

    def _remove(self, dead: dict[str, Any]) -> None:
        """Remove a dead holder's lease; a guard file admits one waiter at a time, so that none removes a new lease."""
        guard = self.path.with_name(f"{self.path.name}.takeover")
        try:
            open(guard, "x").close()
        except FileExistsError:
            time.sleep(POLL_SECONDS)
            if time.time() - _modified(guard) / 1e9 > 10 * STALE_SECONDS:  # its creator was killed within these lines
                guard.unlink(missing_ok=True)
            return
        try:
            if _read(self.path) == dead:
                self.path.unlink(missing_ok=True)
        finally:
            guard.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                if self._is_mine():
                    os.utime(self.path)
            except OSError as error:  # when the file system comes back, this process is still alive
                log.warning("cannot touch the lease %s: %s", self.path, error)


def is_held(path: Path) -> bool:
    """Tell whether a live process, as far as is known without waiting, holds the lease."""
    holder = _read(path)
    return holder is not None and not _is_dead(holder, time.time() - _modified(path) / 1e9)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the holder, or None if there is no lease; the holder of a partly written lease has no name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return {"host": None, "machine": None, "pid": "(unknown)", "born": None, "job": None, "token": None}


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return -1


def _is_dead(holder: dict[str, Any], seconds_quiet: float) -> bool:
    """Judge a process of this machine by whether it runs, any other by how long it has been silent.

    The latter includes a process with the holder's pid and another start: a later process, or the holder itself after
    the clock was set, because the system derives the start from the clock.
    """
    if holder["machine"] == _machine():
        born = _born(holder["pid"])
        if born is None or born == holder["born"]:
            return born is None
    return seconds_quiet > STALE_SECONDS


def _machine() -> str:
    """Name the scope of process ids: host, boot and, in containers, the namespace."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    marks = [boot.read_text().strip() if boot.exists() else "", os.readlink(namespace) if namespace.exists() else ""]
    return " ".join([socket.gethostname(), *marks])


def _born(pid: int) -> float | None:
    """Return when a process started, or None if it does not run; a zombie does not hold a lease."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
