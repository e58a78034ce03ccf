"""What the processes of one training do together: they meet, add up and agree.

Lightning stays a trainer of one device in each of them. Its own strategy for several devices answers SIGTERM with
a broadcast from inside the signal handler, which meets whatever the other processes are just exchanging, and ends the
training before we could save (2.6.6, signal_connector.py). What is needed beside it is little: an adapter is small.
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from aliquot.runtime.processes import Place

#: Within so many minutes all processes have loaded the model, or something keeps one of them.
_PATIENCE = timedelta(minutes=30)
_FIRST_PORT = 15_000


def meeting_point(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the processes that torchrun or srun started meet, as an address for `together`."""
    if {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():  # torchrun sets them; under srun one may
        return "env://"
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    first = SLURMEnvironment.resolve_root_node_address(environment["SLURM_STEP_NODELIST"])
    return f"tcp://{first}:{_FIRST_PORT + int(environment['SLURM_JOB_ID'][-4:])}"  # jobs that share a node differ


@contextmanager
def together(at: Place, meeting: str, device: torch.device) -> Generator[None]:
    """Let the processes exchange tensors inside the block; all enter it, and all leave it, at the same time.

    Where the block fails the group is left as it is: it ends with this process, so that the error is told before the
    others complain of a lost connection.

    Args:
        at: which process this is; a single one has nobody to meet.
        meeting: where: an address that torch.distributed understands.
        device: where the tensors are.

    Raises:
        ValueError: not all came in time.
    """
    if at.world == 1:
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=meeting,
            timeout=_PATIENCE,
            rank=at.rank,
            world_size=at.world,
            device_id=device if on_gpu else None,
        )
    except dist.DistError as error:
        raise ValueError(
            f"the {at.world} processes of this training did not meet at {meeting}: {' '.join(str(error).split())}; "
            "see whether one of them failed, and whether MASTER_ADDR and MASTER_PORT name a free port of the first node"
        ) from error
    yield
    dist.barrier()
    dist.destroy_process_group()


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes; sent as one, for an adapter consists of many small ones."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def agreed(told: bool, at: Place, device: torch.device) -> bool:
    """Tell whether any process was told; all get the same answer."""
    if at.world == 1:
        return told
    anywhere = torch.tensor(int(told), device=device)
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return bool(anywhere)
