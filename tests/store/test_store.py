"""The store: keys, done-markers, resuming, and one builder at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from aliquot.store import lease
from aliquot.store.store import Stage, Store, canonical, write_atomic


@dataclass(frozen=True)
class Number(Stage[int]):
    name: ClassVar[str] = "number"
    value: float
    workers: int = field(default=1, metadata={"key": False})

    def build(self, store, directory, on_metrics):
        with open(directory / "log", "a") as file:
            file.write("built\n")
        (directory / "value").write_text(str(self.value))

    def load(self, directory):
        return int(float((directory / "value").read_text()))


@dataclass(frozen=True)
class Double(Stage[int]):
    name: ClassVar[str] = "double"
    number: Number

    def build(self, store, directory, on_metrics):
        (directory / "value").write_text(str(2 * store.get(self.number)))

    def load(self, directory):
        return int((directory / "value").read_text())


def builds(store, stage):
    return (store.directory(stage) / "log").read_text().count("built")


def test_equal_meanings_share_a_key_and_different_ones_do_not():
    assert Number(1).key == Number(1.0).key != Number(2).key
    assert Number(1, workers=8).key == Number(1).key
    assert Double(Number(1)).key != Double(Number(2)).key
    assert canonical((1, 2.0)) == canonical([1, 2])
    assert canonical(True) is True


def test_what_is_done_is_not_done_again(tmp_path):
    store, stage = Store(tmp_path), Double(Number(4))
    assert store.get(stage) == store.get(stage) == 8
    assert Store(tmp_path).get(Number(4, workers=2)) == 4
    assert builds(store, stage.number) == 1


def test_the_record_says_from_what_and_with_what_a_result_was_made(tmp_path):
    store, stage = Store(tmp_path), Double(Number(4))
    store.ensure(stage)
    record = store.record(stage)
    assert record["upstream"] == [f"number/{stage.number.key}"]
    assert record["libraries"]["torch"]
    assert record["seconds"] >= 0
    assert record["peak_memory_gb"] > 0


@dataclass(frozen=True)
class Failing(Number):
    name: ClassVar[str] = "failing"

    def build(self, store, directory, on_metrics):
        super().build(store, directory, on_metrics)
        if builds(store, self) == 1:
            raise RuntimeError("the first attempt fails")


def test_a_failed_stage_leaves_its_error_is_not_done_and_is_retried(tmp_path):
    store, stage = Store(tmp_path), Failing(1)
    with pytest.raises(RuntimeError):
        store.get(stage)
    assert store.record(stage) is None
    assert "first attempt fails" in (store.directory(stage) / "error.txt").read_text()
    assert store.get(stage) == 1
    assert not (store.directory(stage) / "error.txt").exists()


@dataclass(frozen=True)
class Slow(Number):
    name: ClassVar[str] = "slow"

    def build(self, store, directory, on_metrics):
        super().build(store, directory, on_metrics)
        time.sleep(0.5)


@pytest.mark.slow
def test_two_builders_at_once_build_once(tmp_path, caplog):
    caplog.set_level("INFO")
    results = []
    threads = [threading.Thread(target=lambda: results.append(Store(tmp_path).get(Slow(3)))) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results == [3, 3, 3]
    assert builds(Store(tmp_path), Slow(3)) == 1
    assert "waiting for process" in caplog.text
    assert "slow" in caplog.text


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path, caplog):
    script = f"""
        import os, signal
        from pathlib import Path
        from aliquot.store.lease import Lease
        Lease(Path({str(tmp_path)!r}) / "lease", "x").__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert (tmp_path / "lease").exists()
    started = time.monotonic()
    with lease.Lease(tmp_path / "lease", "x"):
        assert time.monotonic() - started < lease.STALE_SECONDS / 2
    assert not (tmp_path / "lease").exists()
    assert "taking over" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "holder",
    [
        {"machine": "elsewhere", "pid": 1, "born": 1.0},
        {"machine": lease._machine(), "pid": os.getpid(), "born": 1.0},  # the pid was reused, or the clock was set
    ],
)
def test_the_lease_of_a_process_out_of_sight_is_kept_while_it_beats_and_taken_over_when_it_stops(
    tmp_path, monkeypatch, holder
):
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    path = tmp_path / "lease"
    path.write_text(json.dumps(holder | {"host": "elsewhere", "job": "77", "token": "t"}))
    started = time.monotonic()

    def beat():
        while time.monotonic() - started < 2:
            time.sleep(0.1)
            path.touch()

    threading.Thread(target=beat).start()
    with lease.Lease(path, "x"):
        assert time.monotonic() - started > 2


@pytest.mark.slow
def test_a_stopped_process_of_this_machine_keeps_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 1000)  # as silent as one stopped by Ctrl-Z
    entered = threading.Event()

    def wait():
        with lease.Lease(tmp_path / "lease", "x"):
            entered.set()

    with lease.Lease(tmp_path / "lease", "x") as held:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not entered.wait(2)
        held.check()
    waiter.join()
    assert entered.is_set()


def test_a_process_that_ended_holds_nothing_even_before_its_parent_takes_notice():
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert lease._born(process.pid) == lease._born(process.pid) != lease._born(os.getpid())
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert lease._born(process.pid) is None
    process.wait()
    assert lease._born(process.pid) is None


def test_who_lost_the_lease_does_not_mark_the_stage_done(tmp_path):
    @dataclass(frozen=True)
    class Robbed(Number):
        name: ClassVar[str] = "robbed"

        def build(self, store, directory, on_metrics):
            super().build(store, directory, on_metrics)
            (directory / "lease").write_text("{}")

    with pytest.raises(RuntimeError, match="lost the lease"):
        Store(tmp_path).get(Robbed(1))
    assert Store(tmp_path).record(Robbed(1)) is None


def test_a_full_disk_leaves_no_empty_lease(tmp_path, monkeypatch):
    def full(holder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease.json, "dumps", full)
    with pytest.raises(OSError, match="No space"), lease.Lease(tmp_path / "lease", "x"):
        pass
    assert not (tmp_path / "lease").exists()


@pytest.mark.slow
def test_a_lease_without_content_delays_but_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.2)
    (tmp_path / "lease").touch()
    with lease.Lease(tmp_path / "lease", "x"):
        pass


def test_versions_of_one_class_have_keys_of_their_own():
    @dataclass(frozen=True)
    class Same:
        version: ClassVar[int] = 1
        seed: int = 0

    @dataclass(frozen=True)
    class Later(Same):
        version: ClassVar[int] = 2

    Later.__qualname__ = Same.__qualname__
    assert canonical(Same()) != canonical(Later())


def test_an_input_that_changes_while_it_is_read_is_noticed(tmp_path):
    @dataclass(frozen=True)
    class Source:
        path: str

        def identity(self):
            return Path(self.path).read_text()

    @dataclass(frozen=True)
    class Reading(Number):
        name: ClassVar[str] = "reading"
        source: Source = field(default_factory=lambda: Source(str(tmp_path / "file")))

        def build(self, store, directory, on_metrics):
            super().build(store, directory, on_metrics)
            (tmp_path / "file").write_text("changed")

    (tmp_path / "file").write_text("as it was")
    stage = Reading(1)
    with pytest.raises(ValueError, match="was changed while it ran"):
        Store(tmp_path).get(stage)
    assert Store(tmp_path).record(stage) is None


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path):
    write_atomic(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
