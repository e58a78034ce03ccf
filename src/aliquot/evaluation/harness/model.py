"""The models that lm-eval queries: transformers', with prefix reuse, progress and truncation counts; or vLLM's."""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

import torch
from lm_eval.models.huggingface import HFLM
from transformers.cache_utils import DynamicCache, DynamicLayer

from aliquot.models.spec import Model
from aliquot.types import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Minimum number of tokens for which computing a prefix once pays for copying it to every row.
_WORTH_REUSE = 64
_PROBE = list(range(8)), list(range(8, 16))

# The decorator that registers HFLM hides its class from type checkers.
_HFLM: Any = HFLM
# (text of context and continuation, their tokens)
Request = tuple[Any, list[int], list[int]]


def _ignore(rows: int, of: int) -> None:
    """Accept progress and do nothing."""


class HarnessModel(_HFLM):
    """lm-eval's model of transformers, causal or encoder-decoder.

    The questions of a few-shot task all begin with the same worked examples. The model's state after them is kept and
    reused for every batch if the model is causal with plain attention. Scores change only in the last bits, as they
    do with the batch size.

    Args:
        network: runs on the device of its weights.
        tokenizer: its padding side is restored after every call.
        batch_size: number of simultaneous questions.
        reuse: False recomputes the worked examples for every question.
    """

    #: Receives the number of rows of a task that went through the model, and their total.
    on_rows: Callable[[int, int], None] = staticmethod(_ignore)

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, reuse: bool = True
    ) -> None:
        super().__init__(pretrained=network, tokenizer=cast(Any, tokenizer), batch_size=batch_size)
        #: Number of questions that lost their beginning because they exceed the model's context.
        self.num_cut = 0
        self._reuse = reuse
        self._prefix: list[int] = []
        self._prefix_cache: DynamicCache | None = None
        self._rows = self._num_rows = 0

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        self._rows, self._num_rows = 0, len(requests)
        return super().generate_until(requests, disable_tqdm=True)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Request], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        causal = self.backend == "causal"
        # One row answers all choices that are single tokens, because the model reads the same input for all of them.
        rows = {(*context, *choice[:-1]) if causal else (*context, -1, *choice) for _, context, choice in requests}
        self._rows, self._num_rows = 0, len(rows)
        self.num_cut += len({tuple(c) for _, c, end in requests if len(c) + causal * (len(end) - 1) > self.max_length})
        self._prefix = _common_prefix([context for _, context, _ in requests]) if causal and self._reuse else []
        self._prefix_cache = None
        try:
            return super()._loglikelihood_tokens(requests, *args, **kwargs)
        finally:
            self._prefix, self._prefix_cache = [], None

    def tok_batch_encode(
        self, strings: list[str], left_truncate_len: int | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = super().tok_batch_encode(strings, **kwargs)
        if left_truncate_len is None:
            return ids, mask
        self.num_cut += int((mask.sum(1) > left_truncate_len).sum())
        return ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]

    @torch.no_grad()
    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        cache = None if args or kwargs else self._cache_for(inps)
        if cache is None:
            logits = super()._model_call(inps, *args, **kwargs)
        else:
            # lm-eval counts positions from the end, so that the prefix may be missing.
            logits = self.model(inps[:, len(self._prefix) :], past_key_values=cache, use_cache=True).logits
        return self._counted(logits)

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._counted(super()._model_generate(context, *args, **kwargs))

    def _cache_for(self, inps: torch.Tensor) -> DynamicCache | None:
        """Return the model's state after the prefix, repeated for the given rows; None if a row lacks the prefix."""
        length = len(self._prefix)
        if length < _WORTH_REUSE:
            return None
        prefix = torch.tensor(self._prefix, device=inps.device)
        if inps.shape[1] <= length or not bool((inps[:, :length] == prefix).all()):
            return None  # a row was truncated
        if self._prefix_cache is None:
            cache = self.model(prefix[None], use_cache=True).past_key_values
            if not isinstance(cache, DynamicCache) or any(type(layer) is not DynamicLayer for layer in cache.layers):
                self._prefix = []  # windows and states do not grow by appending
                return None
            self._prefix_cache = cache
        rows = copy.deepcopy(self._prefix_cache)
        rows.batch_repeat_interleave(len(inps))
        return rows

    def _counted(self, rows: torch.Tensor) -> torch.Tensor:
        self._rows += len(rows)
        self.on_rows(self._rows, self._num_rows)
        return rows


def _common_prefix(contexts: Sequence[list[int]]) -> list[int]:
    """Return the common beginning of all contexts, without the last token of the shortest, whose logits are needed."""
    columns = zip(*(context[:-1] for context in contexts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def probe(lm: Any) -> float:
    """Return the log-likelihood of sixteen fixed tokens, in nats: any change to the weights changes it."""
    context, continuation = _PROBE
    return float(lm._loglikelihood_tokens([(("", ""), context, continuation)], disable_tqdm=True)[0][0])


def vllm_arguments(model: Model, adapter: Adapter | None, batch_size: int) -> dict[str, Any]:
    """Return what lm-eval's vLLM class should load: the base by path or commit, and the adapter apart, unmerged."""
    arguments: dict[str, Any] = {
        "pretrained": str(model.directory() or model.path),
        "revision": model.revision,
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "batch_size": batch_size,
    }
    if adapter is None:
        return arguments
    rank = json.loads((adapter.path / "adapter_config.json").read_text())["r"]
    return arguments | {"lora_local_path": str(adapter.path), "max_lora_rank": rank}


def open_vllm(model: Model, adapter: Adapter | None, batch_size: int) -> tuple[Any, float | None]:
    """Load the model into vLLM; return it and the change that the adapter makes to the probe, in nats.

    Raises:
        ValueError: the adapter was trained but changes nothing.
    """
    from lm_eval.models.vllm_causallms import VLLM

    vllm: Any = VLLM
    lm = vllm(**vllm_arguments(model, adapter, batch_size))
    if adapter is None:
        return lm, None
    finetuned, lora, lm.lora_request = probe(lm), lm.lora_request, None
    bare, lm.lora_request = probe(lm), lora
    if adapter.steps and finetuned == bare:
        raise ValueError(f"adapter {adapter.path} changes nothing in vllm; set evaluate.backend=hf")
    return lm, finetuned - bare
