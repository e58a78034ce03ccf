"""The config classes of the scoring pass: which signals it keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, cast

from aliquot.models.spec import Model
from aliquot.scoring.features import POSITIONS
from aliquot.scoring.normalization import NORMALIZATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


TOKEN_SOURCES = ("prompt", "response")
_VIEW = re.compile(rf"({'|'.join(POSITIONS)})(@(0|-?[1-9][0-9]*))?")


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
        layer: index into the model's hidden states: 0 is the embeddings, -1 the last layer, after the final norm. A
            list keeps features of several layers.
        position: which tokens of the prompt its features come from: last, mean, or weighted toward the end. A list
            keeps several. Features of each position at each layer are a *view*; a strategy names the view it reads as
            `POSITION`, at the first layer of the list, or `POSITION@LAYER`. The first view is the default.
        normalize: of every view: raw, centered on the mean of the pool, unit norm, both, or whitened, that is, centered
            and with variance 1 in every direction.
        tokens_per_batch: tokens read and generated together, including padding. Affects memory and speed and, for a
            model in 16 bits, also the result.
        shard_size: prompts between two saves; at most this much work is lost if the pass is interrupted.
        token_features: which vectors of single tokens to keep; None keeps none.
    """

    max_new_tokens: int = 8
    layer: int | Sequence[int] = -1
    position: str | Sequence[str] = ("last", "weighted")
    normalize: str = "raw"
    tokens_per_batch: int = field(default=16384, metadata={"key": False})
    shard_size: int = field(default=8192, metadata={"key": False})
    token_features: TokenFeatureSpec | None = None

    def __post_init__(self) -> None:
        for name in ("layer", "position"):  # a list of one is the same as its value, in keys too
            object.__setattr__(self, name, _one_or_several(name, getattr(self, name)))
        for position in self.positions:
            if position not in POSITIONS:
                raise ValueError(f"scorer.position={position} is unknown; choose one of {', '.join(POSITIONS)}")
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

    @property
    def positions(self) -> tuple[str, ...]:
        """The positions whose features are kept."""
        return (self.position,) if isinstance(self.position, str) else tuple(self.position)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose features are kept."""
        return (self.layer,) if isinstance(self.layer, int) else tuple(self.layer)

    @property
    def views(self) -> dict[str, tuple[str, int]]:
        """The position and layer of each view, by its name; the first is the default."""
        return {self._name(position, layer): (position, layer) for layer in self.layers for position in self.positions}

    def _name(self, position: str, layer: int) -> str:
        return position if layer == self.layers[0] else f"{position}@{layer}"

    def view(self, name: str | None) -> str:
        """Return the name under which this pass keeps a view; None is the default view.

        Raises:
            ValueError: the pass does not keep it.
        """
        if name is None:
            return next(iter(self.views))
        found = name.removesuffix(f"@{self.layers[0]}")
        if found in self.views:
            return found
        position, _, layer = name.partition("@")
        if not _VIEW.fullmatch(name):
            raise ValueError(
                f"strategy.features={name} is not a view of the prompts; use {', '.join(POSITIONS)}, or one of them at "
                "a layer, such as weighted@12"
            )
        remedy = [*self.positions, *([] if position in self.positions else [position])]
        adds = [f"scorer.position=[{','.join(remedy)}]"] if position not in self.positions else []
        if layer and int(layer) not in self.layers:
            adds.append(f"scorer.layer=[{','.join(map(str, [*self.layers, layer]))}]")
        raise ValueError(
            f"strategy.features={name}: the pass keeps the features {', '.join(self.views)}; keep these too with "
            f"{' '.join(adds)}"
        )

    def only(self, name: str | None) -> Scorer:
        """Return the scorer that keeps one view; what reads it depends on no other, and has this scorer in its key."""
        position, layer = self.views[self.view(name)]
        return replace(self, position=position, layer=layer)


_Value = TypeVar("_Value", int, str)


def _one_or_several(name: str, value: _Value | Sequence[_Value]) -> _Value | tuple[_Value, ...]:
    """Return one value, or several different ones as a tuple."""
    kind = int if name == "layer" else str
    values = cast("tuple[_Value, ...]", tuple(value) if isinstance(value, (list, tuple)) else (value,))
    wrong = next((value for value in values if type(value) is not kind), None)
    if wrong is not None or not values or len(set(values)) < len(values):
        given = "an empty list" if not values else f"{wrong!r}" if wrong is not None else f"{list(values)}, one twice"
        raise ValueError(f"scorer.{name} is {given}; give {'a number' if kind is int else 'a name'}, or a list of them")
    return values[0] if len(values) == 1 else values


def features_name(scorer: Scorer, view: str) -> str:
    """Return the name of a view among the signals of a pass, and of its file."""
    return "features" if view == scorer.view(None) else f"features_{view}"


def check_scorer(model: Model, scorer: Scorer) -> None:
    """Raise ValueError if the scorer asks for what the model does not have, before its weights are loaded."""
    config, spec = model.load_config(), scorer.token_features
    count = num_layers(config)
    for layer in scorer.layers:
        if -count <= layer < count:
            continue
        raise ValueError(
            f"scorer.layer={layer} is outside {-count}..{count - 1}: the model has {count - 1} layers "
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
