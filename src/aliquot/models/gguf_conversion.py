"""Convert a file in GGUF into a directory of safetensors with transformers, and refuse what that would get wrong.

transformers skips some of what a file says without a word. What changes the model's numbers is mended or refused here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aliquot.models.files import full_disk_told
from aliquot.models.gguf_config import complete, misread
from aliquot.models.gguf_facts import check_room, read_facts
from aliquot.models.hub import reason_of
from aliquot.models.weights import auto_class, check_weights_fit, reports_hidden
from aliquot.runtime.garbage import collect_as_usual

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

#: `tokenizer.ggml.pre` of vocabularies that take every digit alone and split the rest as GPT-2 does, and of those that
#: split all text as GPT-2 does (llama.cpp, src/llama-vocab.cpp). transformers 5.23 splits both as GPT-2 does.
_EVERY_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_AS_GPT2 = ("gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "phi-2", "roberta-bpe")


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

    facts = read_facts(file, asked)
    check_room(facts, folder.parent, dtype, asked)
    collect_as_usual()
    options: dict[str, Any] = {"gguf_file": file.name}
    with _explained(facts, asked):
        config = AutoConfig.from_pretrained(file.parent, **options)
        complete(config, facts)
        wrong = misread(config, facts)
    if wrong:
        raise ValueError(
            f"{asked} {wrong}: every number would be off; give the model that the file was made from (a directory or a "
            "hub id)"
        )
    with _explained(facts, asked):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, **options)
        if packed := getattr(transformers, "GgufConfig", None):  # else a GPU's kernels may keep the weights in 4 bits
            options["quantization_config"] = packed(dequantize=True)
        options |= {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
        network, found = auto_class(config).from_pretrained(file.parent, config=config, **options)
        check_weights_fit(network, found, "the network")
    _split_digits(tokenizer, facts, asked)
    network = _dequantized(network)
    network.generation_config = _generation(facts, network)
    with full_disk_told(folder):
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        _set_version(folder / name)
    return facts.get("general.license")


@contextmanager
def _explained(facts: dict[str, Any], asked: str) -> Generator[None]:
    """Hide what transformers reports, and explain what to do if it cannot read a file."""
    import transformers

    try:
        with reports_hidden(), redirect_stderr(StringIO()):  # a bar of its own
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


def _set_version(path: Path) -> None:
    """Name the same version of transformers in a file, whichever wrote it: the file is part of a run's key.

    Not none: transformers reads a file without a version as one that an early version wrote.
    """
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(written | {"transformers_version": "5.0.0"}, indent=2) + "\n", encoding="utf-8")
