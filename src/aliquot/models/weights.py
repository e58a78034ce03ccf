"""Check that a model's network can be used, and that its weights belong to the network.

Without this check, transformers fills missing weights with random numbers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: Causal masks, rotary frequencies and version numbers that earlier transformers releases saved with the weights.
_NO_WEIGHT = re.compile(r"(^|\.)(attn|attention)\.(masked_)?bias$|\.rotary_emb\.inv_freq$|\.version$")


def auto_class(config: PreTrainedConfig) -> Any:
    """Return transformers' class for networks that generate text, with or without an encoder."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def network_class(config: PreTrainedConfig) -> type | None:
    """Return transformers' class for the network; None if the repository brings its own."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    known: Any = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if config.is_encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    return known.get(type(config), None)


def check_weights_fit(network: PreTrainedModel, found: Mapping[str, Any], where: str) -> None:
    """Raise ValueError unless the files had every weight of the network, and no other weights of its layers.

    Weights that are tied to others may be absent. Weights of heads that the network does not have, such as those of a
    classifier or a reward model, are ignored.

    Args:
        network: as transformers built it, with or without its weights.
        found: transformers' report on loading: missing_keys, mismatched_keys, unexpected_keys.
        where: the name of the model in the message.
    """
    tied: Mapping[str, str] = network.all_tied_weights_keys  # missing only if the weights they are tied to are
    missing = sorted(name for name in found["missing_keys"] if tied.get(name) not in found["missing_keys"])
    if missing:
        (saved, *_), wanted = network.config.architectures or [""], type(network).__name__
        remedy = "copy the files again, or download the model again"
        if saved and saved != wanted:
            remedy = f"config.json says that a {saved} was saved: give a model that was saved as a {wanted}"
        raise ValueError(f"{where}: {_count(missing)} not in its files, and would be random numbers; {remedy}")
    if found["mismatched_keys"]:
        _, shape, wanted = min(found["mismatched_keys"])
        names = [name for name, *_ in found["mismatched_keys"]]
        raise ValueError(
            f"{where}: {_count(sorted(names))} not of the shape that config.json asks for, {tuple(shape)} where "
            f"{tuple(wanted)} belongs; give it the config.json that belongs to its weights"
        )
    own = {name.partition(".")[0] for part in (network, network.base_model) for name in part.state_dict()}
    unexpected = sorted(
        name for name in found["unexpected_keys"] if name.partition(".")[0] in own and not _NO_WEIGHT.search(name)
    )
    if unexpected:
        raise ValueError(
            f"{where}: {_count(unexpected)} in its files and have no place in the network that config.json describes; "
            "give it the config.json that belongs to its weights"
        )


def check_reads_batches(network: type, family: str, path: str) -> None:
    """Raise ValueError unless networks of a class store a padded batch that they have read in a key-value cache.

    Mamba, RWKV and xLSTM store a recurrent state instead, and padding enters it like any text.
    """
    taken = inspect.signature(network.forward).parameters
    if missing := [name for name in ("attention_mask", "past_key_values") if name not in taken]:
        raise ValueError(
            f"model.path={path} is a {family}, which reads no padded batches into a key-value cache (its forward takes "
            f"no {missing[0]}), and the scoring pass does; choose another family"
        )


def count_embeddings(network: PreTrainedModel) -> int:
    """Return the number of tokens that the network has embeddings for."""
    layer: Any = network.get_input_embeddings()
    return layer.weight.shape[0]


@contextmanager
def reports_hidden() -> Generator[None]:
    """Hide transformers' table of weights that do not fit: we report it in one line, or it does not matter."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # one bar per load; our own bars show the progress
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _count(names: list[str]) -> str:
    return f"{len(names)} of its weights ({names[0]}{' first' if len(names) > 1 else ''}) are"
