"""Hydra's own sweeper, for launchers that compose all jobs before anything starts. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class PlannedSweeper(BasicSweeper):
    """Expands choices and ranges as Hydra's basic sweeper does."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: composing every job only to check it takes as long as the rest of the planning."""
