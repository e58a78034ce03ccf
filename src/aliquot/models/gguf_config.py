"""The config of a network in GGUF: what the file says and transformers does not read is set or refused here."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aliquot.models.weights import auto_class

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: The tensor with the numbers by which rotary frequencies are divided.
_FACTORS = "rope_freqs.weight"
#: By architecture, what transformers 5.23 leaves at its default, and the field of the config that it belongs to.
_UNREAD = {
    "falcon": {"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    "gemma2": {
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "nemotron": {"attention.layer_norm_epsilon": "norm_eps"},
    "phi3": {"attention.sliding_window": "sliding_window"},
    "qwen3": {"attention.key_length": "head_dim"},
    "starcoder2": {"attention.sliding_window": "sliding_window"},
    "t5": {"decoder_block_count": "num_decoder_layers"},
}
#: The depth of Gemma's 27B, whose queries are scaled by another number than the head size (llama.cpp, src/models).
_DEEPEST_GEMMA = {"gemma2": 46, "gemma3": 62}
#: Biases that a config turns on, by the field, and the tensors that show it.
_BIASES = {"attention_bias": ("attn_q.bias", "attn_output.bias"), "mlp_bias": ("ffn_up.bias", "ffn_down.bias")}
#: Tensors without a place in the network that change nothing: rotary positions, which are checked apart, and T5's
#: second position bias, which no program reads.
_NEEDLESS = re.compile(r"^rope_|\.attn_rot_embd\.|\.cross_attn_rel_b\.")


def complete(config: PreTrainedConfig, facts: dict[str, Any]) -> None:
    """Set what the file says about the network and transformers has not read."""
    architecture = facts["general.architecture"]
    for fact, field in _UNREAD.get(architecture, {}).items():
        if f"{architecture}.{fact}" in facts:
            setattr(config, field, facts[f"{architecture}.{fact}"] or None)  # 0 stands for no window
    if config.model_type in ("t5", "umt5"):  # llama.cpp's T5 has a gate and GELU, or neither
        gated = any("ffn_gate" in name for name in facts["tensors"])
        kinds = ("gated-gelu", "gelu_new") if gated else ("relu", "relu")
        vars(config).update(is_gated_act=gated, feed_forward_proj=kinds[0], dense_act_fn=kinds[1])
    for field, names in _BIASES.items():
        if hasattr(config, field) and any(name.endswith(names) for name in facts["tensors"]):
            setattr(config, field, True)
    if architecture in _DEEPEST_GEMMA:
        deepest = config.num_hidden_layers == _DEEPEST_GEMMA[architecture]
        vars(config)["query_pre_attn_scalar"] = (
            config.hidden_size // config.num_attention_heads if deepest else config.head_dim
        )
    _set_rotary(config, facts)
    if _FACTORS in facts["tensors"]:
        _scale_positions(config, facts["tensors"][_FACTORS])


def _set_rotary(config: PreTrainedConfig, facts: dict[str, Any]) -> None:
    """Set the base of the rotary frequencies, and the part of a head that is rotated."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    said = f"{facts['general.architecture']}.rope."
    # Gemma 3 and later have settings for each kind of layer.
    kinds = {"freq_base": rope.get("full_attention", rope), "freq_base_swa": rope.get("sliding_attention", {})}
    for name, settings in kinds.items():
        if said + name in facts and "rope_theta" in settings:
            settings["rope_theta"] = float(facts[said + name])
    rotated = facts.get(f"{said}dimension_count")
    if rotated and "rope_theta" in rope:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if int(head * rope.get("partial_rotary_factor", 1.0)) != rotated:
            rope["partial_rotary_factor"] = rotated / head


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


def misread(config: PreTrainedConfig, facts: dict[str, Any]) -> str | None:
    """Say what transformers would get wrong with a completed config, or return None; no weight is read."""
    import torch

    if scaled := _unread_scaling(config, facts):
        return f"scales its rotary positions ({scaled}), which transformers does not read from GGUF"
    with torch.device("meta"):
        network: PreTrainedModel = auto_class(config).from_config(config)
    sizes = {2 * buffer.shape[0] for name, buffer in network.named_buffers() if name.endswith("inv_freq")}
    rotated = facts.get(f"{facts['general.architecture']}.rope.dimension_count")
    if sizes and rotated and rotated not in sizes:
        return f"rotates {rotated} numbers of each head, where transformers' {config.model_type} rotates {max(sizes)}"
    if unread := _unread(network, facts):
        count = f"{len(unread)} of {len(facts['tensors'])} tensors ({unread[0]} first)"
        return f"has {count} that transformers' {config.model_type} has no place for"
    return None


def _unread_scaling(config: PreTrainedConfig, facts: dict[str, Any]) -> str | None:
    """Return the tensor or field by which the file scales its rotary positions if transformers has not read it."""
    kinds = set(re.findall(r"'rope_type': '(\w+)'", str(config.to_dict().get("rope_parameters")))) - {"default"}
    rope = f"{facts['general.architecture']}.rope."
    found = [name for name in facts["tensors"] if name.startswith("rope_f")]
    if f"{rope}scaling.type" in facts:
        kind = facts[f"{rope}scaling.type"]
        found += [] if kind == "none" else [f"rope.scaling.type={kind}"]
    else:  # linear, as in files from the time before there was a type; 0 and 1 stand for none
        linear = {name: facts.get(f"{rope}{name}", 0) for name in ("scaling.factor", "scale_linear")}
        found += [f"rope.{name}={factor:g}" for name, factor in linear.items() if factor not in (0, 1)]
    return found[0] if found and not kinds else None


def _unread(network: PreTrainedModel, facts: dict[str, Any]) -> list[str]:
    """Return the tensors that transformers leaves out without a word.

    Its first reader does. The second one, of some architectures from 5.23 on, reports them as weights without a place.
    """
    from transformers import modeling_gguf_pytorch_utils as reader

    architecture = facts["general.architecture"]
    if find_spec("transformers.integrations.gguf.utils"):
        from transformers.integrations.gguf.utils import is_gguf_arch_supported

        if is_gguf_arch_supported(architecture):
            return []
    processor = reader.TENSOR_PROCESSORS.get(architecture, reader.TensorProcessor)(config=network.config.to_dict())
    places = reader.get_gguf_hf_weights_map(network, processor)
    # Experts that are stored together have a place whose name ends before ".weight".
    return [
        name
        for name in facts["tensors"]
        if not _NEEDLESS.search(name) and name not in places and name.removesuffix(".weight") not in places
    ]
