"""Out-of-memory handling: halve a batch that does not fit and cap all later ones."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from aliquot.scoring.batching import Batch

log = logging.getLogger(__name__)

#: How out-of-memory messages begin, for allocators that have no error class of their own.
_FULL = ("DefaultCPUAllocator: can't allocate memory", "not enough memory: you tried to allocate", "out of memory")


class MemoryGuard:
    """Runs work on batches, and on fewer rows at once if memory does not suffice for all of them.

    A size that did not fit is not tried again: from then on, no batch has more tokens, including padding and generated
    ones, than half of the smallest batch that failed.

    Args:
        work: takes a batch.
        num_new: tokens that may be generated for each row.
        halved: takes the new bound whenever a batch did not fit.
        group: the config group whose settings bound a batch, for messages.
    """

    def __init__(
        self, work: Callable[[Batch], Any], num_new: int, halved: Callable[[int], object], group: str = "scorer"
    ) -> None:
        self._work, self._num_new, self._halved, self._group = work, num_new, halved, group
        self._most_tokens: int | None = None

    def run(self, batch: Batch) -> list[Any]:
        """Return the results of `work`, in order, for as many parts of the batch as memory requires.

        Raises:
            ValueError: a single row does not fit.
        """
        waiting, done = self._cut(batch), []
        while waiting:
            try:
                done.append(self._work(waiting[0]))
                del waiting[0]
                continue
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # After the except clause, whose error would keep the tensors of the failed attempt alive.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._lower(waiting[0], reason)
            waiting = [part for batch in waiting for part in self._cut(batch)]
        return done

    def _lower(self, batch: Batch, reason: str) -> None:
        num_rows, width = batch.tokens.shape
        if num_rows == 1:
            raise ValueError(
                f"one prompt of {width} tokens and {self._num_new} new ones do not fit into memory ({reason}); lower "
                f"model.max_tokens or {self._group}.max_new_tokens, set model.dtype=bfloat16, or use a larger device"
            )
        self._most_tokens = num_rows * (width + self._num_new) // 2
        log.warning(
            "a batch of %d x %d tokens does not fit into memory; continuing with half as many. "
            "%s.tokens_per_batch=%d would spare a new pass the attempt",
            *(num_rows, width, self._group, self._most_tokens),
        )
        self._halved(self._most_tokens)

    def _cut(self, batch: Batch) -> list[Batch]:
        num_rows, width = batch.tokens.shape
        if self._most_tokens is None:
            return [batch]
        size = max(1, self._most_tokens // (width + self._num_new))
        return [type(batch)(*(values[i : i + size] for values in batch)) for i in range(0, num_rows, size)]


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _FULL)
