"""The scoring pass: all signals of all prompts in one inference pass, resumed after an interruption.

    prompts -> batches of like length -> ScoringModule (prefill, decode) -> shards on disk -> arrays in pool order

A prompt's signals do not depend on what shares its batch, so neither batch size nor restarts belong to the result.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Bool, Int64
from numpy.lib.npyio import NpzFile

from aliquot.batching import EncodedPrompts, encode, plan_batches, spans
from aliquot.features import NORMALIZATIONS, POSITIONS, normalize_in_place
from aliquot.model import Model
from aliquot.progress import Progress
from aliquot.trainer import TrainerSpec, interruptible
from aliquot.types import Pool, Scores, TokenStats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_TOKEN_STATS = ("entropy", "top1", "top2")


@dataclass(frozen=True)
class Scorer:
    """Says which signals the pass keeps.

    Args:
        max_new_tokens: the longest response the model gives of its own; 0 keeps features only.
        layer: index into the model's hidden states: 0 the embeddings, -1 the last layer, after the final norm.
        position: which tokens of the prompt make its features: last, mean, or weighted towards the end.
        normalize: raw, centred on the mean of the pool, or unit norm.
        tokens_per_batch: read and generated together, padding included. Changes memory and speed, no result.
        shard_size: prompts between two saves; as much work is lost at most when the pass is cut off.
    """

    max_new_tokens: int = 8
    layer: int = -1
    position: str = "last"
    normalize: str = "raw"
    tokens_per_batch: int = field(default=16384, metadata={"key": False})
    shard_size: int = field(default=8192, metadata={"key": False})

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise ValueError(f"scorer.position={self.position} is unknown; choose one of {', '.join(POSITIONS)}")
        if self.normalize not in NORMALIZATIONS:
            valid = ", ".join(NORMALIZATIONS)
            raise ValueError(f"scorer.normalize={self.normalize} is unknown; choose one of {valid}")
        if self.max_new_tokens < 0:
            raise ValueError(f"scorer.max_new_tokens={self.max_new_tokens} is negative; give 0 to generate nothing")
        for name in ("tokens_per_batch", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"scorer.{name}={getattr(self, name)} is too small; give at least 1")


def score(model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path) -> None:
    """Write the scores of `pool` into `directory`, for `load_scores` to read.

    Rows found in shards there are kept and not computed again.

    Raises:
        ValueError: the model has no such layer, or a prompt and its response exceed the model's positions.
    """
    shards = Shards(directory / "shards")
    if (directory / "features.npy").exists():  # merged: only the clean-up was cut off
        shards.remove()
        return
    tokenizer = model.load_tokenizer()
    room = model.max_tokens - scorer.max_new_tokens
    if room < 1:
        raise ValueError(
            f"scorer.max_new_tokens={scorer.max_new_tokens} leaves no room for a prompt in model.max_tokens="
            f"{model.max_tokens}; lower the one or raise the other"
        )
    encoded = encode(model, tokenizer, pool.prompts, room)
    if encoded.num_cut:
        cut = f"{encoded.num_cut:,} of {len(pool):,} prompts are longer than {room} tokens; their beginning was cut"
        log.info("%s (model.max_tokens=%d, with room to respond)", cut, model.max_tokens)
    done = shards.finished_rows(len(pool))
    batches = plan_batches(encoded.lengths, scorer.max_new_tokens, scorer.tokens_per_batch)
    missing = [rows[~done[rows]] for rows in batches if not done[rows].all()]
    if missing:
        _run_pass(model, tokenizer, scorer, trainer, encoded, missing, shards)
    assert shards.finished_rows(len(pool)).all(), "the pass ended early, and without an error"
    merge(shards, encoded.lengths, scorer.normalize, directory)
    shards.remove()


def _run_pass(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    scorer: Scorer,
    spec: TrainerSpec,
    encoded: EncodedPrompts,
    batches: Sequence[Int64[np.ndarray, " b"]],
    shards: Shards,
) -> None:
    """Send the batches through the model; their predictions end up in shards."""
    from aliquot.scoring_module import PromptBatches, ScoringModule, ShardWriter, check_fits, end_tokens

    network = model.load()
    check_fits(network, scorer, int(encoded.lengths.max()))
    loader = PromptBatches(encoded, batches, pad=cast(int, tokenizer.pad_token_id)).loader()
    num_rows = len(encoded.lengths)
    with (
        closing(ScoringModule(network, scorer, end_tokens(network, tokenizer))) as module,
        Progress("score", num_rows, "prompt", done=num_rows - sum(map(len, batches))) as progress,
        interruptible() as interrupted,
    ):
        writer = ShardWriter(shards, scorer.shard_size, progress, interrupted)
        trainer = spec.build(shards.directory.parent, callbacks=[writer])
        trainer.predict(module, loader, return_predictions=False)


class Shards:
    """Finished parts of a pass on disk, one npz each: `rows` and the signals of these rows.

    A shard is written under another name and then renamed, so each is whole or absent. It is named after its smallest
    row: shards are disjoint, so restarts and parallel writers need no common counter.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __iter__(self) -> Iterator[NpzFile]:
        """Open one shard after the other; an array is read when it is asked for."""
        for path in sorted(self.directory.glob("*.npz")):
            with np.load(path, allow_pickle=False) as arrays:
                yield arrays

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Save one shard; `arrays` holds its `rows`, in the order of all the others."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{arrays['rows'].min():08}.npz"
        temporary = path.with_suffix(".partial")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        temporary.replace(path)

    def finished_rows(self, num_rows: int) -> Bool[np.ndarray, " n"]:
        """Return which of `num_rows` rows are in some shard."""
        done = np.zeros(num_rows, dtype=bool)
        for shard in self:
            done[shard["rows"]] = True
        return done

    def remove(self) -> None:
        """Delete all shards."""
        shutil.rmtree(self.directory, ignore_errors=True)


