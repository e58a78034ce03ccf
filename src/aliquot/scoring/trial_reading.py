"""The computation of a model's trial: three prompts as transformers reads them, and as the scoring pass does.

    alone, by transformers: no cache, no padding; for each token of the response, everything before it is read anew
    alone, by the pass
    together, by the pass: one padded batch

Features and statistics of all three must agree up to rounding.
"""

# torch's type annotations leave out parameters.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from aliquot.models.format_checks import check_finished_turn, check_tokens
from aliquot.models.hub import reason_of
from aliquot.models.spec import Model
from aliquot.models.weights import count_embeddings
from aliquot.scoring.batching import Batch, encode
from aliquot.scoring.decoding import describe
from aliquot.scoring.features import pool_positions
from aliquot.scoring.kv_cache import decoder_of
from aliquot.scoring.module import PromptBatches, ScoringModule, end_tokens
from aliquot.scoring.spec import Scorer, features_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel


#: They have unequal numbers of tokens in any language's vocabulary.
_PROMPTS = (
    "Why?",
    "Name three animals that live in the sea.",
    "A train leaves at nine and needs two hours for the first half of its way and three for the second; it waits ten "
    "minutes in between. Say when it arrives, and how you know.",
)
#: The number of response tokens compared: the first comes from the prefill, the next ones from the cache.
_NUM_NEW = 4
#: How far two readings of one prompt may differ: features relative to their length, probabilities, and entropy
#: relative to itself where it exceeds 1 nat.
_ROUNDING = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 1e-1}
#: Deep models round more. The longest prompt has no padding, so its difference shows how much: `_MARGIN` times that
#: is allowed too, up to `_MOST` times what is allowed anyway.
_MARGIN, _MOST = 4, 3
_ALONE = "alone, by the pass and by transformers without cache and padding"
_TOGETHER = "alone and in one padded batch of unequal lengths"

_OVERFLOW = "float16 holds no number beyond 65,504: set model.dtype=bfloat16"

#: Names of signals -> their values for one prompt.
Reading = dict[str, Tensor]


class Difference(NamedTuple):
    """The difference between two readings of one prompt in one signal."""

    signal: str
    compared: str
    prompt: int
    by: float


def try_model(model: Model, scorer: Scorer, device: str) -> dict[str, float]:
    """Return the differences between the readings of three prompts, by signal, by what is compared, and by prompt.

    Raises:
        ValueError: they differ beyond rounding, the model cannot be read, a weight is not a number, or a token that the
            model would have to read is outside its embeddings.
    """
    try:
        return _compared(model, scorer, device)
    finally:  # hooks and network refer to each other, and the next to load the model needs the memory
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def _compared(model: Model, scorer: Scorer, device: str) -> dict[str, float]:
    tokenizer, network = model.load_tokenizer(), model.load()
    check_tokens(model.encoding(tokenizer), count_embeddings(network), model.path)
    check_finished_turn(tokenizer, model.template, model.path)
    _check_finite(network, model)
    network = network.to(device)  # pyright: ignore[reportArgumentType]
    scorer = replace(scorer, max_new_tokens=min(scorer.max_new_tokens, _NUM_NEW))
    model = replace(model, overlong="cut_start")  # these prompts are ours; a user's refusal does not apply to them
    encoded = encode(model, tokenizer, _PROMPTS, model.max_tokens - scorer.max_new_tokens)
    ends = end_tokens(network, tokenizer)
    module = ScoringModule(network, scorer, ends, halved=lambda _: None).to(device)
    side, pad = "right" if network.config.is_encoder_decoder else "left", cast(int, tokenizer.pad_token_id)
    rows = [np.array([i]) for i in range(len(_PROMPTS))]
    planned = PromptBatches(encoded, [*rows, np.concatenate(rows)], pad, side)
    batches = [_on(planned[i], device) for i in range(len(planned))]  # each prompt alone, and all together
    try:
        plain = [_by_transformers(network, batch.tokens, scorer, ends) for batch in batches[:-1]]
        *single, together = [_by_row(module.signals(batch)) for batch in batches]
    except Exception as error:  # a network that the pass cannot read may raise anything
        raise ValueError(
            f"model.path={model.path}, a {model.family()}, cannot be read by the scoring pass: "
            f"{type(error).__name__}, {reason_of(error)}; choose another model"
        ) from error
    alone, rounding = [reading for (reading,) in single], _ROUNDING[model.dtype]
    differences = [
        *_differences(_ALONE, plain, alone, rounding),
        *_differences(_TOGETHER, alone, together, rounding),
    ]
    longest = int(encoded.lengths.argmax()) + 1
    noise = max(d.by for d in differences if d.compared == _TOGETHER and d.prompt == longest)
    rounding = min(max(rounding, _MARGIN * noise), _MOST * rounding)
    for signal, compared, number, by in differences:
        if math.isnan(by) and model.dtype == "float16":
            raise ValueError(
                f"model.path={model.path}, a {model.family()}: the {signal} of prompt {number} of {len(_PROMPTS)} are "
                f"infinite or not a number; {_OVERFLOW}"
            )
        if not by <= rounding:  # NaN is not
            raise ValueError(
                f"model.path={model.path}, a {model.family()}: the {signal} of prompt {number} of {len(_PROMPTS)}, "
                f"read {compared}, differ by {by:.2g}, and rounding in {model.dtype} explains {rounding:g} at most; "
                "the pass would give wrong signals for this model: choose another"
            )
    return {f"{d.signal}, {d.compared}, prompt {d.prompt}": d.by for d in differences}


