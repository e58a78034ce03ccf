"""One progress display for all long loops: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_TICKS = 1.0
_silent: ContextVar[bool] = ContextVar("silent", default=False)
#: When a loop or stage of this process last printed progress, by the monotonic clock; bars count as always printing.
_last_words = [0.0]


@contextmanager
def silenced() -> Generator[None]:
    """Let loops inside the block print nothing: side checks are not the actual work."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


@contextmanager
def unheard(name: str) -> Generator[None]:
    """Keep quiet inside the block: loops, and what the logger of this name says that is no warning."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with silenced():
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def watched(what: str) -> Generator[None]:
    """Print every ten seconds that work inside the block continues, unless a loop in it prints its own progress."""
    started = _last_words[0] = time.monotonic()

    def speak() -> None:
        quiet = time.monotonic() - _last_words[0]
        if quiet >= _SECONDS_BETWEEN_LINES + 2 * _SECONDS_BETWEEN_TICKS:  # a loop inside prints sooner than this
            _say(f"{what}: {clock(time.monotonic() - started)}  at work")

    ticker = _Ticker(speak)
    try:
        yield
    finally:
        ticker.stop()


def _say(line: str) -> None:
    _last_words[0] = time.monotonic()
    print(line, file=sys.stderr, flush=True)


class _Ticker:
    """Calls a function about every second, from its own thread, until it is stopped."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call, self._stopped = call, threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()

    def _tick(self) -> None:
        while not self._stopped.wait(_SECONDS_BETWEEN_TICKS):
            self._call()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class Progress:
    """Print to standard error how far a loop is, how fast it runs and how long it will take.

    It prints every ten seconds, even while the loop is busy with one unit. The last line is printed once, at the end.

    Args:
        what: the name of the work, for example "finetune".
        total: how many units the work has, including those already done; None if unknown.
        unit: what is counted, in the singular: "prompt", "step", "question".
        done: units that an earlier, interrupted run finished; they do not count toward the speed.
    """

    def __init__(self, what: str, total: int | None, unit: str, done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._first = self._done = done
        self._fields: dict[str, object] = {}
        self._started = self._spoke = time.monotonic()
        self._bar: Any = None
        self._silent = _silent.get()
        self._closed = False
        self._lock = threading.Lock()
        if sys.stderr.isatty() and not self._silent:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=unit, desc=what, file=sys.stderr, dynamic_ncols=True)
        self._ticker = None if self._silent else _Ticker(self._tick)

    def update(self, n: int = 1, **fields: object) -> None:
        """Count `n` more units; `fields` are shown next to the count until replaced."""
        with self._lock:
            self._done += n
            self._fields.update(fields)
            if self._bar is not None:
                self._bar.set_postfix(self._fields, refresh=False)
                self._bar.update(n)
        self._tick(refresh=False)

    def close(self) -> None:
        """End the bar, or print the last line; a second call does nothing."""
        if self._ticker is not None:
            self._ticker.stop()
        if self._closed or self._silent:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.close()
        else:
            self._speak()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._total is not None:
            self.update(self._total - self._done)  # some loops count fewer units than they complete
        self.close()

    def _tick(self, refresh: bool = True) -> None:
        """Print progress if it is due; `close` prints the final line."""
        with self._lock:
            if self._silent or self._closed or self._done == self._total:
                return
            if self._bar is not None:
                _last_words[0] = time.monotonic()
                if refresh:
                    self._bar.refresh()
            elif time.monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
                self._speak()

    def _speak(self) -> None:
        self._spoke = time.monotonic()
        seconds = max(self._spoke - self._started, 1e-9)
        rate = (self._done - self._first) / seconds
        total = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{self._done:,}{total} {self._unit}s"]
        if 0 < rate < 1:
            parts.append(f"{1 / rate:,.1f} s/{self._unit}")
        elif rate:
            parts.append(f"{rate:,.1f} {self._unit}s/s")
        parts += [f"{name} {value}" for name, value in self._fields.items()]
        if self._total is not None and rate and self._done < self._total:
            parts.append(f"{clock((self._total - self._done) / rate)} left")
        _say(f"{self._what}: {clock(seconds)}  {', '.join(parts)}")


def clock(seconds: float) -> str:
    """Write a duration as m:ss, or as h:mm:ss from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
