"""GPT against its definition in float64, the published size, causality, and generation with and without the cache."""

import math
from dataclasses import replace

import pytest
import torch

from torchstone.core.protocols import TokenShape
from torchstone.models import GPTConfig
from torchstone.models.text.gpt import GPT2_SMALL, choose

SMALL = GPTConfig(depth=2, dim=16, num_heads=2)
VARIANTS = [
    SMALL,
    replace(SMALL, positions="learned", norm="rms", activation="squared_relu"),
    replace(SMALL, qk_norm=True, tie=True),
    replace(SMALL, bias=True, positions="learned", activation="gelu_tanh"),
]


def build(config, vocabulary=11, context=12, seed=0):
    """A float64 model whose every weight matters."""
    torch.manual_seed(seed)
    model = config.build(TokenShape(vocabulary, context), vocabulary).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3).add_(1.0 if parameter.ndim == 1 else 0.0)
    return model


def by_definition(model, tokens):
    """The forward pass, an equation a line, from the state dict alone."""
    config, state = model.config, model.state_dict()
    dim, heads = config.dim, config.num_heads
    T = tokens.shape[1]
    D = dim // heads

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)

    def norm(x, name):
        if config.norm == "rms":
            return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{name}.weight"]
        centered = x - x.mean(-1, keepdim=True)
        variance = centered.pow(2).mean(-1, keepdim=True)
        return centered / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state.get(f"{name}.bias", 0.0)

    def turn(x):  # [N T D]
        angle = torch.arange(T)[:, None] * 10_000.0 ** (-torch.arange(D // 2, dtype=torch.float64) * 2 / D)
        a, b = x[..., : D // 2], x[..., D // 2 :]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)

    def activation(x):
        if config.activation == "gelu":
            return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        if config.activation == "gelu_tanh":
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return x.clamp(min=0) ** 2

    x = state["embedding.weight"][tokens]
    if config.positions == "learned":
        x = x + state["position.weight"][:T]
    for i in range(config.depth):
        q, k, v = linear(norm(x, f"blocks.{i}.attention_norm"), f"blocks.{i}.attention.qkv").split(dim, dim=-1)
        out = []
        for h in range(heads):
            q_h, k_h, v_h = (z[..., h * D : (h + 1) * D] for z in (q, k, v))
            if config.qk_norm:
                q_h, k_h = (z / (z.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() for z in (q_h, k_h))
            if config.positions == "rotary":
                q_h, k_h = turn(q_h), turn(k_h)
            scores = q_h @ k_h.transpose(1, 2) / math.sqrt(D)
            scores = scores.masked_fill(torch.arange(T)[None, :] > torch.arange(T)[:, None], -math.inf)
            out.append(scores.softmax(-1) @ v_h)
        x = x + linear(torch.cat(out, dim=-1), f"blocks.{i}.attention.out")
        x = x + linear(activation(linear(norm(x, f"blocks.{i}.mlp_norm"), f"blocks.{i}.mlp.hidden")), f"blocks.{i}.mlp.out")
    return norm(x, "norm") @ state["head.weight"].T


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("length", [1, 12, 80])
def test_forward_is_its_definition(config, length):
    model = build(config, context=length)
    tokens = torch.randint(0, 11, (3, length), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(tokens), by_definition(model, tokens), rtol=1e-10, atol=1e-10)


def test_gpt2_from_transformers_agrees():
    transformers = pytest.importorskip("transformers", reason="the oracle `transformers` is not installed")
    theirs = (
        transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=11, n_positions=12, n_embd=16, n_layer=2, n_head=2)).double().eval()
    )
    ours = build(replace(GPT2_SMALL, depth=2, dim=16, num_heads=2))
    names = {"embedding": "wte", "position": "wpe", "norm": "ln_f"}
    for i in range(2):
        inside = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp_norm": "ln_2"}
        inside |= {"mlp.hidden": "mlp.c_fc", "mlp.out": "mlp.c_proj"}
        names |= {f"blocks.{i}.{our}": f"h.{i}.{their}" for our, their in inside.items()}
    state = theirs.transformer.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            module, _, kind = name.rpartition(".")
            value = state[f"{names[module]}.{kind}"]
            parameter.copy_(value.T if module.endswith(("qkv", "out", "hidden")) and kind == "weight" else value)
    tokens = torch.randint(0, 11, (3, 12))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-10, atol=1e-10)


def test_parameters_as_published_and_in_closed_form():
    with torch.device("meta"):
        gpt2 = GPT2_SMALL.build(TokenShape(50_257, 1024), 50_257)
        plain = GPTConfig().build(TokenShape(256, 256), 256)
    assert sum(p.numel() for p in gpt2.parameters()) == 124_439_808
    assert sum(p.numel() for p in plain.parameters()) == 2 * 256 * 256 + 4 * (12 * 256**2 + 2 * 256) + 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [12, 80])
