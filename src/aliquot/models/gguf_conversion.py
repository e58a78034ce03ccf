"""Convert a file in GGUF into a directory of safetensors with transformers, and refuse what that would get wrong.

transformers skips some of what a file says without a word. What changes the model's numbers is mended or refused here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aliquot.models.files import full_disk_told
from aliquot.models.hub import reason_of
from aliquot.models.weights import auto_class, check_weights_fit, reports_hidden

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
#: `tokenizer.ggml.pre` of vocabularies that take every digit alone and split the rest as GPT-2 does, and of those that
#: split all text as GPT-2 does (llama.cpp, src/llama-vocab.cpp). transformers 5.23 splits both as GPT-2 does.
_EVERY_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_AS_GPT2 = ("gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "phi-2", "roberta-bpe")

#: The tensor with the numbers by which rotary frequencies are divided.
_FACTORS = "rope_freqs.weight"
#: By architecture, what transformers 5.23 leaves at its default, and the field of the config that it belongs to.
_UNREAD = {
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "phi3": {"attention.sliding_window": "sliding_window"},
    "qwen3": {"attention.key_length": "head_dim"},
    "t5": {"decoder_block_count": "num_decoder_layers"},
}


def convert(file: Path, folder: Path, dtype: str, asked: str) -> str | None:
    """Write config, weights and tokenizer of a file to a new folder, and return the license that the file states.

    Args:
        file: in GGUF, in a folder without other files: transformers would read those too.
        folder: is made.
        dtype: of the weights.
        asked: how messages name the model.

    Raises:
        ValueError: the file is damaged or incomplete, is no language model, or transformers cannot read all of it.
        OSError: the disk is full.
    """
    import transformers
    from transformers import AutoConfig, AutoTokenizer

    facts = _read_facts(file, asked)
    options: dict[str, Any] = {"gguf_file": file.name}
    with _explained(facts, asked), reports_hidden(), redirect_stderr(StringIO()):  # a bar of its own
        config = AutoConfig.from_pretrained(file.parent, **options)
        _complete(config, facts)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, **options)
        if packed := getattr(transformers, "GgufConfig", None):  # else a GPU's kernels may keep the weights in 4 bits
            options["quantization_config"] = packed(dequantize=True)
        options |= {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
        network, found = auto_class(config).from_pretrained(file.parent, config=config, **options)
        check_weights_fit(network, found, "the network")
    _check_positions(facts, network.config.to_dict(), asked)
    _split_digits(tokenizer, facts, asked)
    network = _dequantized(network)
    network.generation_config = _generation(facts, network)
    with full_disk_told(folder):
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return facts.get("general.license")


def _read_facts(file: Path, asked: str) -> dict[str, Any]:
    """Return the metadata of a file without its vocabulary, and `tensors`, its tensors by name (mapped, not read).

    Raises:
        ValueError: the file is damaged, is one of several parts, or is no language model.
    """
    from gguf import GGUFReader

    try:
        facts = _fields(GGUFReader(file))
    except OSError:
        raise
    except Exception as error:  # whatever the bytes lead to
        raise ValueError(
            f"{asked} ({file.stat().st_size:,} bytes) is not a complete file in GGUF: {reason_of(error)}; download it "
            "again"
        ) from error
    part = _PART.search(file.name)
    if part or facts.get("split.count", 1) > 1:
        raise ValueError(
            f"{asked} is one of {int(part[2]) if part else facts['split.count']} parts of a model; join them with "
            "llama.cpp's `llama-gguf-split --merge FIRST_PART NEW.gguf`, and give NEW.gguf"
        )
    kind = facts.get("general.type", "model")
    if kind != "model" or facts.get("general.architecture") == "clip":
        raise ValueError(
            f"{asked} is not a language model but, in GGUF's words, '{kind}' of architecture "
            f"'{facts.get('general.architecture')}'; give the file that holds the language model"
        )
    if "tokenizer.ggml.model" not in facts or not facts["tensors"]:
        lacks = "weights" if "tokenizer.ggml.model" in facts else "tokenizer"
        raise ValueError(f"{asked} has no {lacks}; give a file with weights and tokenizer")
    return facts


def _fields(reader: GGUFReader) -> dict[str, Any]:
    arrays = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
    facts: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items() if name not in arrays}
    return facts | {"tensors": {tensor.name: tensor.data for tensor in reader.tensors}}


@contextmanager
def _explained(facts: dict[str, Any], asked: str) -> Generator[None]:
    """Explain what to do if transformers cannot read a file."""
    import transformers

    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        machine = isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError)
        if machine or getattr(error, "errno", None):  # transformers' own OSErrors have no number
            raise
        raise ValueError(
            f"{asked}, of architecture '{facts.get('general.architecture')}', cannot be read from GGUF by transformers "
            f"{transformers.__version__}: {reason_of(error).partition(';')[0]}; install a later one, or give the model "
            "that the file was made from (a directory or a hub id)"
        ) from error


def _complete(config: PreTrainedConfig, facts: dict[str, Any]) -> None:
    """Set what the file says about the network and transformers has not read."""
    architecture = facts["general.architecture"]
    for fact, field in _UNREAD.get(architecture, {}).items():
        if f"{architecture}.{fact}" in facts:
            setattr(config, field, facts[f"{architecture}.{fact}"] or None)  # 0 stands for no window
    if config.model_type in ("t5", "umt5"):  # llama.cpp's T5 has a gate and GELU, or neither
        gated = any("ffn_gate" in name for name in facts["tensors"])
        kinds = ("gated-gelu", "gelu_new") if gated else ("relu", "relu")
        vars(config).update(is_gated_act=gated, feed_forward_proj=kinds[0], dense_act_fn=kinds[1])
    if _FACTORS in facts["tensors"]:
        _scale_positions(config, facts["tensors"][_FACTORS])


def _scale_positions(config: PreTrainedConfig, factors: Any) -> None:
    """Set Llama 3's scaling of rotary positions if the file's factors are what it gives; otherwise set nothing.

    A file has the factors and not the settings. All but the largest factor are the same in Llama 3.1, 3.2 and 3.3.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain: dict[str, Any] = config.rope_parameters
    settings = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config.rope_parameters = plain | settings | {"rope_type": "llama3", "factor": float(max(factors))}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    count = len(scaled)
    frequencies = plain["rope_theta"] ** -(torch.arange(count) / count)
    given = torch.tensor(factors)
    if given.shape != scaled.shape or not torch.allclose(frequencies / scaled, given, rtol=1e-4):
        config.rope_parameters = plain


