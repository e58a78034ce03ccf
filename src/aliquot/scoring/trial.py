"""The trial of a model: three prompts are read alone and together before anything is paid for.

A model may load and still be unfit for the pass. If it lets padding into its state, or counts positions from the
padding on, each row gets other features in a batch than alone. Nobody would notice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aliquot.models.format_checks import check_finished_turn
from aliquot.models.spec import Model
from aliquot.models.template import CHAT
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.spec import Scorer, check_scorer
from aliquot.store.provenance import versions
from aliquot.store.store import Check, OnMetrics, Stage, Store, write_atomic

_AGREEMENT = "agreement.json"
#: The libraries that determine how a model is read: after a new release, the model is tried again.
_LIBRARIES = ("torch", "transformers", "tokenizers")
#: Without a GPU, a model whose weights take a larger share of the free memory is not loaded just for a check.
_MOST_MEMORY = 0.5


@dataclass(frozen=True)
class Trial(Stage[dict[str, float]]):
    """Read three prompts of unequal length alone, and in one padded batch, and compare the signals.

    The result maps names to differences. No other stage has it in its key.

    Args:
        model: the base model.
        scorer: which signals are compared.
        trainer: which device to use.
    """

    name: ClassVar[str] = "trial"

    model: Model
    scorer: Scorer
    trainer: TrainerSpec = field(metadata={"key": False})

    @property
    def resources(self) -> None:
        return None

    def inputs(self) -> dict[str, object]:
        return super().inputs() | {"libraries": versions(_LIBRARIES)}

    def title(self) -> str:
        return "trial: read three prompts alone and in one batch, and compare"

    def checks(self) -> Sequence[Check]:
        return (type(self.model).check, self.model), (check_scorer, self.model, self.scorer), (_check_chat, self.model)

    def check_devices(self) -> None:
        self.trainer.check()

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        from aliquot.scoring.trial_reading import try_model

        agreement = try_model(self.model, self.scorer, self.trainer.device())
        write_atomic(directory / _AGREEMENT, json.dumps(agreement, indent=2) + "\n")

    def load(self, directory: Path) -> dict[str, float]:
        return json.loads((directory / _AGREEMENT).read_text(encoding="utf-8"))

    def obstacle(self) -> str | None:
        """Say why the model cannot be tried on this machine, or only after a long wait; None if it can be tried."""
        if not self.trainer.is_here():
            return f"there is no {self.trainer.accelerator} on this machine"
        size = self.model.size_here()
        if size is None:
            return "its weights are not on this machine yet"
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if self.trainer.device() == "cpu" and size > _MOST_MEMORY * free:
            return f"its weights take {1e-9 * size:.0f} GB, and {1e-9 * free:.0f} GB of memory are free"
        return None


def _check_chat(model: Model) -> None:
    """Check the chat template if it is used, and if the model is on this machine."""
    if model.template == CHAT and model.directory():
        check_finished_turn(model.load_tokenizer(), model.template, model.path)
