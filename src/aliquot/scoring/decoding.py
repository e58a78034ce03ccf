"""Greedy decoding of a batch after its prefill, with statistics of every generated token.

Not based on `generate`: the prefill is shared with the features, finished rows leave the batch, and per token three
numbers leave the device, never the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from aliquot.scoring.kv_cache import Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Finished rows stay in the batch until they are this share of it, because dropping them copies the cache.
_DROP_FROM = 0.125


def give_float32_logits(network: PreTrainedModel) -> None:
    """Let the output layer of a 16-bit model compute in float32, with a float32 copy of its weights.

    Between 16 and 32, bfloat16 has only multiples of 1/8, so 16-bit logits tie, and a margin is often exactly 0. Later
    operations that a model family applies to its logits, such as scaling or capping, are then also in float32. If the
    embeddings share the weights, theirs stay as they are.
    """
    layer = cast(torch.nn.Module, network.get_output_embeddings())
    if layer.weight.dtype not in (torch.bfloat16, torch.float16):
        return
    for name, values in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, torch.nn.Parameter(values.detach().float(), requires_grad=False))
    layer.register_forward_pre_hook(lambda _, args: (args[0].float(), *args[1:]))


def respond(
    context: Context,
    logits: Float[Tensor, "b v"],
    ends: Int64[Tensor, " e"],
    num_new: int,
    pre_logits: Callable[[], Tensor] | None = None,
    keep_tokens: bool = False,
) -> dict[str, Tensor]:
    """Continue greedily from the logits of the last position.

    Args:
        context: the prompts; it is consumed.
        logits: of the first token of the responses.
        ends: the tokens that end a response. An end token counts, and is the last.
        num_new: the longest response in tokens.
        pre_logits: returns what the logits of the last read were computed from, (b, r); None if that is not kept.
        keep_tokens: return the tokens as well.

    Returns:
        `token_lengths` (b,) and, flat, `entropy`, `top1`, `top2`, `pre_logits` and `tokens`, all on the device.
    """
    device, num_rows = logits.device, len(logits)
    stats = torch.zeros(num_rows, num_new, 3, device=device)
    lengths = torch.zeros(num_rows, dtype=torch.int64, device=device)
    rows = torch.arange(num_rows, device=device)  # the row of the batch that each row of the context belongs to
    going = torch.ones(num_rows, dtype=torch.bool, device=device)
    states: list[Tensor] = []
    written = torch.zeros(num_rows, num_new if keep_tokens else 0, dtype=torch.int64, device=device)
    for step in range(num_new):
        tokens, stats[rows, step] = describe(logits)
        if pre_logits:
            state = pre_logits()
            states.append(state.new_zeros(num_rows, state.shape[1]).index_copy(0, rows, state))
        if keep_tokens:
            written[rows, step] = tokens
        lengths[rows] += going
        going &= ~torch.isin(tokens, ends)
        if step == num_new - 1 or not going.any():
            break
        if _worth_dropping(going):
            context.keep(going.nonzero().squeeze(1))
            rows, tokens, going = rows[going], tokens[going], going[going]
        logits = context.read(tokens[:, None]).logits[:, -1]
    valid = torch.arange(num_new, device=device) < lengths[:, None]
    entropy, top1, top2 = stats[valid].unbind(dim=1)
    kept = {"pre_logits": torch.stack(states, dim=1)[valid[:, : len(states)]]} if pre_logits else {}
    if keep_tokens:
        kept["tokens"] = written[valid]
    return {"token_lengths": lengths, "entropy": entropy, "top1": top1, "top2": top2, **kept}


def _worth_dropping(going: Bool[Tensor, " b"]) -> bool:
    return len(going) - int(going.sum()) >= max(1, _DROP_FROM * len(going))


def describe(logits: Float[Tensor, "b v"]) -> tuple[Int64[Tensor, " b"], Float32[Tensor, "b 3"]]:
    """Return the greedy token, and entropy in nats, largest and second largest probability, all in float32."""
    logits = logits.float()
    log_probabilities = logits.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    # A float32 probability below exp(-104) is 0; the bound keeps 0 * -inf, of a masked token, from being NaN.
    entropy = -(probabilities * log_probabilities.clamp(min=-200)).sum(dim=1, keepdim=True)
    return logits.argmax(dim=1), torch.cat([entropy, probabilities.topk(2, dim=1).values], dim=1)
