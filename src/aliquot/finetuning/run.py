"""LoRA finetuning: from annotated prompts to an adapter on disk.

Only response tokens are trained on, including the end-of-sequence token. An interrupted run resumes from its last
checkpoint, even in the middle of an epoch, and ends in the same adapter.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aliquot.finetuning.recipe import ADAPTER, MARKER, RECORD, LoRA
from aliquot.finetuning.targets import ALL_LINEAR, AUTO, TARGETS
from aliquot.models.control_tokens import note_literal
from aliquot.models.spec import Model
from aliquot.models.template import OVERLONG
from aliquot.runtime.trainer import TrainerSpec
from aliquot.store.store import OnMetrics, ignore, key_fields
from aliquot.types import Adapter, AnnotatedSet

if TYPE_CHECKING:
    from aliquot.finetuning.examples import Examples
    from aliquot.finetuning.training import Training

log = logging.getLogger(__name__)


def finetune(
    model: Model,
    annotated: AnnotatedSet,
    recipe: LoRA,
    trainer: TrainerSpec,
    directory: Path,
    on_metrics: OnMetrics = ignore,
) -> Adapter:
    """Train an adapter of `model` on annotated prompts, and write it and the records of training to `directory`.

    Writes adapter/ (peft's format), finetune.json (counts, loss) and metrics.jsonl (one line per percent of the steps,
    each also passed to `on_metrics`). The checkpoint next to them exists only until training ends.
    On several devices, each takes a share of every step; the steps and the dropout masks stay the same.

    Raises:
        ValueError: the dtype cannot be trained, there is nothing to train on, the loss is not finite, `directory` holds
            the checkpoint of another training, or this is not the first process of several; only that one begins one.
    """
    at = trainer.place()
    if at.rank > 0:
        raise ValueError(
            f"process {at.rank + 1} of {at.world} cannot begin a training, and the first has ended without one; its "
            "output says why"
        )
    training = _plan(model, annotated, recipe, trainer, directory)
    _report(training.examples, model)
    directory.mkdir(parents=True, exist_ok=True)
    training.run(at, on_metrics)
    return load_adapter(directory)


def take_part(
    model: Model,
    annotated: Callable[[], AnnotatedSet],
    recipe: LoRA,
    trainer: TrainerSpec,
    directory: Path,
    is_done: Callable[[], bool],
) -> None:
    """Join the training that the first process of this launch begins in `directory`; another run may finish it.

    Args:
        model: the base.
        annotated: returns the training data; called when the training begins.
        recipe: the hyperparameters.
        trainer: the devices.
        directory: of the training.
        is_done: says whether the training is already finished.
    """
    from aliquot.runtime.processes import wait_for_launch

    at = trainer.place()
    if wait_for_launch(directory / MARKER, at.launch, is_done):
        _plan(model, annotated(), recipe, trainer, directory).take_part(at, ignore)


def load_adapter(directory: Path) -> Adapter:
    """Return the adapter that `finetune` left in `directory`."""
    record = json.loads((directory / RECORD).read_text())
    return Adapter(directory / ADAPTER, record["base"], record["steps"], record["loss"])


def _plan(model: Model, annotated: AnnotatedSet, recipe: LoRA, trainer: TrainerSpec, directory: Path) -> Training:
    check_trainable(model, recipe)
    if not len(annotated):
        raise ValueError("there are 0 annotated prompts to finetune on; raise the budget")
    from aliquot.finetuning.examples import encode_examples
    from aliquot.finetuning.training import Training

    tokenizer = model.load_tokenizer()
    examples = encode_examples(model, tokenizer, annotated)
    longest = int(examples.lengths.max())
    model.check_positions(longest, f"an example of {longest} tokens takes")
    assert isinstance(tokenizer.pad_token_id, int)
    fingerprint = _fingerprint(model, recipe, examples)
    return Training(model, examples, tokenizer.pad_token_id, recipe, fingerprint, trainer, directory)


def _report(examples: Examples, model: Model) -> None:
    """Report the losses to `max_tokens`, and what was read as text."""
    if examples.num_literal:
        log.info("%s", note_literal(examples.num_literal, len(examples.tokens), "examples"))
    if examples.num_cut_prompts or examples.num_cut_responses:
        log.warning(
            "model.max_tokens=%d: of %d examples, %d lost the %s of the prompt and %d the end of the response",
            *(model.max_tokens, len(examples.tokens)),
            *(examples.num_cut_prompts, OVERLONG[model.overlong], examples.num_cut_responses),
        )


def _fingerprint(model: Model, recipe: LoRA, examples: Examples) -> str:
    """Hash everything that the training depends on."""
    digest = hashlib.sha256(repr((model.identity(), key_fields(recipe))).encode())
    for array in (examples.lengths, examples.prompt_lengths, *examples.tokens):
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_trainable(model: Model, recipe: LoRA) -> None:
    """Raise ValueError if the model cannot be finetuned with the recipe, before anything expensive starts."""
    if model.dtype == "float16":
        raise ValueError("model.dtype=float16 has too narrow a range for gradients; use bfloat16 or float32")
    names = recipe.module_names()
    if names in ([ALL_LINEAR], [AUTO]) and model.family() in TARGETS:
        return  # early, because importing torch and peft takes seconds
    from aliquot.finetuning.adapter import check_adaptable

    check_adaptable(model, recipe)
