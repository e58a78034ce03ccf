"""Silences lm-eval, and restores what it changes in the process: log filters, progress bars, random states."""

from __future__ import annotations

import logging
import random
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import datasets
import lm_eval.api.task
import numpy as np
import torch


@contextmanager
def undisturbed() -> Generator[None]:
    """Silence lm-eval inside the block, and restore what it changes in the process."""
    with _quiet(), _states_kept():
        yield


@contextmanager
def _quiet() -> Generator[None]:
    """Silence messages that appear on every run and need no action, or that we replace; other warnings show."""

    def is_news(record: logging.LogRecord) -> bool:
        said = (
            "`pretrained` model kwarg",
            "Passed an already-initialized model",
            "Custom kwargs can be passed",
            "exceeds model's maximum length",
            "Left truncation applied",
            "Token indices sequence length is longer",
        )
        return not any(text in str(record.msg) for text in said)

    def without_bar(items: Iterable[Any], **_: Any) -> Iterable[Any]:
        return items

    names = ("lm_eval.api.task", "lm_eval.models.huggingface", "transformers.tokenization_utils_base")
    loggers = [logging.getLogger(name) for name in names]
    bar, lm_eval.api.task.tqdm = lm_eval.api.task.tqdm, without_bar  # pyright: ignore
    bars_off = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar
        if not bars_off:
            datasets.enable_progress_bars()
        for logger in loggers:
            logger.removeFilter(is_news)


@contextmanager
def _states_kept() -> Generator[None]:
    """Restore the random states: tasks may draw from them, lm-eval may seed them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
