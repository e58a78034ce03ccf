"""The one place where a Lightning `Trainer` is built: on which devices scoring and finetuning run.

Lightning carries the loop, the devices and the precision. Its logger, checkpoints, summary and progress bar stay off:
the store keeps the results, the tracker the numbers, and each stage draws its own bar.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from torch.nn import Module


@dataclass(frozen=True)
class TrainerSpec:
    """Names the hardware; it changes how fast a result comes, never the result, and so belongs to no key.

    Args:
        accelerator: auto, cpu, gpu or whatever else Lightning knows.
        devices: 1 for now; several experiments may run side by side instead.
    """

    accelerator: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        if self.devices != 1:
            raise ValueError(
                f"trainer.devices={self.devices} is not supported yet, one device is; set trainer.devices=1, and run "
                "several experiments side by side to use more"
            )

    def check(self) -> None:
        """Raise ValueError where the accelerator is unknown or not on this machine."""
        if self.accelerator not in ("auto", "cpu"):  # those are everywhere, and importing Lightning takes seconds
            self.build(Path())

    def device(self) -> str:
        """Return the torch device for work outside Lightning, such as selection."""
        import torch

        on_gpu = self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return "cuda" if on_gpu else "cpu"

    def build(self, directory: Path, **kwargs: Any) -> Trainer:
        """Build a trainer that works below `directory`.

        Args:
            directory: where Lightning may write.
            kwargs: passed to Lightning's `Trainer`, over the settings made here.

        Raises:
            ValueError: this machine has no such accelerator.
        """
        _quieten()
        from lightning_fabric.utilities.exceptions import MisconfigurationException
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
        try:
            return Trainer(**settings | kwargs)
        except (MisconfigurationException, ImportError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"trainer.accelerator={self.accelerator} cannot be used here: {reason}; "
                "set trainer.accelerator=auto or cpu"
            ) from error


#: Parameters up to which a model's operators are too small to be shared out between the cores of a CPU.
SMALL_MODEL = 20_000_000


def is_small(network: Module) -> bool:
    """Tell whether the model has at most `SMALL_MODEL` parameters."""
    return sum(weights.numel() for weights in network.parameters()) <= SMALL_MODEL


@contextmanager
def threads_for(network: Module) -> Generator[None]:
    """Let torch use one thread inside the block if the model is small: more would wait for each other."""
    import torch

    before = torch.get_num_threads()
    if is_small(network):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def interruptible() -> Generator[Event]:
    """Let Ctrl-C wait for the end of the batch, and then end the block with KeyboardInterrupt.

    The event that it yields says that Ctrl-C was pressed: whoever runs the loop saves and raises KeyboardInterrupt,
    which Lightning would turn into a silent exit. Pressed again, it ends the block at once.
    """
    told, before = Event(), signal.getsignal(signal.SIGINT)

    def tell(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        told.set()

    # Only the main thread may handle signals; a job in the background ignores this one.
    handles = current_thread() is main_thread() and callable(before)
    try:
        if handles:
            signal.signal(signal.SIGINT, tell)
        yield told
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if handles:
            signal.signal(signal.SIGINT, before)


def _quieten() -> None:
    """Silence Lightning's announcements and the advice that cannot apply; every other warning still shows.

    The announcements are INFO records of its two `rank_zero` loggers. Our rows are tokenised before the loop starts, so
    more data loading workers would have nothing to do.
    """
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # torch's, of Lightning's code
