"""Ctrl-C and SIGTERM: the code that runs a loop saves before it ends."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from types import FrameType


@contextmanager
def interruptible() -> Generator[Event]:
    """Let Ctrl-C wait for the end of the batch, and then end the block with KeyboardInterrupt.

    The yielded event is set when Ctrl-C is pressed. The code that runs the loop then saves and raises
    KeyboardInterrupt, which Lightning would turn into a silent exit. A second Ctrl-C ends the block at once.
    """
    told, before = Event(), signal.getsignal(signal.SIGINT)

    def tell(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        told.set()

    # Only the main thread may handle signals; a background job ignores this one.
    handles = current_thread() is main_thread() and callable(before)
    try:
        if handles:
            signal.signal(signal.SIGINT, tell)
        yield told
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if handles:
            signal.signal(signal.SIGINT, before)


@contextmanager
def terminable() -> Generator[Event]:
    """Let SIGTERM wait for the end of the block; the yielded event is set when it comes."""
    told = Event()
    before = signal.getsignal(signal.SIGTERM)
    handles = current_thread() is main_thread()
    if handles:
        signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    try:
        yield told
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)
