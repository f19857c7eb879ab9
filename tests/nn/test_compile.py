"""What is compiled stays one graph. In a process of its own: the suite's shape checks cannot be traced."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from torchstone.core.protocols import TokenShape
from torchstone.models import GPTConfig
from torchstone.nn import DropPath

graphs = 0
def count(graph, inputs):
    global graphs
    graphs += 1
    return graph.forward

drop = DropPath(0.5)
compiled = torch.compile(drop, backend=count, fullgraph=True)
for rate in (0.0, 0.1, 0.9):
    drop.rate.fill_(rate)
    assert abs((compiled(torch.ones(1000, 1)) == 0).float().mean().item() - rate) < 0.06
assert graphs == 1, f"a new rate recompiled: {graphs}"

gpt = GPTConfig(depth=1, dim=16, num_heads=2, qk_norm=True).build(TokenShape(11, 70), 11)
tokens = torch.randint(0, 11, (2, 70))
plain = gpt(tokens)
plain.square().sum().backward()
gradients = [p.grad.clone() for p in gpt.parameters()]
gpt.zero_grad()
y = torch.compile(gpt, backend="aot_eager", fullgraph=True)(tokens)
y.square().sum().backward()
torch.testing.assert_close(y, plain)
for p, gradient in zip(gpt.parameters(), gradients, strict=True):
    torch.testing.assert_close(p.grad, gradient)
"""


@pytest.mark.slow
def test_one_graph_and_no_recompilation_for_a_new_rate():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=300)
