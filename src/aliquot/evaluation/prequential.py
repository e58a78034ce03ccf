"""How well a model predicts responses that were just bought, before it is trained on them.

responses -> tokens -> mean nats per token of each -> bought.npz, with what earlier rounds bought
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Int64

from aliquot.evaluation.held_out.source import HeldOutRows
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.shards import Shards, save_arrays
from aliquot.types import AnnotatedSet, Bought

if TYPE_CHECKING:
    from aliquot.scoring.shares import Load

_BOUGHT = "bought.npz"


@dataclass(frozen=True)
class _OfBought:
    """What is asked about bought responses: how likely they are. The model gives none of its own."""

    tokens_per_batch: int

    stage: ClassVar[str] = "bought"
    group: ClassVar[str] = "scorer"
    row: ClassVar[str] = "bought row"

    def num_new(self, model: Model, longest: int) -> int:
        return 0


def read_bought(
    model: Model,
    load: Load,
    annotated: AnnotatedSet,
    rows: Int64[np.ndarray, " m"],
    earlier: Bought | None,
    trainer: TrainerSpec,
    tokens_per_batch: int,
    directory: Path,
) -> None:
    """Write the losses of responses into `directory`, for `load_bought`; resumes an earlier attempt.

    Args:
        model: how prompts are written.
        load: returns the network, which was not trained on these responses.
        annotated: the prompts and their responses; may be empty, if no new response is of use.
        rows: of the pool, one per response.
        earlier: what earlier rounds bought, or None.
        trainer: names the device.
        tokens_per_batch: padding and responses included.
        directory: for the losses, and for finished batches meanwhile.

    Raises:
        ValueError: a likelihood is not a number, the model has too few positions, or a single row does not fit into
            memory.
    """
    losses, shards = np.empty(0), Shards(directory / "shards")
    if len(annotated):
        from aliquot.evaluation.held_out.answers import answer

        network = load().to(trainer.device())  # pyright: ignore[reportArgumentType]
        options = [None] * len(annotated)
        asked = HeldOutRows(annotated.ids, None, annotated.prompts, annotated.responses, options)
        answers = answer(model, network, _OfBought(tokens_per_batch), asked, shards)
        losses = answers.losses
    bought = Bought.joined(earlier, rows, losses)
    save_arrays(directory / _BOUGHT, vars(bought))
    shards.remove()


def load_bought(directory: Path) -> Bought:
    """Return what `read_bought` wrote."""
    with np.load(directory / _BOUGHT, allow_pickle=False) as arrays:
        return Bought(arrays["rows"], arrays["loss"], arrays["round"])
