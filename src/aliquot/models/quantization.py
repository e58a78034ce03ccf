"""Base weights in 4 bits, so that a large model fits on a small GPU. Enabled by `model/quantization=nf4`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


@dataclass(frozen=True)
class NF4:
    """4-bit NormalFloat weights; computation is in the model's dtype: QLoRA (Dettmers et al., 2023).

    The linear layers inside the blocks are quantized; the embeddings and the output layer are not. An adapter on such
    weights is never merged into them.

    Args:
        double_quant: also quantize the scales of the blocks of weights, which saves 0.37 bits per weight.
    """

    double_quant: bool = True

    def check(self) -> None:
        """Raise ValueError if this machine cannot compute with 4-bit weights."""
        remedy = "use model/quantization=none, or a machine that has both"
        if find_spec("bitsandbytes") is None:
            raise ValueError(
                "model/quantization=nf4 needs a GPU and the package bitsandbytes, which is not installed; run "
                f"pip install bitsandbytes, or {remedy}"
            )
        import torch

        if not torch.cuda.is_available():
            raise ValueError(f"model/quantization=nf4 needs a GPU, and torch finds none; {remedy}")

    def config(self, dtype: str) -> BitsAndBytesConfig:
        """Return the settings as transformers expects them."""
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
