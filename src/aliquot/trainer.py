"""The one place where a Lightning `Trainer` is built: on which devices scoring and finetuning run.

Lightning carries the loop, the devices and the precision. Its logger, checkpoints, summary and progress bar stay off:
the store keeps the results, the tracker the numbers, and each stage draws its own bar.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


@dataclass(frozen=True)
class TrainerSpec:
    """Names the hardware; it changes how fast a result comes, never the result, and so belongs to no key.

    Args:
        accelerator: auto, cpu, gpu or whatever else Lightning knows.
        devices: how many of them.
    """

    accelerator: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"trainer.devices={self.devices} is too few; give at least 1")

    def build(self, directory: Path, **kwargs: Any) -> Trainer:
        """Build a trainer that works below `directory`.

        Args:
            directory: where Lightning may write.
            kwargs: passed to Lightning's `Trainer`, over the settings made here.
        """
        _quieten()
        from pytorch_lightning import Trainer

        settings: dict[str, Any] = {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "default_root_dir": directory,
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
        }
        return Trainer(**settings | kwargs)


def _quieten() -> None:
    """Silence Lightning's announcements and the advice that cannot apply; every other warning still shows.

    The announcements are INFO records of its two `rank_zero` loggers. Our rows are tokenised before the loop starts, so
    more data loading workers would have nothing to do.
    """
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # torch's, of Lightning's code
