"""Facts about dnnlib.distributed, alone and with two processes on the loopback interface."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dnnlib
from dnnlib import distributed

ROOT = Path(dnnlib.__file__).parents[1]

WORKER = """
import torch
from dnnlib import distributed as d

d.init()
d.init()  # a second time does nothing
r = d.rank()
assert d.world_size() == 2 and d.is_main() == (r == 0) and d.local_rank() == r

# Mixed types, shapes and layouts travel together and come back in place.
a = torch.full((2, 3), float(r))
b = torch.tensor(10.0 * r + 1, dtype=torch.float64)
c = torch.arange(12.0).reshape(3, 4).t().mul_(r)
before = c.data_ptr()
d.all_reduce_mean_(t for t in [a, b, c])
assert torch.equal(a, torch.full((2, 3), 0.5)) and b.item() == 6.0
assert torch.equal(c, torch.arange(12.0).reshape(3, 4).t() / 2) and c.data_ptr() == before
d.all_reduce_mean_([])

# Parameters that need a gradient can be replaced too.
p = torch.nn.Parameter(torch.full((3,), float(r + 5)))
flag = torch.tensor([r == 0])
count = torch.tensor(r + 7)
d.broadcast_([p, flag, count])
assert p.tolist() == [5.0] * 3 and flag.item() is True and count.item() == 7 and p.requires_grad
d.broadcast_([count.fill_(r)], source=1)
assert count.item() == 1

total = d.all_gather_sum(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t() * (r + 1))
assert torch.equal(total, torch.tensor([[3.0, 9.0], [6.0, 12.0]])), total

d.barrier()
d.shutdown()
assert d.world_size() == 1 and d.is_main()
"""


def test_two_processes_agree():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    if sys.platform == "linux":
        env["GLOO_SOCKET_IFNAME"] = "lo"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=ROOT,
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=90)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)


def test_alone_everything_is_a_no_op(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    distributed.init()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
    t = torch.tensor([1.0, 2.0])
    distributed.all_reduce_mean_([t])
    distributed.broadcast_([t])
    assert t.tolist() == [1.0, 2.0]
    assert distributed.all_gather_sum(t).tolist() == [1.0, 2.0]
    distributed.shutdown()


@pytest.mark.parametrize("present", ["RANK", "WORLD_SIZE"])
def test_half_an_environment_is_no_group(monkeypatch, present):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(present, "1")
    distributed.init()
    assert distributed.world_size() == 1
