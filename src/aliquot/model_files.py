"""The files of a model on this machine: whether they are complete, and what identifies them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from aliquot.sources import content_hash

_WEIGHTS = "model.safetensors"
_SHARD_INDEX = "model.safetensors.index.json"
_TOKENIZER = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
_CHAT_TEMPLATE = "chat_template.jinja"
#: The files of a directory that decide what a model computes: not its README, nor its git history.
_DEFINING = ("config.json", "generation_config.json", _SHARD_INDEX, "*.safetensors", "*.py", *_TOKENIZER, "*.jinja")


def check_directory(folder: Path) -> None:
    """Raise ValueError unless config, weights and tokenizer are all there."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"model directory {folder} has no config.json; save one with save_pretrained")
    check_weights([path.name for path in folder.iterdir()], f"model directory {folder}")
    if not any(path for pattern in _TOKENIZER for path in folder.glob(pattern)):
        raise ValueError(f"model directory {folder} has no tokenizer; add it with the tokenizer's save_pretrained")
    missing = _missing_shards(folder)
    if missing:
        raise ValueError(
            f"model directory {folder} lacks {len(missing)} of the files that {_SHARD_INDEX} names, {missing[0]} "
            "first; copy them, or download the model again"
        )


def check_weights(names: list[str], where: str) -> None:
    """Raise ValueError unless there are weights in safetensors: pickled ones can run code when they are read."""
    if _WEIGHTS in names or _SHARD_INDEX in names:
        return
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if pickled:
        raise ValueError(
            f"{where} holds pickled weights only ({pickled[0]}), which are not read; load it where you trust it and "
            "save it with save_pretrained, which writes safetensors, or name a revision that has them"
        )
    raise ValueError(f"{where} holds no weights ({_WEIGHTS} or {_SHARD_INDEX}); add them, or download the model again")


def weights_hash(folder: Path) -> str:
    """Hash the names and contents of the files that define a model."""
    files = sorted({file for pattern in _DEFINING for file in folder.glob(pattern) if file.is_file()})
    lines = "".join(f"{file.name}\0{content_hash(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(path: Path | None) -> dict[str, Any]:
    """Return what a json file holds, or nothing where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}


def _missing_shards(folder: Path) -> list[str]:
    named: set[str] = set(read_json(folder / _SHARD_INDEX).get("weight_map", {}).values())
    return sorted(name for name in named if not (folder / name).is_file())
