"""One progress indication for all long loops: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

_SECONDS_BETWEEN_LINES = 10.0
_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silenced() -> Generator[None]:
    """Let loops inside the block say nothing: work that is checked on the side is not the work."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


class Progress:
    """Tell standard error how far a loop is, how fast it goes and how long it will take.

    Args:
        what: the name of the work, for example "finetune".
        total: how many units the work has, those already done included; None where nobody can know.
        unit: what is counted, in the singular: "prompt", "step", "question".
        done: units finished earlier, by the run that this one resumes; they do not count as speed.
    """

    def __init__(self, what: str, total: int | None, unit: str, done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._first = self._done = done
        self._fields: dict[str, object] = {}
        self._started = self._spoke = time.monotonic()
        self._bar: Any = None
        self._silent = _silent.get()
        if sys.stderr.isatty() and not self._silent:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=unit, desc=what, file=sys.stderr, dynamic_ncols=True)

    def update(self, n: int = 1, **fields: object) -> None:
        """Count `n` more units; `fields` are shown beside the count until replaced."""
        self._done += n
        self._fields.update(fields)
        if self._bar is not None:
            self._bar.set_postfix(self._fields, refresh=False)
            self._bar.update(n)
        elif not self._silent and time.monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._speak()

    def close(self) -> None:
        """End the bar, or write the last line."""
        if self._bar is not None:
            self._bar.close()
        elif not self._silent:
            self._speak()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._total is not None:
            self.update(self._total - self._done)  # some loops count fewer units than they finish
        self.close()

    def _speak(self) -> None:
        self._spoke = time.monotonic()
        seconds = max(self._spoke - self._started, 1e-9)
        rate = (self._done - self._first) / seconds
        total = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{self._done:,}{total} {self._unit}s", f"{rate:,.1f} {self._unit}s/s"]
        parts += [f"{name} {value}" for name, value in self._fields.items()]
        if self._total is not None and rate and self._done < self._total:
            parts.append(f"{clock((self._total - self._done) / rate)} left")
        print(f"{self._what}: {clock(seconds)}  {', '.join(parts)}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Write a duration as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
