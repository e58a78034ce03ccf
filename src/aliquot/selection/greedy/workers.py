"""Threads of our own, each of which multiplies alone, and full-precision products.

A library that spreads one product over all cores waits for the slowest core at its end. Parallel products on threads of
our own do not wait, and the work after each product runs in parallel too.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def numpy_workers() -> Generator[ThreadPoolExecutor]:
    """Start one thread per core for numpy products."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), _threads() as workers:
        yield workers


@contextmanager
def torch_workers() -> Generator[ThreadPoolExecutor]:
    """Start one thread per core for full-precision torch products, and for numpy products."""
    import torch  # importing it takes longer than many rankings by numpy

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with full_precision(), numpy_workers() as workers:
            yield workers
    finally:
        torch.set_num_threads(before)


@contextmanager
def full_precision() -> Generator[None]:
    """Multiply float32 as float32: TF32, which a device may use instead, keeps ten bits of each factor."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _threads() -> Generator[ThreadPoolExecutor]:
    workers = ThreadPoolExecutor(num_cores())
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)