def _check_positions(facts: dict[str, Any], config: dict[str, Any], asked: str) -> None:
    """Raise ValueError if the file scales its rotary positions and transformers has not read that."""
    kinds = set(re.findall(r"'rope_type': '(\w+)'", str(config.get("rope_parameters")))) - {"default"}
    scaling = facts.get(f"{facts['general.architecture']}.rope.scaling.type", "none")
    factors = [name for name in facts["tensors"] if name.startswith("rope_f")]
    if kinds or (scaling == "none" and not factors):
        return
    what = factors[0] if factors else f"rope.scaling.type={scaling}"
    raise ValueError(
        f"{asked} scales its rotary positions ({what}), which transformers does not read from GGUF: every number would "
        "be off; give the model that the file was made from (a directory or a hub id)"
    )


def _split_digits(tokenizer: PreTrainedTokenizerBase, facts: dict[str, Any], asked: str) -> None:
    """Split text into digits where the vocabulary was made so; warn of splits that neither transformers nor we know."""
    from tokenizers import pre_tokenizers

    state = cast(Any, tokenizer).backend_tokenizer
    split = facts.get("tokenizer.ggml.pre", "unknown")
    as_gpt2 = facts["tokenizer.ggml.model"] == "gpt2" and isinstance(state.pre_tokenizer, pre_tokenizers.ByteLevel)
    if not as_gpt2 or split in _AS_GPT2:
        return
    if split in _EVERY_DIGIT:
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        state.pre_tokenizer = pre_tokenizers.Sequence(parts)
        return
    log.warning(
        "%s splits text in the way '%s' before it looks up tokens, which transformers does not read from GGUF: some "
        "texts get other tokens than the model was trained with; the model that the file was made from is exact",
        asked,
        split,
    )


def _dequantized(network: PreTrainedModel) -> PreTrainedModel:
    """Return an ordinary network with the same weights: transformers refuses to save one that it loaded from GGUF."""
    import torch

    config = network.config
    for name in ("quantization_config", "_model_name_or_path"):  # the latter is the file's own title
        vars(config).pop(name, None)
    with torch.device("meta"):
        ordinary = type(network)(config)
    ordinary.load_state_dict(network.state_dict(), assign=True)
    return ordinary


def _generation(facts: dict[str, Any], network: PreTrainedModel) -> Any:
    """Return the generation config: the start, the ends (of a text, of a turn) and the padding that the file names."""
    from transformers import GenerationConfig

    names = {"bos": "bos_token_id", "pad": "padding_token_id"}
    start, pad = (facts.get(f"tokenizer.ggml.{name}") for name in names.values())
    ends = [facts.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    several = list(dict.fromkeys(end for end in ends if end is not None))
    return GenerationConfig(
        bos_token_id=start,
        eos_token_id=several[0] if len(several) == 1 else several or None,
        pad_token_id=pad,
        decoder_start_token_id=getattr(network.config, "decoder_start_token_id", None),
    )
