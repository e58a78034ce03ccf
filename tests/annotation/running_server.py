"""Servers that a test starts on loopback and stops again, and the command that talks to them."""

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import httpx2
import pytest

from aliquot.store.store import Pending


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(command, folder, alive, seconds, **settings):
    """Run a server in `folder` until the block ends.

    Args:
        command: that starts it.
        folder: where it runs; its output goes to log.txt there.
        alive: a URL that answers once it is up.
        seconds: until it has to be.
        settings: environment variables.
    """
    log = folder / "log.txt"
    with open(log, "w") as out:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(server, alive, time.monotonic() + seconds, log)
        yield
    finally:
        _stop(server)


def fetch_and_annotate(batch, prompts):
    """Do what a command does: look for what is back, then ask for what is not; return that, or the message."""
    ids, texts = list(prompts), list(prompts.values())
    batch.fetch()
    if batch.digest(ids, texts) is not None:
        return batch.annotate(None, ids, texts, None)
    with pytest.raises(Pending) as pending:
        batch.annotate(None, ids, texts, None)
    return str(pending.value)


def _wait_for(server, alive, deadline, log):
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            if httpx2.get(alive, timeout=10).is_success:
                return
        except httpx2.HTTPError:
            time.sleep(0.5)


def _stop(server):
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
