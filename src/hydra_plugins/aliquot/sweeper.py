"""Hydra's own sweeper, for launchers that compose all jobs before anything starts. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class PlannedSweeper(BasicSweeper):
    """Takes choices and ranges apart as Hydra's basic sweeper does."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: composing every job just to see that it can be takes as long as all the rest of planning."""
