"""The scoring pass: all signals of all prompts in one inference pass, which can resume after an interruption.

    prompts -> batches of like length -> Pass (on one device or several) -> ScoringModule (prefill, decode)
            -> shards on disk -> arrays in pool order

In float32 only the last bits of a prompt's signals depend on the other prompts in its batch, so the batch size is not
part of the key. In 16 bits those bits can change tokens of the response, so there it is (`Score.inputs`). A restart
keeps the batches.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from aliquot.models.control_tokens import note_literal
from aliquot.models.spec import Model
from aliquot.models.template import OVERLONG
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.batching import encode
from aliquot.scoring.normalization import Normalization, normalize_in_place
from aliquot.scoring.shards import Shards, merge_ragged, reserve
from aliquot.scoring.spec import Scorer, check_scorer, features_name
from aliquot.types import Pool, Scores, TokenFeatures, TokenStats

if TYPE_CHECKING:
    from aliquot.scoring.shares import Load, Pass

log = logging.getLogger(__name__)

_TOKEN_STATS = ("entropy", "top1", "top2")


def score(
    model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path, load: Load | None = None
) -> None:
    """Write the scores of `pool` into `directory`, for `load_scores` to read.

    Rows found in existing shards are kept and not computed again. `load` returns the network that reads, if that is
    not the bare model: with an adapter.

    Raises:
        ValueError: the model does not have such a layer, a prompt and its response exceed the model's positions, or a
            single prompt does not fit into memory.
    """
    shards = Shards(directory / "shards")
    if _is_merged(directory):  # only the clean-up was interrupted
        shards.remove()
        return
    work = _plan(model, pool, scorer, trainer, directory, load)
    with ExitStack() as leases:
        work.run(trainer.place(), leases)
        assert shards.finished_rows(len(pool)).all(), "the pass ended early, and without an error"
        merge(shards, work.encoded.lengths, scorer, directory)
        shards.remove()


def score_share(
    model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path, load: Load | None = None
) -> None:
    """Read our share of what the first process of our launch writes into `directory`; another run may finish it."""
    from aliquot.runtime.processes import wait_for_launch

    at = trainer.place()
    work = _plan(model, pool, scorer, trainer, directory, load)
    if wait_for_launch(work.marker, at.launch, lambda: _is_merged(directory)):
        with work.lease(at.rank, at.world):
            if not _is_merged(directory):
                work.run_share(at.rank, at)


def _is_merged(directory: Path) -> bool:
    return (directory / "features.npy").exists()


def _plan(model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path, load: Load | None) -> Pass:
    from aliquot.scoring.shares import Pass

    check_scorer(model, scorer)
    room = model.max_tokens - scorer.max_new_tokens
    encoded = encode(model, model.load_tokenizer(), pool.prompts, room)
    if encoded.num_cut:
        cut = f"{encoded.num_cut:,} of {len(pool):,} prompts are longer than {room} tokens"
        lost = f"their {OVERLONG[model.overlong]} was cut"
        log.info("%s; %s (model.max_tokens=%d, with room to respond)", cut, lost, model.max_tokens)
    if encoded.num_literal:
        log.info("%s", note_literal(encoded.num_literal, len(pool), "prompts"))
    _check_positions(model, int(encoded.lengths.max()), scorer.max_new_tokens)
    return Pass(model, scorer, trainer, encoded, directory, load or model.load)


def _check_positions(model: Model, longest: int, num_new: int) -> None:
    """Raise ValueError if the model has too few positions for the longest prompt and its response."""
    read = max(num_new - 1, 0)  # the last generated token is not read
    needed = max(longest, read + 1) if model.load_config().is_encoder_decoder else longest + read
    model.check_positions(needed, f"a prompt of {longest} tokens and {num_new} new ones take")


def merge(shards: Shards, prompt_lengths: Int64[np.ndarray, " n"], scorer: Scorer, directory: Path) -> None:
    """Bring the rows of all shards into pool order, one array per file, with one shard in memory at a time.

    `features.npy` is renamed last: if it exists, all files exist.
    """
    num_rows = len(prompt_lengths)
    reserve(directory / "prompt_lengths.npy", np.dtype(np.int64), (num_rows,))[:] = prompt_lengths
    if scorer.max_new_tokens:
        merge_ragged(shards, num_rows, "token_lengths", _TOKEN_STATS, directory)
    if scorer.token_features:
        (vectors,) = merge_ragged(shards, num_rows, "token_vector_lengths", ("token_vectors",), directory)
        normalize_in_place(vectors, scorer.token_features.normalize)
        vectors.flush()
    for view in [*scorer.views][::-1]:
        _merge_view(shards, num_rows, features_name(scorer, view), scorer.normalize, directory)


def _merge_view(shards: Shards, num_rows: int, name: str, normalize: str, directory: Path) -> None:
    """Bring the features of one view into pool order, and normalize them."""
    temporary = directory / f"{name}.partial"
    width = next(shard[name].shape[1] for shard in shards)
    features = reserve(temporary, np.dtype(np.float32), (num_rows, width))
    for shard in shards:
        features[shard["rows"]] = shard[name]
    fitted = normalize_in_place(features, normalize)
    features.flush()
    if fitted.mean is not None:
        parts = {"mean": fitted.mean, **({} if fitted.whitening is None else {"whitening": fitted.whitening})}
        np.savez(directory / _fitted_file(name), **parts)  # pyright: ignore[reportArgumentType]
    temporary.replace(directory / f"{name}.npy")


def _fitted_file(name: str) -> str:
    return f"{name}_normalization.npz"


def load_scores(directory: Path) -> Scores:
    """Return the scores that `score` wrote, memory-mapped: parts that are not read take no memory."""

    def array(name: str) -> np.ndarray:
        return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    tokens = None
    if (directory / "entropy.npy").exists():
        tokens = TokenStats(array("token_lengths"), array("entropy"), array("top1"), array("top2"))
    token_features = None
    if (directory / "token_vectors.npy").exists():
        token_features = TokenFeatures(array("token_vector_lengths"), array("token_vectors"))
    views = {file.stem.removeprefix("features_"): array(file.stem) for file in sorted(directory.glob("features_*.npy"))}
    return Scores(array("features"), array("prompt_lengths"), tokens, token_features, views)


def normalized_alike(scores: Scores, directory: Path, scorer: Scorer) -> Scores:
    """Return raw scores of further prompts, normalized by what was fitted on the pool.

    Args:
        scores: of the further prompts.
        directory: of the pool's scores.
        scorer: that of the pool.

    Raises:
        ValueError: the pool's scores are older than the record of their normalization.
    """
    first, *others = (_load_normalization(directory, scorer, view) for view in scorer.views)
    names = [*scorer.views][1:]
    views = {name: fitted.apply(scores.views[name]) for name, fitted in zip(names, others, strict=True)}
    return replace(scores, features=first.apply(scores.features), views=views)


def _load_normalization(directory: Path, scorer: Scorer, view: str) -> Normalization:
    unit, file = scorer.normalize.endswith("unit"), directory / _fitted_file(features_name(scorer, view))
    if scorer.normalize in ("raw", "unit"):
        return Normalization(unit=unit)
    if not file.exists():
        raise ValueError(
            f"{file} is missing: these scores are older than it; delete {directory} to score the pool again"
        )
    with np.load(file, allow_pickle=False) as parts:
        return Normalization(parts["mean"], parts.get("whitening"), unit)