def _check_finite(network: PreTrainedModel, model: Model) -> None:
    """Raise ValueError if a weight is infinite or not a number."""
    weights = [(name, w) for name, w in network.named_parameters() if w.is_floating_point()]
    broken = [name for name, w in weights if not bool(torch.isfinite(w).all())]
    if broken:
        overflow = f"{_OVERFLOW}; if that does not help, " if model.dtype == "float16" else ""
        raise ValueError(
            f"model.path={model.path}: {len(broken)} of its {len(weights)} weights hold values that are infinite or "
            f"not a number ({broken[0]} first); {overflow}take an earlier checkpoint, or download the model again"
        )


def _on(batch: Batch, device: str) -> Batch:
    return Batch(*(values.to(device) for values in batch))


@torch.inference_mode()
def _by_transformers(network: PreTrainedModel, tokens: Tensor, scorer: Scorer, ends: list[int]) -> Reading:
    """Read one prompt, and its response token by token, each time from the beginning."""
    has_encoder = bool(network.config.is_encoder_decoder)
    reader: Any = network.get_encoder() if has_encoder else decoder_of(network)
    output = reader(tokens, output_hidden_states=True, **({} if has_encoder else {"use_cache": False}))
    reading: Reading = {}
    for view, (position, layer) in scorer.views.items():
        hidden = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        reading[features_name(scorer, view)] = pool_positions(hidden, torch.ones_like(tokens), position)[0].cpu()
    written = tokens.new_full((1, 1), network.config.decoder_start_token_id) if has_encoder else tokens[:, :0]
    stats: list[Tensor] = []
    for _ in range(scorer.max_new_tokens):
        if has_encoder:
            output = network(input_ids=tokens, decoder_input_ids=written, use_cache=False)
        else:
            output = network(input_ids=torch.cat([tokens, written], dim=1), use_cache=False)
        token, described = describe(output.logits[:, -1])
        stats.append(described.cpu())
        if int(token) in ends:
            break
        written = torch.cat([written, token[:, None]], dim=1)
    return reading | ({"statistics": torch.cat(stats)} if stats else {})


def _by_row(signals: dict[str, Tensor]) -> list[Reading]:
    """Split the signals of a batch by prompt."""
    views = [name for name in signals if name.startswith("features")]
    readings: list[Reading] = [{name: signals[name][row] for name in views} for row in range(len(signals["rows"]))]
    if "token_lengths" in signals:
        described = torch.stack([signals[name] for name in ("entropy", "top1", "top2")], dim=1)
        for reading, part in zip(readings, described.split(signals["token_lengths"].tolist()), strict=True):
            reading["statistics"] = part
    if "token_vectors" in signals:
        lengths = signals["token_vector_lengths"].tolist()
        for reading, part in zip(readings, signals["token_vectors"].split(lengths), strict=True):
            reading["token features"] = part
    return readings


def _differences(compared: str, ones: list[Reading], others: list[Reading], rounding: float) -> Iterator[Difference]:
    """Yield the difference between two readings of each prompt, signal by signal.

    A response is compared up to where its two likeliest tokens are nearly equal: from there on rounding may decide.
    """
    for number, (one, other) in enumerate(zip(ones, others, strict=True), start=1):
        for name in (name for name in one if name.startswith("features")):
            signal = name.replace("_", ", ")
            yield Difference(signal, compared, number, _relative(one[name], other[name]))
        count = 0
        if "statistics" in one:
            tied = (one["statistics"][:, 1] - one["statistics"][:, 2] <= rounding).nonzero()
            count = min(int(tied[0]) + 1 if len(tied) else _NUM_NEW, len(one["statistics"]), len(other["statistics"]))
            values = one["statistics"][:count]
            apart = (values - other["statistics"][:count]).abs() / values.abs().clamp(min=1)
            yield Difference("statistics of the response", compared, number, float(apart.max()))
        if "token features" in one and "token features" in other:
            vectors, others_ = (reading["token features"] for reading in (one, other))
            kept = count if len(vectors) <= _NUM_NEW else len(vectors)
            yield Difference("token features", compared, number, _relative(vectors[:kept], others_[:kept]))


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm().clamp(min=torch.finfo(torch.float32).tiny))
