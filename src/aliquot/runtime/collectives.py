"""Operations of all processes of one training together: they meet, add tensors up, and agree.

In each process, Lightning stays a trainer of one device. Its own strategy for several devices answers SIGTERM with a
broadcast from inside the signal handler. That broadcast collides with whatever the other processes are exchanging, and
ends the training before we could save (2.6.6, signal_connector.py). The operations here suffice: an adapter is small.
"""

# torch's type annotations leave out parameters.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from aliquot.runtime.processes import Place

#: Within this many minutes all processes must have loaded the model; otherwise something holds one of them up.
_PATIENCE = timedelta(minutes=30)
_FIRST_PORT = 15_000


def meeting_point(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the processes that torchrun or srun started meet, as an address for `together`."""
    if {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():  # torchrun sets them; under srun, users may
        return "env://"
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    first = SLURMEnvironment.resolve_root_node_address(environment["SLURM_STEP_NODELIST"])
    return f"tcp://{first}:{_FIRST_PORT + int(environment['SLURM_JOB_ID'][-4:])}"  # differs for jobs on one node


@contextmanager
def together(at: Place, meeting: str, device: torch.device) -> Generator[None]:
    """Let the processes exchange tensors inside the block; all enter it, and all leave it, at the same time.

    If the block fails, the group is left as it is and ends with this process, so that the error is reported before the
    others complain of a lost connection.

    Args:
        at: which process this is; a single process does not meet others.
        meeting: the meeting point, an address that torch.distributed understands.
        device: where the tensors are.

    Raises:
        ValueError: not all processes arrived in time.
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
    """Replace each tensor by its sum over all processes; sent as one, because an adapter has many small ones."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def agreed(told: bool, at: Place, device: torch.device) -> bool:
    """Tell whether `told` is true in any process; all processes get the same answer."""
    if at.world == 1:
        return told
    anywhere = torch.tensor(int(told), device=device)
    dist.all_reduce(anywhere, dist.ReduceOp.MAX)
    return bool(anywhere)
