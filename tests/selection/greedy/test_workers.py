"""Threads multiply alone and in full precision, and settings are given back, whatever happens."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from aliquot.selection.greedy.workers import full_precision, num_cores, numpy_workers, torch_workers


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def other_settings():
    """Settings that no worker wants."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("high")
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("other_settings")
def test_workers_of_torch_multiply_alone_and_in_full_precision() -> None:
    with suppress(KeyboardInterrupt), torch_workers() as workers:
        assert workers.submit(torch.get_num_threads).result() == 1
        assert torch.get_float32_matmul_precision() == "highest"
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.usefixtures("other_settings")
def test_workers_of_numpy_multiply_alone() -> None:
    before = blas_threads()
    with suppress(KeyboardInterrupt), numpy_workers() as workers:
        assert workers.submit(blas_threads).result() == {1}
        raise KeyboardInterrupt
    assert blas_threads() == before


@pytest.mark.usefixtures("other_settings")
def test_precision_is_given_back() -> None:
    with full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "high"


def test_there_are_as_many_workers_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_cores() >= 1
    monkeypatch.setattr("aliquot.selection.greedy.workers.num_cores", lambda: 7)
    for kind in (numpy_workers, torch_workers):
        with kind() as workers:
            assert workers._max_workers == 7