def test_a_token_changes_nothing_before_it(dtype, length):
    model = build(SMALL, context=length).to(dtype)
    tokens = torch.randint(0, 10, (2, length), generator=torch.Generator().manual_seed(2))
    before = model(tokens)
    for t in (1, length // 2, length - 1):
        changed = tokens.clone()
        changed[:, t] += 1
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


def test_initial_weights_and_loss():
    torch.manual_seed(0)
    model = GPTConfig(depth=8, dim=128).build(TokenShape(100, 16), 100)
    assert model.blocks[3].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for layer in (model.blocks[3].attention.out, model.blocks[7].mlp.out):
        assert layer.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    tokens = torch.randint(0, 100, (4, 16))
    loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    assert loss.item() == pytest.approx(math.log(100), abs=0.2)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("prompt", [1, 5, 12, 20])
def test_cached_generation_equals_uncached_even_beyond_the_context(config, prompt):
    model = build(config)
    tokens = torch.randint(0, 11, (1, prompt), generator=torch.Generator().manual_seed(3))
    for how in ({}, {"temperature": 1.3, "top_k": 4, "key": 7}):
        cached = model.generate(tokens, 30, **how)
        assert cached.shape == (1, prompt + 30)
        assert torch.equal(cached[:, :prompt], tokens)
        assert torch.equal(cached, model.generate(tokens, 30, cached=False, **how))


def test_greedy_generation_is_the_argmax_of_the_forward():
    model = build(SMALL)
    tokens = torch.tensor([[1, 2]])
    for _ in range(10):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(torch.tensor([[1, 2]]), 10), tokens)


def test_draws_come_from_the_key_alone():
    model, prompt = build(SMALL), torch.tensor([[3]])
    state = torch.get_rng_state()
    drawn = [model.generate(prompt, 20, temperature=1.0, key=key) for key in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_choose_follows_the_probabilities():
    logits = torch.tensor([0.0, 2.0, 1.0, -1.0])
    draws = (torch.arange(1000) + 0.5) / 1000
    for temperature, top_k in ((1.0, 0), (0.5, 0), (1.0, 2)):
        kept = torch.where(logits >= logits.topk(top_k or 4).values[-1], logits, -torch.inf)
        drawn = torch.stack([choose(logits, temperature, top_k, draw) for draw in draws.tolist()])
        shares = torch.bincount(drawn, minlength=4) / 1000
        torch.testing.assert_close(shares, (kept / temperature).softmax(0), rtol=0, atol=2e-3)
    assert choose(logits, 1e-4, 0, 0.999) == choose(logits, 0.0, 0, 0.5) == 1


def test_errors_name_the_limit():
    model = build(SMALL)
    with pytest.raises(ValueError, match=r"at most 12 tokens at once .*got 13"):
        model(torch.zeros(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one token"):
        model.generate(torch.zeros(1, 0, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="evaluation mode"):
        model.train().generate(torch.zeros(1, 1, dtype=torch.int64), 1)


def test_state_names():
    names = list(SMALL.build(TokenShape(5, 4), 5).state_dict())
    block = [
        "attention_norm.weight",
        "attention.qkv.weight",
        "attention.out.weight",
        "mlp_norm.weight",
        "mlp.hidden.weight",
        "mlp.out.weight",
    ]
    assert names == ["embedding.weight", *(f"blocks.{i}.{name}" for i in range(2) for name in block), "norm.weight", "head.weight"]
