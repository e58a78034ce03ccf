"""What a file in GGUF says of itself, and whether it can be converted on this machine."""

from __future__ import annotations

import re
import shutil
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from aliquot.models.hub import reason_of

if TYPE_CHECKING:
    from gguf import GGUFReader

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


def read_facts(file: Path, asked: str) -> dict[str, Any]:
    """Return the metadata of a file without its vocabulary, and of its tensors (mapped, not read) what is in them.

    `tensors` has what is stored by name, `shapes` the shapes of the weights.

    Raises:
        ValueError: the file is damaged, is one of several parts, or is no language model.
    """
    from gguf import GGUFReader

    try:
        facts = _fields(GGUFReader(file))
    except OSError:
        raise
    except Exception as error:  # whatever the bytes lead to
        what, remedy = "is not a complete file in GGUF", "download it again"
        if "GGMLQuantizationType" in str(error) or "appears to be version" in str(error):
            what = "holds what the installed package gguf does not read"
            remedy = "run `pip install -U gguf`, or give the model in another quantization, such as Q8_0"
        raise ValueError(f"{asked} ({file.stat().st_size:,} bytes) {what}: {reason_of(error)}; {remedy}") from error
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
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    return facts | {"tensors": {tensor.name: tensor.data for tensor in reader.tensors}, "shapes": shapes}


def check_room(facts: dict[str, Any], folder: Path, dtype: str, asked: str) -> None:
    """Raise ValueError unless memory and disk have room for the weights: both hold all of them once.

    Args:
        facts: of the file.
        folder: on the disk that the directory is written to.
        dtype: of the weights in the directory.
        asked: how messages name the model.
    """
    needed = sum(map(prod, facts["shapes"].values())) * (4 if dtype == "float32" else 2)
    free = {"memory": psutil.virtual_memory().available, "disk": shutil.disk_usage(folder).free}
    for what, amount in free.items():
        if needed > amount:
            half = "set model.dtype=bfloat16, which takes half, or " if dtype == "float32" else ""
            other = "set ALIQUOT_CACHE to a folder on a larger one" if what == "disk" else "use a larger machine"
            raise ValueError(
                f"{asked} takes {1e-9 * needed:,.1f} GB of memory and as much of the disk in {dtype}, and "
                f"{1e-9 * amount:,.1f} GB of {what} are free; {half}{other}"
            )
