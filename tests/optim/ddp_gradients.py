"""One rank of `test_flat.test_gradients_land_in_the_buffer_under_ddp`, a process of its own: autograd's threads do not survive a fork.

Usage: python ddp_gradients.py RANK WORLD RENDEZVOUS_FILE
"""

import os
import sys

import torch
from torch import nn

from torchstone.core import ranks
from torchstone.optim.flat import FlatParameters


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 7))


def main(rank: int, world: int, file: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    compare(rank, world)
    ranks.stop()  # collects the wrapped model first: a group's threads that outlive the interpreter abort the process


def compare(rank: int, world: int) -> None:
    """Fails unless the gradients that DDP averages over the ranks are, in the flat buffer, those of one process over all images."""
    images = torch.randn(6, 3, 8, 8)
    flat, plain = FlatParameters(build()), build()
    model = nn.parallel.DistributedDataParallel(flat.module)
    for _ in range(2):
        flat.zero_grad()
        model(images[rank::world]).square().mean().backward()
        flat.check()
        plain.zero_grad()
        torch.stack([plain(images[r::world]).square().mean() for r in range(world)]).mean().backward()
        for name, p in plain.named_parameters():
            torch.testing.assert_close(flat.view(flat.grad, name), p.grad)


if __name__ == "__main__":
    torch.manual_seed(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
