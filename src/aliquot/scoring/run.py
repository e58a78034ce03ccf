"""The scoring pass: all signals of all prompts in one inference pass, resumed after an interruption.

    prompts -> batches of like length -> Pass (on one device or several) -> ScoringModule (prefill, decode)
            -> shards on disk -> arrays in pool order

In float32 only the last bits of a prompt's signals depend on what shares its batch, so the batch size is no part of the
key. In 16 bits those bits change tokens of the response, so there it is (`Score.inputs`). A restart keeps the batches.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from aliquot.models.control_tokens import note_literal
from aliquot.models.spec import Model
from aliquot.models.template import OVERLONG
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.batching import encode
from aliquot.scoring.features import NORMALIZATIONS, POSITIONS, normalize_in_place
from aliquot.scoring.shards import Shards, merge_ragged, reserve
from aliquot.types import Pool, Scores, TokenFeatures, TokenStats

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from aliquot.scoring.shares import Pass

log = logging.getLogger(__name__)

_TOKEN_STATS = ("entropy", "top1", "top2")
TOKEN_SOURCES = ("prompt", "response")


@dataclass(frozen=True)
class TokenFeatureSpec:
    """Says which vectors of single tokens the pass keeps: pre-logit states, what the output layer reads.

    On disk they take prompts x tokens kept of each x dimensions x 4 bytes.

    Args:
        source: "prompt" for the states of the prompt's tokens, "response" for those from which the model predicted the
            tokens of its own response (never of one in the data).
        projection: states of more dimensions are projected to so many, by a Gaussian matrix with entries from
            N(0, 1/projection); states of as many or fewer stay as they are.
        projection_seed: of that matrix.
        max_tokens: keeps the last so many tokens of each prompt or response.
        normalize: raw, centred on the mean of all tokens of the pool, or unit norm.
    """

    source: str = "prompt"
    projection: int = 256
    projection_seed: int = 0
    max_tokens: int = 32
    normalize: str = "raw"

    def __post_init__(self) -> None:
        for name, valid in (("source", TOKEN_SOURCES), ("normalize", NORMALIZATIONS)):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"scorer.token_features.{name}={getattr(self, name)} is unknown; choose one of {', '.join(valid)}"
                )
        for name, least in (("projection", 1), ("max_tokens", 1), ("projection_seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"scorer.token_features.{name}={getattr(self, name)} is too small; give at least {least}"
                )


@dataclass(frozen=True)
class Scorer:
    """Says which signals the pass keeps.

    Args:
        max_new_tokens: the longest response the model gives of its own; 0 keeps features only.
        layer: index into the model's hidden states: 0 the embeddings, -1 the last layer, after the final norm.
        position: which tokens of the prompt make its features: last, mean, or weighted towards the end.
        normalize: raw, centred on the mean of the pool, or unit norm.
        tokens_per_batch: read and generated together, padding included. A matter of memory and speed, and for a model
            in 16 bits of the result too.
        shard_size: prompts between two saves; as much work is lost at most when the pass is cut off.
        token_features: which vectors of single tokens to keep; None keeps none.
    """

    max_new_tokens: int = 8
    layer: int = -1
    position: str = "last"
    normalize: str = "raw"
    tokens_per_batch: int = field(default=16384, metadata={"key": False})
    shard_size: int = field(default=8192, metadata={"key": False})
    token_features: TokenFeatureSpec | None = None

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
        if self.token_features and self.token_features.source == "response" and self.max_new_tokens == 0:
            raise ValueError(
                "scorer.token_features.source=response needs a response, and scorer.max_new_tokens=0 generates none; "
                "set scorer.max_new_tokens=8 or more, or source=prompt"
            )


def score(model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path) -> None:
    """Write the scores of `pool` into `directory`, for `load_scores` to read.

    Rows found in shards there are kept and not computed again.

    Raises:
        ValueError: the model has no such layer, a prompt and its response exceed the model's positions, or one alone
            does not fit into memory.
    """
    shards = Shards(directory / "shards")
    if _is_merged(directory):  # only the clean-up was cut off
        shards.remove()
        return
    work = _plan(model, pool, scorer, trainer, directory)
    with ExitStack() as leases:
        work.run(trainer.place(), leases)
        assert shards.finished_rows(len(pool)).all(), "the pass ended early, and without an error"
        merge(shards, work.encoded.lengths, scorer, directory)
        shards.remove()


def score_share(model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path) -> None:
    """Read our share of what the first process of our launch writes into `directory`; another run may finish it."""
    from aliquot.runtime.processes import wait_for_launch

    at = trainer.place()
    work = _plan(model, pool, scorer, trainer, directory)
    if wait_for_launch(work.marker, at.launch, lambda: _is_merged(directory)):
        with work.lease(at.rank, at.world):
            if not _is_merged(directory):
                work.run_share(at.rank, at)


def _is_merged(directory: Path) -> bool:
    return (directory / "features.npy").exists()


def _plan(model: Model, pool: Pool, scorer: Scorer, trainer: TrainerSpec, directory: Path) -> Pass:
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
    return Pass(model, scorer, trainer, encoded, directory)


def check_scorer(model: Model, scorer: Scorer) -> None:
    """Raise ValueError where the scorer asks for what the model has not, before its weights are loaded."""
    config, spec = model.load_config(), scorer.token_features
    count = num_layers(config)
    if not -count <= scorer.layer < count:
        raise ValueError(
            f"scorer.layer={scorer.layer} is outside {-count}..{count - 1}: the model has {count - 1} layers "
            "(0 is the embeddings, -1 the last layer); choose one of these"
        )
    if spec and spec.source == "prompt" and config.is_encoder_decoder:
        raise ValueError(
            "scorer.token_features.source=prompt asks for what the output layer reads of the prompt's tokens; "
            f"{model.path} is an encoder-decoder, whose output layer reads the response alone; set "
            "scorer.token_features.source=response"
        )
    room = model.max_tokens - scorer.max_new_tokens
    if room < 1:
        raise ValueError(
            f"scorer.max_new_tokens={scorer.max_new_tokens} leaves no room for a prompt in model.max_tokens="
            f"{model.max_tokens}; lower the one or raise the other"
        )


def num_layers(config: PreTrainedConfig) -> int:
    """Return how many hidden states there are: the embeddings and one of each layer, of the encoder if there is one."""
    return config.get_text_config().num_hidden_layers + 1


def _check_positions(model: Model, longest: int, num_new: int) -> None:
    """Raise ValueError where the model has too few positions for the longest prompt and its response."""
    read = max(num_new - 1, 0)  # the last generated token is not read
    needed = max(longest, read + 1) if model.load_config().is_encoder_decoder else longest + read
    model.check_positions(needed, f"a prompt of {longest} tokens and {num_new} new ones take")


def merge(shards: Shards, prompt_lengths: Int64[np.ndarray, " n"], scorer: Scorer, directory: Path) -> None:
    """Bring the rows of all shards into pool order, one array a file, holding one shard in memory at a time.

    `features.npy` is named last: where it is, everything is.
    """
    num_rows = len(prompt_lengths)
    reserve(directory / "prompt_lengths.npy", np.dtype(np.int64), (num_rows,))[:] = prompt_lengths
    if scorer.max_new_tokens:
        merge_ragged(shards, num_rows, "token_lengths", _TOKEN_STATS, directory)
    if scorer.token_features:
        (vectors,) = merge_ragged(shards, num_rows, "token_vector_lengths", ("token_vectors",), directory)
        normalize_in_place(vectors, scorer.token_features.normalize)
        vectors.flush()
    temporary = directory / "features.partial"
    width = next(shard["features"].shape[1] for shard in shards)
    features = reserve(temporary, np.dtype(np.float32), (num_rows, width))
    for shard in shards:
        features[shard["rows"]] = shard["features"]
    normalize_in_place(features, scorer.normalize)
    features.flush()
    temporary.replace(directory / "features.npy")


def load_scores(directory: Path) -> Scores:
    """Return the scores that `score` wrote, memory-mapped: what is not read costs no memory."""

    def array(name: str) -> np.ndarray:
        return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    tokens = None
    if (directory / "entropy.npy").exists():
        tokens = TokenStats(array("token_lengths"), array("entropy"), array("top1"), array("top2"))
    token_features = None
    if (directory / "token_vectors.npy").exists():
        token_features = TokenFeatures(array("token_vector_lengths"), array("token_vectors"))
    return Scores(array("features"), array("prompt_lengths"), tokens, token_features)
