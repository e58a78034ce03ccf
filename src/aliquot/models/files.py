"""The files of a model on this machine: are they complete and undamaged, and what identifies them?"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from aliquot.store.content import content_hash

_WEIGHTS = "model.safetensors"
_SHARD_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_TOKENIZER = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
#: The files that hold a tokenizer's vocabulary; its other files only set options.
_VOCABULARY = ("tokenizer.json", "*.model", "vocab*", "merges.txt", "*.tiktoken", "tekken.json")
_WITHOUT_VOCABULARY = ("ByT5Tokenizer",)  # its vocabulary is the bytes
#: The files of a directory that determine what a model computes: not its README or its git history.
_DEFINING = ("config.json", "generation_config.json", _SHARD_INDEX, "*.safetensors", "*.py", *_TOKENIZER, "*.jinja")

#: What programs and libraries say when a write fails because there is no room, and its number.
_FULL = {"No space left": errno.ENOSPC, "Disk quota exceeded": errno.EDQUOT}
#: Bytes; torch does not say why a write failed, and may have deleted what it wrote so far.
_NEARLY_FULL = 1 << 20


def check_directory(folder: Path) -> None:
    """Raise ValueError unless config, weights and tokenizer are all there, complete and undamaged."""
    names = [path.name for path in folder.iterdir()]
    for path in (folder / name for name in ("config.json", "tokenizer.json", _WEIGHTS, _SHARD_INDEX)):
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"{path} is a link to {path.readlink()}, which is missing; copy the model again, with what its links "
                "lead to (`cp -L`, `rsync -L`)"
            )
    base = str(read_json(folder / _ADAPTER).get("base_model_name_or_path"))
    _check_kind(names, f"model directory {folder}", base)
    if "config.json" not in names:
        raise ValueError(f"model directory {folder} has no config.json; save one with save_pretrained")
    check_weights(names, f"model directory {folder}")
    if not _has_vocabulary(folder):
        raise ValueError(
            f"model directory {folder} has no tokenizer ({', '.join(_VOCABULARY)}); add it with the tokenizer's "
            "save_pretrained"
        )
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and not find_spec("sentencepiece"):
        raise ValueError(
            f"model directory {folder} has its tokenizer in sentencepiece's format only ("
            f"{min(path.name for path in folder.glob('*.model'))}), and sentencepiece is not installed; run "
            "`pip install sentencepiece`, or, where it is installed, use the tokenizer's save_pretrained, which writes "
            "tokenizer.json"
        )
    missing = _missing_shards(folder)
    if missing:
        raise ValueError(
            f"model directory {folder} lacks {len(missing)} of the files that {_SHARD_INDEX} names, {missing[0]} "
            "first; copy them, or download the model again"
        )
    for path in _defining_files(folder):
        if path.suffix == ".json":
            read_json(path)
    for name in sorted(_weight_files(folder)):
        _check_header(folder / name)


def check_weights(names: list[str], where: str) -> None:
    """Raise ValueError unless there are weights in safetensors: pickled weights can run code when they are loaded."""
    if _WEIGHTS in names or _SHARD_INDEX in names:
        return
    _check_kind(names, where, f"the model that {_ADAPTER} names")
    if parts := sorted(name for name in names if name.endswith(".safetensors")):
        found = parts[0] if len(parts) == 1 else f"{len(parts)} files of weights ({parts[0]} first)"
        raise ValueError(
            f"{where} holds {found} and neither {_WEIGHTS} nor {_SHARD_INDEX}, which says what is in which; download "
            "the model again, index included, or load it where it can be loaded and save it with save_pretrained"
        )
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if pickled:
        raise ValueError(
            f"{where} holds pickled weights only ({pickled[0]}), which are not read; if you trust it, load it and "
            "save it with save_pretrained, which writes safetensors, or name a revision that has them"
        )
    raise ValueError(f"{where} holds no weights ({_WEIGHTS} or {_SHARD_INDEX}); add them, or download the model again")


def _check_kind(names: Collection[str], where: str, base: str) -> None:
    """Raise ValueError if a directory holds an adapter of `base`, or a model in another program's format."""
    if _ADAPTER in names:
        raise ValueError(
            f"{where} is an adapter of {base}, not a model: load that as BASE with transformers, merge with peft's "
            "PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload().save_pretrained(NEW), save the tokenizer too, "
            "and give NEW"
        )
    weights = _WEIGHTS in names or _SHARD_INDEX in names
    if not weights and (gguf := sorted(name for name in names if name.lower().endswith(".gguf"))):
        raise ValueError(
            f"{where} holds {gguf[0]} and no safetensors; give the file itself, model.path=FOLDER/{gguf[0]} (one of a "
            f"hub repository after `hf download ORG/NAME {gguf[0]}`)"
        )


def weights_hash(folder: Path) -> str:
    """Hash the names and contents of the files that define a model."""
    lines = "".join(f"{file.name}\0{content_hash(file)}\n" for file in _defining_files(folder))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(path: Path | None) -> dict[str, Any]:
    """Return the object that a json file holds, or an empty one if the file does not exist.

    Raises:
        ValueError: the file is not json, or does not hold an object.
    """
    if path is None or not path.is_file():
        return {}
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, {error}; copy it again, or download the model again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__} where a json object belongs; copy it again")
    return cast(dict[str, Any], found)


def _missing_shards(folder: Path) -> list[str]:
    return sorted(name for name in _weight_files(folder) if not (folder / name).is_file())


def _defining_files(folder: Path) -> list[Path]:
    return sorted({file for pattern in _DEFINING for file in folder.glob(pattern) if file.is_file()})


def _weight_files(folder: Path) -> set[str]:
    """Return the names of the files with weights: the single file, and the files that an index names."""
    index, named = folder / _SHARD_INDEX, set[str]()
    if index.is_file():
        parts: object = read_json(index).get("weight_map")
        if not isinstance(parts, dict):
            raise ValueError(f"{index} has no weight_map, which says what is in which file; download it again")
        named = set(cast(dict[str, str], parts).values())
    return named | ({_WEIGHTS} if (folder / _WEIGHTS).is_file() else set())


def _has_vocabulary(folder: Path) -> bool:
    if any(path for pattern in _VOCABULARY for path in folder.glob(pattern)):
        return True
    return read_json(folder / "tokenizer_config.json").get("tokenizer_class") in _WITHOUT_VOCABULARY


def _check_header(path: Path) -> None:
    """Raise ValueError if a weight file is cut off or is not safetensors; the weights themselves are not read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged: {error}; copy it again, download the model again, or "
            "run `git lfs pull` where it was cloned"
        ) from error


def full_disk(said: str, path: Path) -> OSError | None:
    """Return the error for what a program said about writing to `path`, or None if it is not about a full disk."""
    number = next((number for phrase, number in _FULL.items() if phrase.lower() in said.lower()), None)
    return OSError(number, os.strerror(number), str(path)) if number else None


@contextmanager
def full_disk_told(path: Path) -> Generator[None]:
    """Raise OSError on a full disk or quota, where safetensors and torch raise errors of their own."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        full = full_disk(str(error), path)
        if not full and shutil.disk_usage(path.parent).free < _NEARLY_FULL:
            full = full_disk("No space left", path)
        if not full:
            raise
        raise full from error
