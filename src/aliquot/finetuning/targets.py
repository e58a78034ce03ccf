"""Which linear layers get a LoRA adapter: known for the families below, otherwise set by the user, never guessed.

LoRA matches full finetuning if it is on all linear layers of the blocks, not only on attention (Dettmers et al., 2023).
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

AUTO = "auto"
ALL_LINEAR = "all-linear"

_GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_T5 = ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")  # wi in the first T5, wi_0 and wi_1 in later ones
#: A config's model_type -> all linear layers of its blocks, as transformers names them.
TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gemma", "gemma2", "gemma3_text"), _GATED
    ),
    **dict.fromkeys(("gpt_neox", "falcon", "bloom"), _FUSED),
    **dict.fromkeys(("t5", "mt5"), _T5),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neo": ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
}


def find_targets(network: PreTrainedModel, names: Sequence[str]) -> list[str]:
    """Resolve a recipe's setting to names of layers; `all-linear` is kept, because peft knows it.

    Raises:
        ValueError: `auto` for a family that is not in the table, or a name that is not the name of a linear layer.
    """
    if list(names) == [ALL_LINEAR]:
        return [ALL_LINEAR]
    layers = linear_layers(network)
    known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    if list(names) == [AUTO]:
        family = network.config.model_type
        if family not in TARGETS:
            raise ValueError(
                f"finetune.target_modules=auto does not know model family '{family}'; its linear layers are {known}; "
                "name some of these, or set finetune.target_modules=all-linear"
            )
        return [name for name in TARGETS[family] if _matching(layers, name)]
    for name in names:  # peft continues if only some match
        if not _matching(layers, name):
            raise ValueError(
                f"finetune.target_modules: no linear layer of the model is named '{name}'; its linear layers are "
                f"{known}; name some of these, or use auto or all-linear"
            )
    return list(names)


def linear_layers(network: PreTrainedModel) -> dict[str, Module]:
    """Return all linear layers except the output layer."""
    from torch.nn import Linear

    head = network.get_output_embeddings()
    return {
        name: layer
        for name, layer in network.named_modules()
        if (isinstance(layer, Linear) or is_transposed(layer)) and layer is not head
    }


def is_transposed(layer: Module) -> bool:
    """Tell whether a linear layer is of GPT-2's kind, which stores its weights transposed."""
    return type(layer).__name__ == "Conv1D"


def _matching(layers: dict[str, Module], target: str) -> list[str]:
    return [name for name in layers if f".{name}".endswith(f".{target}")]