def merge(shards: Shards, prompt_lengths: Int64[np.ndarray, " n"], normalize: str, directory: Path) -> None:
    """Bring the rows of all shards into pool order, one array a file, holding one shard in memory at a time.

    `features.npy` is named last: where it is, everything is.
    """
    num_rows = len(prompt_lengths)
    width, has_tokens = next((shard["features"].shape[1], "entropy" in shard) for shard in shards)
    _reserve(directory / "prompt_lengths.npy", np.dtype(np.int64), (num_rows,))[:] = prompt_lengths
    if has_tokens:
        _merge_tokens(shards, num_rows, directory)
    temporary = directory / "features.partial"
    features = _reserve(temporary, np.dtype(np.float32), (num_rows, width))
    for shard in shards:
        features[shard["rows"]] = shard["features"]
    normalize_in_place(features, normalize)
    features.flush()
    temporary.replace(directory / "features.npy")


def _merge_tokens(shards: Shards, num_rows: int, directory: Path) -> None:
    """Write the ragged statistics: each shard's flat entries go where its rows' entries belong."""
    lengths = np.zeros(num_rows, dtype=np.int64)
    for shard in shards:
        lengths[shard["rows"]] = shard["token_lengths"]
    starts = np.cumsum(lengths) - lengths
    stats = {name: np.empty(lengths.sum(), dtype=np.float32) for name in _TOKEN_STATS}
    for shard in shards:
        entries = spans(starts[shard["rows"]], shard["token_lengths"])
        for name, values in stats.items():
            values[entries] = shard[name]
    for name, values in {"token_lengths": lengths, **stats}.items():
        _reserve(directory / f"{name}.npy", values.dtype, values.shape)[:] = values


def _reserve(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Map a new npy file whose space is taken at once: a disk that fills up later would end the process (SIGBUS)."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            log.debug("%s: space cannot be taken in advance (%s)", path, error)  # this file system does without
    return array


def load_scores(directory: Path) -> Scores:
    """Return the scores that `score` wrote, memory-mapped: what is not read costs no memory."""

    def array(name: str) -> np.ndarray:
        return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    tokens = None
    if (directory / "entropy.npy").exists():
        tokens = TokenStats(array("token_lengths"), array("entropy"), array("top1"), array("top2"))
    return Scores(array("features"), array("prompt_lengths"), tokens)
