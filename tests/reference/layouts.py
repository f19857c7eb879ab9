"""ResNet, MobileNet v2 and ViT in the words of torchvision and timm: state dicts under their names, and the forward pass they mean.

Written from the papers and the libraries' published names, an equation a line, from a state dict alone; shares no code with the package.
"""

import math

import torch
from torch.nn import functional as F

DRAW = torch.Generator()


def drawn(*shape, like=0.0, std=0.1):
    return like + std * torch.randn(*shape, generator=DRAW, dtype=torch.float64)


def conv(state, name, out, inside, k, groups=1):
    state[f"{name}.weight"] = drawn(out, inside // groups, k, k, std=(inside // groups * k * k) ** -0.5)


def norm(state, name, width):
    state |= {f"{name}.weight": drawn(width, like=1.0), f"{name}.bias": drawn(width), f"{name}.running_mean": drawn(width)}
    state |= {f"{name}.running_var": drawn(width).abs() + 0.5, f"{name}.num_batches_tracked": torch.tensor(3)}


def linear(state, name, out, inside):
    state |= {f"{name}.weight": drawn(out, inside, std=inside**-0.5), f"{name}.bias": drawn(out)}


def apply_norm(state, name, x):
    mean, variance, weight, bias = (state[f"{name}.{leaf}"][:, None, None] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def apply_linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


# --- ResNet: conv1, bn1, layer1.0.conv1 ..., layer1.0.downsample.0, fc ------------------------------------------------


def resnet_state(counts, width, classes, channels=3, bottleneck=True, kernel=7):
    state = {}
    conv(state, "conv1", width, channels, kernel)
    norm(state, "bn1", width)
    inputs = width
    for stage, count in enumerate(counts):
        inside = width * 2**stage
        outside = inside * (4 if bottleneck else 1)
        for i in range(count):
            name = f"layer{stage + 1}.{i}"
            shapes = (
                [(inside, inputs, 1), (inside, inside, 3), (outside, inside, 1)]
                if bottleneck
                else [(inside, inputs, 3), (inside, inside, 3)]
            )
            for j, (out, into, k) in enumerate(shapes, 1):
                conv(state, f"{name}.conv{j}", out, into, k)
                norm(state, f"{name}.bn{j}", out)
            if i == 0 and (stage or inputs != outside):
                conv(state, f"{name}.downsample.0", outside, inputs, 1)
                norm(state, f"{name}.downsample.1", outside)
            inputs = outside
    linear(state, "fc", classes, inputs)
    return state


def resnet_forward(state, x):
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(apply_norm(state, "bn1", x)), 3, 2, 1)
    for stage in range(1, 5):
        i = 0
        while (name := f"layer{stage}.{i}") + ".conv1.weight" in state:
            stride = 2 if stage > 1 and i == 0 else 1
            deep = f"{name}.conv3.weight" in state
            y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=1 if deep else stride, padding=0 if deep else 1)
            y = F.relu(apply_norm(state, f"{name}.bn1", y))
            y = apply_norm(state, f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride if deep else 1, padding=1))
            if deep:
                y = apply_norm(state, f"{name}.bn3", F.conv2d(F.relu(y), state[f"{name}.conv3.weight"]))
            if f"{name}.downsample.0.weight" in state:
                x = apply_norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride))
            x = F.relu(x + y)
            i += 1
    return apply_linear(state, "fc", x.mean(dim=(2, 3)))


# --- MobileNet v2 at width 1 --------------------------------------------------------------------------------------------

MOBILENET = [(1, 16, 1)] + [(6, 24, 2), (6, 24, 1)] + [(6, 32, 2)] + [(6, 32, 1)] * 2 + [(6, 64, 2)] + [(6, 64, 1)] * 3
MOBILENET += [(6, 96, 1)] * 3 + [(6, 160, 2)] + [(6, 160, 1)] * 2 + [(6, 320, 1)]
TIMM_BLOCKS = [(stage, i) for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1)) for i in range(count)]


def mobilenet_names(block, layout):
    """[(conv, norm)] of expansion (where there is one), depthwise and projection."""
    if layout == "torchvision":
        name = f"features.{block + 1}.conv"
        names = [(f"{name}.0.0", f"{name}.0.1"), (f"{name}.1.0", f"{name}.1.1"), (f"{name}.2", f"{name}.3")]
        return names if block else [(f"{name}.0.0", f"{name}.0.1"), (f"{name}.1", f"{name}.2")]
    name = "blocks.{}.{}".format(*TIMM_BLOCKS[block])
    convs = ("conv_pw", "conv_dw", "conv_pwl") if block else ("conv_dw", "conv_pw")
    return [(f"{name}.{conv}", f"{name}.bn{i}") for i, conv in enumerate(convs, 1)]


MOBILENET_ENDS = {
    "torchvision": (("features.0.0", "features.0.1"), ("features.18.0", "features.18.1"), "classifier.1"),
    "timm": (("conv_stem", "bn1"), ("conv_head", "bn2"), "classifier"),
}


