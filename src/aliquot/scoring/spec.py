"""The config classes of the scoring pass: which signals it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aliquot.models.spec import Model
from aliquot.scoring.features import NORMALIZATIONS, POSITIONS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


TOKEN_SOURCES = ("prompt", "response")


@dataclass(frozen=True)
class TokenFeatureSpec:
    """Says which vectors of single tokens the pass keeps: pre-logit states, the input of the output layer.

    On disk they take prompts x tokens kept per prompt x dimensions x 4 bytes.

    Args:
        source: "prompt" for the states of the prompt's tokens, "response" for those from which the model predicted the
            tokens of its own response (never of one in the data).
        projection: states with more dimensions are projected to this many, by a Gaussian matrix with entries from
            N(0, 1/projection); others stay as they are.
        projection_seed: seed of that matrix.
        max_tokens: keep only the last N tokens of each prompt or response.
        normalize: raw, centered on the mean of all tokens of the pool, or unit norm.
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
        max_new_tokens: the longest response that the model itself generates; 0 keeps features only.
        layer: index into the model's hidden states: 0 is the embeddings, -1 the last layer, after the final norm.
        position: which tokens of the prompt its features come from: last, mean, or weighted toward the end.
        normalize: raw, centered on the mean of the pool, or unit norm.
        tokens_per_batch: tokens read and generated together, including padding. Affects memory and speed and, for a
            model in 16 bits, also the result.
        shard_size: prompts between two saves; at most this much work is lost if the pass is interrupted.
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


def check_scorer(model: Model, scorer: Scorer) -> None:
    """Raise ValueError if the scorer asks for what the model does not have, before its weights are loaded."""
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
    """Return the number of hidden states: the embeddings and one per layer, of the encoder if there is one."""
    return config.get_text_config().num_hidden_layers + 1
