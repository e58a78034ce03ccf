"""A recipe that trains a tiny model in a few steps, and the device that tests train on."""

from aliquot.finetuning.recipe import LoRA
from aliquot.runtime.trainer import TrainerSpec

RECIPE = LoRA(
    rank=4,
    alpha=8,
    dropout=0.1,
    target_modules="all-linear",
    learning_rate=1e-2,
    warmup=0.1,
    schedule="linear",
    weight_decay=0.0,
    epochs=2,
    tokens_per_batch=40,
    accumulate=2,
    max_grad_norm=1.0,
    seed=0,
    checkpoint_every=3,
)
CPU = TrainerSpec("cpu")
