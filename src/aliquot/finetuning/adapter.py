"""LoRA adapters (Hu et al., 2021): put on a model, written to disk, read back."""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from aliquot.finetuning.targets import ALL_LINEAR, find_targets, is_transposed, linear_layers
from aliquot.models.files import full_disk_told
from aliquot.models.hub import reason_of
from aliquot.models.spec import Model
from aliquot.types import Adapter

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

    from aliquot.finetuning.recipe import LoRA

log = logging.getLogger(__name__)


def add_adapter(model: Model, recipe: LoRA) -> PeftModel:
    """Load the model, freeze it and put a fresh, seeded adapter on its linear layers."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    base = model.load()
    if model.quantization:  # the layers that are not quantized compute in float32
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    if recipe.gradient_checkpointing:
        # Renamed during the transformers 5 releases; the old name only warns.
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    config = _lora_config(base, recipe)
    torch.manual_seed(recipe.seed)
    with _deprecations_ignored():
        network = cast("PeftModel", get_peft_model(base, config))
    config.base_model_name_or_path = _portable_name(model)
    config.target_modules = cast(Any, sorted(cast(set[str], config.target_modules)))
    _report_size(network, sorted({name.rpartition(".")[2] for name in cast(list[str], config.target_modules)}))
    return network


def check_adaptable(model: Model, recipe: LoRA) -> None:
    """Raise ValueError if a target is unknown, or if peft cannot adapt it; this check needs no weights."""
    from peft import get_peft_model

    skeleton = model.load_skeleton()
    config, layers = _lora_config(skeleton, recipe), linear_layers(skeleton)
    try:
        with _deprecations_ignored(), torch.device("meta"):
            get_peft_model(skeleton, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"finetune.target_modules={recipe.target_modules}: peft refuses it for {model.path}, a {model.family()}: "
            f"{reason_of(error)}; follow that, or name some of its linear layers, such as those of attention, of "
            f"{', '.join(sorted({name.rpartition('.')[2] for name in layers}))}"
        ) from error


def _lora_config(base: PreTrainedModel, recipe: LoRA) -> LoraConfig:
    from peft import LoraConfig

    targets = find_targets(base, recipe.module_names())
    return LoraConfig(
        task_type="SEQ_2_SEQ_LM" if base.config.is_encoder_decoder else "CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=cast(Any, recipe.alpha),
        lora_dropout=recipe.dropout,
        # peft treats a string as a regular expression.
        target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
        fan_in_fan_out=any(map(is_transposed, linear_layers(base).values())),
    )


def _report_size(network: PeftModel, targets: list[str]) -> None:
    trained, total = network.get_nb_trainable_parameters()
    log.info("LoRA on %s: training %s of %s parameters", ", ".join(targets), f"{trained:,}", f"{total:,}")


def save_adapter(network: PeftModel, path: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors atomically."""
    temporary = path.with_name(f".{path.name}")
    for leftover in (temporary, path):
        shutil.rmtree(leftover, ignore_errors=True)
    # By default peft asks the hub whether the vocabulary was resized; here it never is.
    with full_disk_told(temporary):
        network.save_pretrained(str(temporary), save_embedding_layers=False)
    (temporary / "README.md").unlink(missing_ok=True)  # a model card without content
    temporary.rename(path)


def load_finetuned(model: Model, adapter: Adapter) -> PreTrainedModel:
    """Load the model with its adapter, and verify that the adapter has an effect.

    In float32 the adapter is merged into the weights, which is faster. In 16 or 4 bits, merging would round the small
    change to the precision of the large weights, so the adapter stays separate.

    Raises:
        ValueError: the adapter belongs to another base, or changes no logit although its weights are not zero.
    """
    from peft import PeftModel

    base = str(model.identity()["weights"])
    if adapter.base != base:
        raise ValueError(
            f"adapter {adapter.path} was trained on model {adapter.base[:12]}, and {model.path} is {base[:12]}; "
            "evaluate it on its own base"
        )
    with _deprecations_ignored():
        # If the weights fit no layer, peft only warns and continues with fresh ones.
        warnings.filterwarnings("error", message="Found missing adapter keys", category=UserWarning)
        try:
            network = PeftModel.from_pretrained(model.load(), str(adapter.path)).eval()
        except UserWarning as warning:
            raise ValueError(f"adapter {adapter.path} does not fit the layers of {model.path}") from warning
    with torch.inference_mode():
        finetuned = _probe(network)
        with network.disable_adapter():
            bare = _probe(network)
    # B starts as zero: an adapter that took no step correctly changes nothing.
    trained = any(bool(p.count_nonzero()) for name, p in network.named_parameters() if "lora_B" in name)
    if trained and torch.equal(finetuned, bare):
        raise ValueError(f"adapter {adapter.path} changes no logit of {model.path}; finetune again")
    if model.dtype == "float32" and not model.quantization:
        return cast("PreTrainedModel", network.merge_and_unload())
    # With the adapter in its layers, and with the forward of its family: peft's own takes any argument and names none.
    return cast("PreTrainedModel", network.get_base_model())


def _probe(network: PeftModel) -> torch.Tensor:
    """Return the logits of a few tokens."""
    tokens = torch.arange(min(16, network.config.vocab_size), device=network.device)[None]
    response = {"decoder_input_ids": tokens} if network.config.is_encoder_decoder else {}
    return network(input_ids=tokens, **response).logits


def _portable_name(model: Model) -> str:
    """Name the base as the user did, except that a local directory is named by its last part only."""
    local = model.directory()
    return model.path if local is None or model.path.startswith(("pkg://", "pypi://")) else local.name


@contextmanager
def _deprecations_ignored() -> Generator[None]:
    """Hide that peft reads an attribute which transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield
