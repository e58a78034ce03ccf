"""The one place where a Lightning `Trainer` is built: on which devices scoring and finetuning run.

Lightning runs the loop and handles devices and precision. Its logger, checkpoints, summary and progress bar stay off:
the store keeps the results, the tracker the numbers, and each stage draws its own bar.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from torch.nn import Module

    from aliquot.runtime.processes import Place


#: Accelerators that some machines have; any other name that Lightning knows is a mistake.
_ACCELERATORS = ("gpu", "cuda", "mps", "tpu", "hpu")


@dataclass(frozen=True)
class TrainerSpec:
    """Names the hardware. It changes how fast a result comes, never the result, and therefore is not part of a key.

    The scoring pass and finetuning use all devices, evaluation one. Unless srun or torchrun has started one process per
    device, these stages start the processes themselves and end them when they finish.

    Args:
        accelerator: auto, cpu, gpu or any other that Lightning knows.
        devices: number on each node; on a CPU, number of processes.
        num_nodes: machines; more than one need srun or torchrun.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name}={getattr(self, name)} is too small; give at least 1")

    def check(self) -> None:
        """Raise ValueError if the accelerator is unknown or not on this machine, or processes are missing."""
        world, wanted = self.place().world, self.devices * self.num_nodes
        if world != wanted and (world > 1 or self.num_nodes > 1):
            raise ValueError(
                f"trainer.devices={self.devices} on trainer.num_nodes={self.num_nodes} are {wanted} processes, and "
                f"srun or torchrun started {world}; start one for each device (srun --ntasks-per-node={self.devices}, "
                f"torchrun --nproc-per-node={self.devices}), or set trainer.devices and trainer.num_nodes accordingly"
            )
        if self.accelerator not in ("auto", "cpu"):  # every machine has these, and importing Lightning takes seconds
            self.build(Path())
        if self.devices > 1 and self.device() == "cuda":
            import torch

            if world == 1 and self.devices > torch.cuda.device_count():
                raise ValueError(
                    f"trainer.devices={self.devices} exceeds the {torch.cuda.device_count()} GPUs of this machine; "
                    "lower trainer.devices"
                )

    def is_here(self) -> bool:
        """Tell whether this machine has the accelerator; a login node may lack it.

        Raises:
            ValueError: the accelerator does not exist on any machine.
        """
        if self.accelerator in ("auto", "cpu"):
            return True
        try:
            self.build(Path())
        except ValueError:
            if self.accelerator not in _ACCELERATORS:
                raise
            return False
        return True

    def place(self) -> Place:
        """Return which of the processes that share the devices this one is; a single device is not shared.

        So several processes with one device each may run experiments of their own, no matter what started them.
        """
        from aliquot.runtime.processes import Place, place

        return place() if self.devices * self.num_nodes > 1 else Place()

    def several(self) -> str:
        """Say, for the plan, that a stage uses all devices; empty for a single device."""
        total = self.devices * self.num_nodes
        return f", on {total} devices" if total > 1 else ""

    def one_of_several(self) -> str:
        """Say, for the plan, that a stage uses one of several devices; empty for a single device."""
        total = self.devices * self.num_nodes
        return f", on one of {total} devices" if total > 1 else ""

    def device(self) -> str:
        """Return the torch device for work outside Lightning, such as selection."""
        import torch

        on_gpu = self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return "cuda" if on_gpu else "cpu"

    def build(self, directory: Path, device: int = 0, **kwargs: Any) -> Trainer:
        """Build a trainer for one device that works below `directory`.

        Args:
            directory: where Lightning may write.
            device: the number of the GPU; if each process sees only its own GPU, the number is 0 in all of them.
            kwargs: passed to Lightning's `Trainer`, over the settings made here.

        Raises:
            ValueError: this machine has no such accelerator.
        """
        _quieten()
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.utilities.exceptions import MisconfigurationException
        from pytorch_lightning import Trainer

        settings: dict[str, Any] = {
            "accelerator": self.accelerator,
            "devices": [device % _num_gpus()] if self.device() == "cuda" else 1,
            "plugins": [LightningEnvironment()],  # we start processes ourselves; by default Lightning would ask srun
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


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


#: The largest model, in parameters, whose operators are too small to split between the cores of a CPU.
SMALL_MODEL = 20_000_000


def is_small(network: Module) -> bool:
    """Tell whether the model has at most `SMALL_MODEL` parameters."""
    return sum(weights.numel() for weights in network.parameters()) <= SMALL_MODEL


@contextmanager
def threads_for(network: Module) -> Generator[None]:
    """Let torch use one thread inside the block if the model is small: more threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    if is_small(network):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quieten() -> None:
    """Silence Lightning's announcements and the advice that cannot apply; all other warnings are still shown.

    The announcements are INFO records of its two `rank_zero` loggers. Our rows are tokenized before the loop starts, so
    more data loading workers would have nothing to do.
    """
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    # The frozen base is in eval mode on purpose, so that it applies no dropout.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # A share may be empty.
    warnings.filterwarnings("ignore", message=r"Total length of `DataLoader` across ranks is zero")
    warnings.filterwarnings("ignore", message=r"The `srun` command is available")  # we start our own processes
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")  # torch's, of Lightning's code