def mobilenet_state(layout, classes):
    state = {}
    (stem, stem_norm), (last, last_norm), head = MOBILENET_ENDS[layout]
    conv(state, stem, 32, 3, 3)
    norm(state, stem_norm, 32)
    width = 32
    for block, (expansion, out, _) in enumerate(MOBILENET):
        inside = width * expansion
        shapes = [(inside, width, 1, 1), (inside, inside, 3, inside), (out, inside, 1, 1)][0 if expansion > 1 else 1 :]
        for (conv_name, norm_name), (o, i, k, groups) in zip(mobilenet_names(block, layout), shapes, strict=True):
            conv(state, conv_name, o, i, k, groups)
            norm(state, norm_name, o)
        width = out
    conv(state, last, 1280, 320, 1)
    norm(state, last_norm, 1280)
    linear(state, head, classes, 1280)
    return state


def mobilenet_forward(state, x, layout):
    (stem, stem_norm), (last, last_norm), head = MOBILENET_ENDS[layout]
    x = F.relu6(apply_norm(state, stem_norm, F.conv2d(x, state[f"{stem}.weight"], stride=2, padding=1)))
    for block, (_, _, stride) in enumerate(MOBILENET):
        *inner, (project, project_norm) = mobilenet_names(block, layout)
        y = x
        for name, norm_name in inner:
            weight = state[f"{name}.weight"]
            depthwise = weight.shape[-1] == 3
            y = F.conv2d(y, weight, stride=stride if depthwise else 1, padding=int(depthwise), groups=len(weight) if depthwise else 1)
            y = F.relu6(apply_norm(state, norm_name, y))
        y = apply_norm(state, project_norm, F.conv2d(y, state[f"{project}.weight"]))
        x = x + y if x.shape == y.shape else y
    x = F.relu6(apply_norm(state, last_norm, F.conv2d(x, state[f"{last}.weight"])))
    return apply_linear(state, head, x.mean(dim=(2, 3)))


# --- ViT ------------------------------------------------------------------------------------------------------------------

VIT_WHOLE = {
    "torchvision": {
        "class": "class_token",
        "positions": "encoder.pos_embedding",
        "patches": "conv_proj",
        "norm": "encoder.ln",
        "head": "heads.head",
    },
    "timm": {"class": "cls_token", "positions": "pos_embed", "patches": "patch_embed.proj", "norm": "norm", "head": "head"},
}
VIT_BLOCK = {
    "torchvision": (
        "encoder.layers.encoder_layer_{}.",
        ("ln_1.", "self_attention.in_proj_", "self_attention.out_proj.", "ln_2.", "mlp.0.", "mlp.3."),
    ),
    "timm": ("blocks.{}.", ("norm1.", "attn.qkv.", "attn.proj.", "norm2.", "mlp.fc1.", "mlp.fc2.")),
}


def vit_state(layout, *, depth, dim, patch, tokens, classes):
    whole, (prefix, parts) = VIT_WHOLE[layout], VIT_BLOCK[layout]
    state = {whole["class"]: drawn(1, 1, dim), whole["positions"]: drawn(1, tokens, dim)}
    conv(state, whole["patches"], dim, 3, patch)
    state[whole["patches"] + ".bias"] = drawn(dim)
    for i in range(depth):
        ln_1, qkv, out, ln_2, hidden, mlp_out = (prefix.format(i) + part for part in parts)
        for name in (ln_1, ln_2):
            state |= {f"{name}weight": drawn(dim, like=1.0), f"{name}bias": drawn(dim)}
        for name, o, n in ((qkv, 3 * dim, dim), (out, dim, dim), (hidden, 4 * dim, dim), (mlp_out, dim, 4 * dim)):
            state |= {f"{name}weight": drawn(o, n, std=n**-0.5), f"{name}bias": drawn(o)}
    state |= {whole["norm"] + ".weight": drawn(dim, like=1.0), whole["norm"] + ".bias": drawn(dim)}
    linear(state, whole["head"], classes, dim)
    return state


def layer_norm(state, name, x):
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{name}weight"] + state[f"{name}bias"]


def vit_forward(state, x, layout, heads):
    whole, (prefix, parts) = VIT_WHOLE[layout], VIT_BLOCK[layout]
    weight = state[whole["patches"] + ".weight"]
    dim, _, p, _ = weight.shape
    N, _, H, W = x.shape
    pieces = x.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).reshape(N, (H // p) * (W // p), -1)
    x = pieces @ weight.reshape(dim, -1).T + state[whole["patches"] + ".bias"]
    x = torch.cat([state[whole["class"]].expand(N, 1, dim), x], dim=1) + state[whole["positions"]]
    i = 0
    while f"{prefix.format(i)}{parts[0]}weight" in state:
        ln_1, qkv, out, ln_2, hidden, mlp_out = (prefix.format(i) + part for part in parts)
        q, k, v = (layer_norm(state, ln_1, x) @ state[f"{qkv}weight"].T + state[f"{qkv}bias"]).split(dim, dim=-1)
        D = dim // heads
        seen = []
        for h in range(heads):
            q_h, k_h, v_h = (z[..., h * D : (h + 1) * D] for z in (q, k, v))
            seen.append((q_h @ k_h.transpose(1, 2) / math.sqrt(D)).softmax(-1) @ v_h)
        x = x + torch.cat(seen, dim=-1) @ state[f"{out}weight"].T + state[f"{out}bias"]
        y = layer_norm(state, ln_2, x) @ state[f"{hidden}weight"].T + state[f"{hidden}bias"]
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ state[f"{mlp_out}weight"].T + state[f"{mlp_out}bias"]
        i += 1
    return apply_linear(state, whole["head"], layer_norm(state, whole["norm"] + ".", x)[:, 0])
