"""Causal language models: how one is named in a config, loaded, and made to read a prompt.

The only home of transformers' loading functions. A spec is cheap and frozen; `load()` does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aliquot.sources import content_hash, locate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Model:
    """Names a base model and the text format it is finetuned and scored in.

    Args:
        path: a directory, a `pkg://` resource, or a Hugging Face hub id.
        revision: commit of the hub repository; belongs to the identity.
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
        if self.max_tokens < 2:
            raise ValueError(f"model.max_tokens={self.max_tokens} leaves no room; give at least 2")

    def identity(self) -> dict[str, object]:
        """Name the weights by content (a local directory) or by repository and revision (the hub)."""
        local = self.directory()
        weights = content_hash(local) if local else f"{self.path}@{self.revision or 'main'}"
        return {"weights": weights, "dtype": self.dtype, "template": self.template, "max_tokens": self.max_tokens}

    def directory(self) -> Path | None:
        """Return the local directory, or None for a hub id."""
        path = locate(self.path)
        return path if path.is_dir() else None

    def check(self) -> None:
        """Raise ValueError unless the model can be loaded, before anything expensive starts."""
        local = self.directory()
        if local is None:
            if self.path.startswith((".", "/", "~", "pkg://")) or self.path.count("/") != 1:
                raise ValueError(f"model.path={self.path} is no directory; give one, or a hub id such as org/name")
            return
        if not (local / "config.json").is_file():
            raise ValueError(f"model directory {local} has no config.json; save one with save_pretrained")
        if not any(local.glob("*.safetensors")):
            remedy = "convert the pickled weights with save_pretrained" if any(local.glob("*.bin")) else "add them"
            raise ValueError(f"model directory {local} holds no weights (*.safetensors); {remedy}")

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer; one without a padding token pads with its end-of-sequence token."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self._source(), **self._options())
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def load(self) -> PreTrainedModel:
        """Load the weights (safetensors only) in eval mode with the KV cache on."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar of its own for every load; ours tell how far the work is
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

    def encode_prompts(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
        """Tokenise prompts in the template up to where the response begins, special tokens included; none is cut."""
        texts = [self._before_response().replace("{prompt}", prompt) for prompt in prompts]
        return cast(list[list[int]], tokenizer(texts)["input_ids"])

    def encode_responses(self, tokenizer: PreTrainedTokenizerBase, responses: Sequence[str]) -> list[list[int]]:
        """Tokenise responses as they follow a prompt, each ended by the end-of-sequence token."""
        texts = [self._gap() + response for response in responses]
        encoded = cast(list[list[int]], tokenizer(texts, add_special_tokens=False)["input_ids"])
        end = cast(int, tokenizer.eos_token_id)
        return [[*ids, end] for ids in encoded]

    def _before_response(self) -> str:
        """The template's text before the response, without trailing spaces: those open the response."""
        return self.template.removesuffix("{response}").rstrip(" ")

    def _gap(self) -> str:
        before = self.template.removesuffix("{response}")
        return before[len(before.rstrip(" ")) :]
