"""Causal language models: how one is named in a config, loaded, and made to read a prompt.

The only home of transformers' loading functions. A spec is cheap and frozen; `load()` does the work.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aliquot.sources import content_hash, locate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = ("float32", "bfloat16", "float16")
_SHARD_INDEX = "model.safetensors.index.json"
_TOKENIZER = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
#: The files of a directory that decide what a model computes: not its README, nor its git history.
_DEFINING = ("config.json", "generation_config.json", _SHARD_INDEX, "*.safetensors", "*.py", *_TOKENIZER)


@dataclass(frozen=True)
class Model:
    """Names a base model and the text format it is finetuned and scored in.

    Args:
        path: a directory, a `pkg://` resource, or a Hugging Face hub id.
        revision: commit of the hub repository, which a hub id needs: branches move. Belongs to the identity.
        dtype: of weights and arithmetic: float32, bfloat16 or float16.
        template: one example as the model sees it, with `{prompt}` and, last, `{response}`.
        max_tokens: the longest example in tokens, prompt and response. Where more is needed, the prompt loses its
            beginning: what is asked usually stands at its end.
        trust_remote_code: let the hub repository run its own Python. Off unless asked for.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    template: str = "{prompt}\nAnswer: {response}"
    max_tokens: int = 256
    trust_remote_code: bool = field(default=False, metadata={"key": False})

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"model.dtype={self.dtype} is unknown; choose one of {', '.join(_DTYPES)}")
        if "{prompt}" not in self.template or not self.template.endswith("{response}"):
            raise ValueError(
                f"model.template={self.template!r} must contain {{prompt}} and end with {{response}}, "
                "for example '{prompt}\\nAnswer: {response}'"
            )
        if "\\n" in self.template:
            raise ValueError(
                f"model.template={self.template!r} holds a backslash and an n where a line break must be meant; "
                "write it in a yaml file between double quotes, or in a shell as $'...\\n...'"
            )
        if self.max_tokens < 2:
            raise ValueError(f"model.max_tokens={self.max_tokens} leaves no room; give at least 2")

    def identity(self) -> dict[str, object]:
        """Name the weights by content (a local directory) or by repository and commit (the hub).

        Raises:
            ValueError: a hub model is not pinned to a commit.
        """
        local = self.directory()
        if local is None:
            self._check_hub_id()
        weights = _weights_hash(local) if local else f"{self.path}@{self.revision}"
        return {"weights": weights, "dtype": self.dtype, "template": self.template, "max_tokens": self.max_tokens}

    def directory(self) -> Path | None:
        """Return the local directory, or None for a hub id."""
        path = locate(self.path)
        return path if path.is_dir() else None

    def check(self) -> None:
        """Raise ValueError unless the model can be loaded, before anything expensive starts."""
        local = self.directory()
        if local is None:
            self._check_hub_id()
            return
        if not (local / "config.json").is_file():
            raise ValueError(f"model directory {local} has no config.json; save one with save_pretrained")
        if not any(local.glob("*.safetensors")):
            remedy = "convert the pickled weights with save_pretrained" if any(local.glob("*.bin")) else "add them"
            raise ValueError(f"model directory {local} holds no weights (*.safetensors); {remedy}")
        if not any(path for pattern in _TOKENIZER for path in local.glob(pattern)):
            raise ValueError(f"model directory {local} has no tokenizer; add it with the tokenizer's save_pretrained")
        missing = _missing_shards(local)
        if missing:
            raise ValueError(
                f"model directory {local} lacks {len(missing)} of the files that {_SHARD_INDEX} names, {missing[0]} "
                "first; copy them, or download the model again"
            )

    def _check_hub_id(self) -> None:
        """Raise ValueError unless path and revision name one commit of a hub repository."""
        if self.path.startswith((".", "/", "~", "pkg://")) or self.path.count("/") != 1:
            raise ValueError(f"model.path={self.path} is no directory; give one, or a hub id such as org/name")
        if not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                f"model.revision={self.revision} is no commit, so what model.path={self.path} means may change; set "
                f"model.revision to one of https://huggingface.co/{self.path}/commits/main"
            )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer; one without a padding token pads with its end-of-sequence token."""
        from transformers import AutoTokenizer

        with self._explained():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self._source(), **self._options())
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {self.path} has no end-of-sequence token, so no response could end; set eos_token "
                "in its tokenizer_config.json"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def load(self) -> PreTrainedModel:
        """Load the weights (safetensors only) in eval mode with the KV cache on."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar of its own for every load; ours tell how far the work is
        with self._explained():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                self._source(), dtype=self.dtype, use_safetensors=True, **self._options()
            )
        model.config.use_cache = True
        return model.eval()

    def _source(self) -> str:
        return str(self.directory() or self.path)

    def _options(self) -> dict[str, Any]:
        hub = {} if self.directory() else {"revision": self.revision}
        return {"trust_remote_code": self.trust_remote_code, **hub}

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Say what to do where the hub does not give the model out."""
        try:
            yield
        except OSError as error:
            if self.directory() or error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ValueError(
                f"model.path={self.path} at revision {self.revision} cannot be loaded from the Hugging Face hub: "
                f"{reason} Check id, revision and network; where access is restricted, run `hf auth login`"
            ) from error

    def encode_prompts(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
        """Tokenise prompts in the template up to where the response begins, special tokens included; none is cut."""
        return _encode(tokenizer, [self._halves(prompt)[0] for prompt in prompts])

    def encode_pairs(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], responses: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Tokenise prompts and what follows them: the response, ended by the end-of-sequence token.

        The response's tokens are those that the whole text has beyond the prompt's, as in lm-eval: read on its own,
        a tokenizer would take a response for the beginning of a text.
        """
        before = self.encode_prompts(tokenizer, prompts)
        pairs = zip(map(self._halves, prompts), responses, strict=True)
        whole = _encode(tokenizer, [start + gap + response for (start, gap), response in pairs])
        end = cast(int, tokenizer.eos_token_id)
        return [(ids, [*both[len(ids) :], end]) for ids, both in zip(before, whole, strict=True)]

    def num_leading(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Count the special tokens that the tokenizer puts before every text."""
        return _num_added(tokenizer)[0]

    def _halves(self, prompt: str) -> tuple[str, str]:
        """Fill in the template up to the response, and split off trailing spaces: those open the response."""
        text = self.template.removesuffix("{response}").replace("{prompt}", prompt)
        before = text.rstrip(" ")
        return before, text[len(before) :]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Tokenise texts without the special tokens that the tokenizer would end them with: ours go on."""
    trailing = _num_added(tokenizer)[1]
    return [ids[: len(ids) - trailing] for ids in cast(list[list[int]], tokenizer(texts)["input_ids"])]


def _num_added(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Count the special tokens that the tokenizer adds before and behind a text."""
    bare = cast(list[int], tokenizer("a", add_special_tokens=False)["input_ids"])
    full = cast(list[int], tokenizer("a")["input_ids"])
    added = len(full) - len(bare)
    leading = next((i for i in range(added) if full[i : i + len(bare)] == bare), added)
    return leading, added - leading


def _weights_hash(directory: Path) -> str:
    """Hash the names and contents of the files that define a model."""
    files = sorted({file for pattern in _DEFINING for file in directory.glob(pattern) if file.is_file()})
    lines = "".join(f"{file.name}\0{content_hash(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _missing_shards(directory: Path) -> list[str]:
    index = directory / _SHARD_INDEX
    if not index.is_file():
        return []
    named: set[str] = set(json.loads(index.read_text())["weight_map"].values())
    return sorted(name for name in named if not (directory / name).is_file())
