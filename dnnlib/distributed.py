"""Process groups. Under torchrun these join the processes; in a lone process every one of them is a no-op."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def init(device: str | None = None) -> None:
    """Join the group that torchrun describes in the environment, if any: NCCL for CUDA, else gloo.

    `device` is the type of device that the tensors will be on; None: CUDA where there is any.
    """
    if _active() or "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return
    cuda = torch.cuda.is_available() and device in (None, "cuda")
    if cuda:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("nccl" if cuda else "gloo")


def shutdown() -> None:
    """Leave the group."""
    if _active():
        dist.destroy_process_group()


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if _active() else 0


def local_rank() -> int:
    """The rank within this machine: which of its GPUs is ours."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    return dist.get_world_size() if _active() else 1


def is_main() -> bool:
    return rank() == 0


def barrier() -> None:
    if _active():
        # NCCL would otherwise guess the device, and guess wrong on a machine with several.
        dist.barrier(device_ids=[local_rank()] if dist.get_backend() == "nccl" else None)


@torch.no_grad()
def any_process(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether the flag is set in any process; every process gets the same answer."""
    if not _active():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value)
    return bool(value.item() > 0)


@torch.no_grad()
def all_reduce_mean_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes. Every process passes the same shapes in order."""
    if not _active():
        return
    for group in _alike(tensors):
        flat = torch.cat([t.reshape(-1) for t in group])
        dist.all_reduce(flat)
        _scatter(flat.div_(world_size()), group)


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor], source: int = 0) -> None:
    """Replace each tensor by the one that process `source` holds."""
    if not _active():
        return
    for group in _alike(tensors):
        flat = torch.cat([t.reshape(-1) for t in group])
        dist.broadcast(flat, source)
        _scatter(flat, group)


@torch.no_grad()
def all_gather_sum(tensor: Tensor) -> Tensor:
    """The sum over the processes, added in rank order so that every process holds the same bits."""
    if not _active():
        return tensor
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _alike(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type and device together: one message each time instead of one per tensor."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    yield from groups.values()


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, piece in zip(tensors, flat.split([t.numel() for t in tensors])):
        tensor.copy_(piece.view(tensor.shape))
