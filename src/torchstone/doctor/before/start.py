"""Checks of the network before its first update: what it says, what reaches its ends, what can learn.

Shapes: N samples, K classes.
"""

import copy
import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import MovingGroups
from torchstone.data.pytree import map_leaves
from torchstone.doctor.before.check import Seen, Skip, has_field
from torchstone.doctor.before.patient import Patient
from torchstone.doctor.finding import Finding, curve, table
from torchstone.experiment.memory import activation_bytes, free_memory, microbatch_that_fits
from torchstone.experiment.preparing import build_model
from torchstone.models import PretrainedConfig
from torchstone.train.step import seed_model_noise

LOOKED_AT, ASKED = 256, 64
"""Samples of a forward at init, and of one with its backward."""
EXCESS_WARNING, EXCESS_ERROR = 1.5, 4.0
"""Nats above the loss of equal probabilities."""
FAR = 1e3
"""Ratio of the gradient at one end of the network to that at the other."""
NAMED = 6
"""Parameters that a sentence names."""
SMALL_BATCH = 8
"""Samples below which batch norm's statistics are too rough."""


def loss_at_init(patient: Patient) -> Seen:
    """A network that knows nothing should say so: the loss of equal probabilities, ln K for cross-entropy."""
    if "classes" not in getattr(patient.method.objective, "takes", ()) or hasattr(patient.method.objective, "init"):
        raise Skip("the loss is not one of logits of classes")
    some = few(patient, LOOKED_AT)
    outputs = patient.outputs(patient_model(patient), *some, training=True).float()
    value = patient.mean_loss(outputs, some[1])
    even = patient.mean_loss(torch.zeros_like(outputs), some[1])
    counts = torch.bincount(some[1].flatten().clamp(min=0), minlength=outputs.shape[-1]).double()
    entropy = float(-(counts / counts.sum() * (counts / counts.sum()).clamp(min=1e-300).log()).sum())
    excess = value - even
    spread = float(outputs.double().std())
    said = (
        f"{value:.3f} at init; equal probabilities over {outputs.shape[-1]} classes give {even:.3f}, the classes' frequencies {entropy:.3f}"
    )
    because = (
        f"logits of deviation s cost about s^2/2 nats above ln K: {EXCESS_WARNING:g} is s = {math.sqrt(2 * EXCESS_WARNING):.1f}, "
        "and the first steps go into unlearning that"
    )
    if math.isfinite(value) and excess <= EXCESS_WARNING:
        return Seen(value=value, threshold=even + EXCESS_WARNING, said=said)
    finding = Finding(
        check="loss_at_init",
        severity="error" if not excess <= EXCESS_ERROR else "warning",
        summary=f"the loss before the first step is {value:.3g}, where equal probabilities give {even:.3g}: the network is sure of "
        f"answers it has not learnt (logits of deviation {spread:.2g})",
        value=value,
        threshold=even + EXCESS_WARNING,
        because=because,
        evidence=table(["", "loss"], [["at init", value], ["equal probabilities", even], ["frequencies of the classes", entropy]]),
        remedy=calmer(patient),
        advice="a smaller last layer, or the model's own first weights, make it start from ignorance",
        rank=20,
    )
    return Seen(value=value, threshold=even + EXCESS_WARNING, said=said, findings=(finding,))


def double_softmax(patient: Patient) -> Seen:
    """Probabilities where the loss wants logits."""
    loss = patient.method.objective
    if "classes" not in getattr(loss, "takes", ()) or "values" in getattr(loss, "takes", ()):
        raise Skip("the loss does not take logits")
    outputs = patient.outputs(patient_model(patient), *few(patient, LOOKED_AT)).double()
    if outputs.shape[-1] < 2 or not bool(torch.isfinite(outputs).all()):
        raise Skip("the outputs are not finite" if outputs.shape[-1] > 1 else "there is one output")
    inside = float(((outputs >= 0) & (outputs <= 1)).double().mean())
    off = float((outputs.sum(dim=-1) - 1).abs().max())
    if inside < 1:
        return Seen(value=inside, threshold=1.0, said=f"{inside:.0%} of the outputs lie between 0 and 1")
    what = "each row adds up to 1: a softmax" if off < 1e-3 else "as a sigmoid leaves them"
    least = patient.mean_loss(torch.eye(outputs.shape[-1]), torch.arange(outputs.shape[-1]))
    finding = Finding(
        check="double_softmax",
        severity="error",
        summary=f"all {outputs.numel()} outputs lie between 0 and 1 ({what}), and the loss takes a softmax of them again",
        value=inside,
        threshold=1.0,
        because=f"logits fall on both sides of 0; of outputs in [0, 1] the loss cannot fall below {least:.2f}, however right they are",
        evidence=table(
            ["output", "value"], [[number, value] for number, value in enumerate(outputs.reshape(-1, outputs.shape[-1])[0].tolist())]
        ),
        advice="leave out the softmax or sigmoid at the end of the model; prediction applies its own",
        rank=1,
    )
    return Seen(value=inside, threshold=1.0, findings=(finding,))


def init_variance(patient: Patient) -> Seen:
    """How far activations and gradients come through the layers before anything is learnt (Glorot & Bengio 2010; He et al. 2015)."""
    model = patient_model(patient)
    layers = seen_by_depth(patient, model, few(patient, ASKED))
    if len(layers) > 1 and layers[-1][2] > 0 and not any(gradient for _, _, gradient in layers[:-1]):  # an output layer that starts at 0
        model = patient.practise(patient.training_split(), 2).model.train()
        layers = seen_by_depth(patient, model, few(patient, ASKED))
    if len(layers) < 3:
        raise Skip("fewer than three layers with weights")
    _, sizes, gradients = zip(*layers, strict=True)
    ratio = first_to_last(layers)
    growth = sizes[-1] / max(sizes[0], 1e-300)
    bad = not (1 / FAR <= ratio <= FAR) or not math.isfinite(sizes[-1])
    said = f"the gradient at the first layer is {ratio:.2g} times that at the last, over {len(layers)} layers"
    if not bad:
        return Seen(value=ratio, threshold=FAR, said=said)
    word = "vanishes" if ratio < 1 else "explodes"
    depth = list(range(1, len(layers) + 1))
    finding = Finding(
        check="init_variance",
        severity="error",
        summary=f"the gradient {word}: at the first of {len(layers)} layers it is {ratio:.2g} times that at the last "
        f"(the outputs of the layers change by a factor of {growth:.2g})",
        value=ratio,
        threshold=FAR if ratio > 1 else 1 / FAR,
        because=f"beyond a factor of {FAR:g} no one learning rate fits both ends",
        evidence=curve("layer", "at init", {"size of outputs (rms)": (depth, sizes), "norm of gradient": (depth, gradients)}),
        remedy=livelier(patient),
        advice="He's variance for ReLU, Glorot's for tanh, a norm or residual connections keep both from layer to layer",
        rank=8,
    )
    return Seen(value=ratio, threshold=FAR, said=said, findings=(finding,))


def first_to_last(layers: list[tuple[str, float, float]]) -> float:
    """The gradient at the first layer over that at the last."""
    first, last = layers[0][2], layers[-1][2]
    return first / last if last > 0 else math.inf if first > 0 else 0.0


def livelier(patient: Patient) -> tuple[str, ...]:
    """The first of the model's settings, tried one by one and then together, by which gradients reach both ends; else the first."""
    if patient.own_model:
        return ()
    config = patient.prepared.experiment.model
    single = [
        *([("model.init=none",)] if has_field(config, "init") and getattr(config, "init", None) is not None else []),
        *([normed(patient)] if normed(patient) else []),
        *([("model.activation=relu",)] if has_field(config, "activation") and getattr(config, "activation", "") != "relu" else []),
    ]
    for edits in (*single, sum(single, ())):
        try:
            model = build_model(tree.edit(patient.prepared.experiment, edits), patient.prepared.splits, fresh=True)
        except UserError:
            continue
        layers = seen_by_depth(patient, model.to(patient.device).train(), few(patient, ASKED))
        if len(layers) > 1 and 1 / FAR <= first_to_last(layers) <= FAR:
            return edits
    return single[0] if single else ()


def untrained_parameters(patient: Patient) -> Seen:
    """What no gradient reaches in three steps, is frozen, or has a rate of zero."""
    first = patient.first_steps
    reached, still = first.reached, first.still
    sizes = {name: p.numel() for name, p in first.model.named_parameters()}
    frozen = {name for name, p in first.model.named_parameters() if not p.requires_grad}
    moving = isinstance(patient.method.groups, MovingGroups)
    without = [name for name in sizes if name not in reached and name not in frozen]
    idle = sorted(frozen | (set() if moving else still))
    lost = [*without, *(name for name in idle if name not in without)]
    if moving and not without:
        lost = []
    share = sum(sizes[name] for name in lost) / max(1, sum(sizes.values()))
    if not lost:
        return Seen(value=0.0, threshold=0.0, said=f"all {len(sizes)} tensors have a gradient and a rate")
    by_rule = [name for name in lost if name in still]
    why = {name: "frozen (requires_grad)" if name in frozen else "rate 0" if name in still else "no gradient" for name in lost}
    kinds = Counter(why.values())
    meant = isinstance(patient.prepared.experiment.model, PretrainedConfig) or (by_rule and len(by_rule) == len(lost))
    finding = Finding(
        check="untrained_parameters",
        severity="note" if meant and share < 0.999 else "error" if share >= 0.01 else "warning",
        summary=f"{len(lost)} of {len(sizes)} parameter tensors ({share:.0%} of the weights) do not learn: "
        f"{', '.join(lost[:NAMED])}{' …' if len(lost) > NAMED else ''} ({', '.join(f'{n} {what}' for what, n in kinds.items())})",
        value=share,
        threshold=0.0,
        because="what takes part in the forward has a gradient within three steps, and what is in the optimizer has a rate",
        evidence=table(["parameter", "weights", "why"], [[name, sizes[name], why[name]] for name in lost[:50]]),
        remedy=("method.groups=no_decay",) if by_rule else (),
        advice="use it in forward, do not detach what follows it, or leave it out of the model",
        rank=2,
    )
    return Seen(value=share, threshold=0.0, findings=(finding,))


def batch_norm(patient: Patient) -> Seen:
    """Batch norm that sits in evaluation mode while training, trains in evaluation, sees too few samples, or has not caught up."""
    model = patient_model(patient)
    named = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    if not named:
        raise Skip("the model has no batch norm")
    model.train()
    in_evaluation = [name for name, module in named.items() if not module.training]
    model.eval()
    in_training = [name for name, module in named.items() if module.training]
    modes = {name: ("evaluates" if name in in_evaluation else "trains", "trains" if name in in_training else "evaluates") for name in named}
    if in_evaluation or in_training:
        names = in_evaluation or in_training
        while_ = "training, in evaluation mode: it normalizes by numbers that are never measured"
        instead = "evaluation, still in training mode: a prediction depends on what else is in its batch"
        finding = Finding(
            check="batch_norm",
            severity="error",
            summary=f"{len(names)} of {len(named)} batch norms are, in {while_ if in_evaluation else instead} ({', '.join(names[:NAMED])})",
            value=float(len(names)),
            threshold=0.0,
            because="model.train() and model.eval() must reach every module",
            evidence=table(["batch norm", "after train()", "after eval()"], [[name, *modes[name]] for name in list(named)[:50]]),
            remedy=normed(patient),
            advice="look for an own train() or eval(), or a module outside the tree of modules; norm=frozen_batch says it on purpose",
            rank=3,
        )
        return Seen(value=float(len(names)), threshold=0.0, findings=(finding,))
    rows = min(patient.run.microbatch_size or patient.run.batch_size, patient.run.batch_size)
    if rows < SMALL_BATCH:
        finding = Finding(
            check="batch_norm",
            severity="warning",
            summary=f"batch norm takes its statistics from {rows} samples at a time",
            value=float(rows),
            threshold=float(SMALL_BATCH),
            because="its error grows steeply below 8 samples a batch, where group norm's does not (Wu and He 2018, figure 1)",
            evidence=table(
                ["batch norm", "channels", "samples"], [[name, module.num_features, rows] for name, module in list(named.items())[:50]]
            ),
            remedy=normed(patient) or ("run.batch_size=32", "run.microbatch_size=none"),
            advice="another norm, or more samples in a forward",
            rank=3,
        )
        return Seen(value=float(rows), threshold=float(SMALL_BATCH), findings=(finding,))
    return caught_up(patient)


def caught_up(patient: Patient) -> Seen:
    """Whether running statistics give the answers that batch statistics give."""
    if not patient.has_classes or not patient.can_practise or patient.practised.steps < 30:
        return Seen(said="every batch norm is in its mode")
    some = patient.samples("train")
    inputs, target = some.inputs[:LOOKED_AT], some.target[:LOOKED_AT]
    evaluated, trained = (
        float((patient.outputs(patient.practised.model, inputs, target, training=mode).argmax(-1) == target).double().mean())
        for mode in (False, True)
    )
    gap, most = trained - evaluated, 0.2
    said = f"training samples: {evaluated:.0%} right by running statistics, {trained:.0%} by those of the batch"
    if gap <= most:
        return Seen(value=gap, threshold=most, said=said)
    finding = Finding(
        check="batch_norm",
        severity="error",
        summary=f"after {patient.practised.steps} steps the same samples are {trained:.0%} right by the batch's statistics "
        f"and {evaluated:.0%} "
        "by the running ones that prediction uses",
        value=gap,
        threshold=most,
        because="both are estimates of the same mean and variance; more than noise between them means that the running ones lag",
        evidence=table(["statistics", "training samples right"], [["of the batch", trained], ["running", evaluated]]),
        remedy=normed(patient),
        advice="give it a larger momentum (0.1 forgets in about ten steps, a much smaller one has not arrived yet) or another norm",
        rank=3,
    )
    return Seen(value=gap, threshold=most, said=said, findings=(finding,))


def memory(patient: Patient) -> Seen:
    """Whether a training step fits into what is free."""
    if patient.device.type != "cpu":
        raise Skip("memory is estimated for the CPU")
    job, free = patient.prepared.job(Path(), {}), free_memory()
    fits = microbatch_that_fits(job, patient.prepared.model, patient.prepared.inputs, free)
    kept, each = activation_bytes(patient.prepared.model, patient.prepared.inputs, job)
    rows = patient.run.microbatch_size or patient.run.batch_size
    sizes = table(
        ["what", "MB"],
        [
            ["weights", sum(p.nbytes for p in patient.prepared.model.parameters()) / 1e6],
            [f"kept between forward and backward for {rows} samples", (kept + rows * each) / 1e6],
            ["free", free / 1e6],
        ],
    )
    if fits is None:
        tight = microbatch_that_fits(job, patient.prepared.model, patient.prepared.inputs, int(0.7 * free))
        said = f"a step fits in {free / 1e9:.1f} GB that are free"
        if tight is None or not tight:
            return Seen(said=said)
        finding = Finding(
            check="memory",
            severity="note",
            summary=f"a step takes more than 70 % of the {free / 1e9:.1f} GB that are free",
            because="another program may ask for the rest",
            evidence=sizes,
            remedy=(f"run.microbatch_size={tight}",),
            rank=40,
        )
        return Seen(said=said, findings=(finding,))
    finding = Finding(
        check="memory",
        severity="error",
        summary=f"a step on {rows} samples does not fit in the {free / 1e9:.1f} GB that are free; {fits} samples at a time would",
        value=float(rows),
        threshold=float(fits),
        because="weights, gradients, optimizer, what autograd keeps (measured on four samples) and what the allocator wastes",
        evidence=sizes,
        remedy=(f"run.microbatch_size={fits}",) if fits else (),
        advice="micro-batches keep the batch, by accumulation" if fits else "not even one sample fits: a smaller model, or smaller inputs",
        rank=0,
    )
    return Seen(value=float(rows), threshold=float(fits), findings=(finding,))


# --- shared ----------------------------------------------------------------------------------------------------------


def patient_model(patient: Patient) -> nn.Module:
    """A copy of the model as it starts, model transforms included."""
    model = copy.deepcopy(patient.prepared.model)
    for transform in patient.method.model_transforms:
        model = transform(model)
    return model.to(patient.device).train()


def few(patient: Patient, count: int) -> tuple:
    """The first training samples of those drawn."""
    some = patient.samples("train")
    return tuple(map_leaves(lambda x: x[:count], part) for part in (some.inputs, some.target))


def seen_by_depth(patient: Patient, model: nn.Module, some: tuple) -> list[tuple[str, float, float]]:
    """(layer, rms of its outputs, norm of the loss's gradient at them) of every layer with a weight matrix, in the order of the forward.

    A residual branch may be silent at init on purpose, so only layers that pass something on are counted.
    """
    layers: list[tuple[str, Tensor]] = []
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                output.retain_grad()
                layers.append((name, output))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if isinstance(module, kinds)]
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            seed_model_noise(torch.device("cpu"), 0)
            inputs = map_leaves(lambda x: x.to(patient.device), patient.as_read(*some))
            target = some[1].to(patient.device)
            patient.method.objective(model(inputs), target).mean().backward()
    finally:
        for handle in handles:
            handle.remove()
    rows = []
    for name, output in layers:
        gradient = 0.0 if output.grad is None else float(output.grad.double().norm())
        rows.append((name, float(output.detach().double().square().mean().sqrt()), gradient))
    ends = (0, len(rows) - 1)
    return [row for number, row in enumerate(rows) if row[2] != 0 or number in ends]


def calmer(patient: Patient) -> tuple[str, ...]:
    """The model's own first weights, where others were asked for; else inputs of deviation 1, where nothing normalizes them."""
    model = patient.prepared.experiment.model
    if has_field(model, "init") and getattr(model, "init", None) is not None:
        return ("model.init=none",)
    normalizes = any(tree.kind_of(transform) == "normalize" for transform in patient.method.batch_transforms)
    return ("method.batch_transforms+=normalize",) if patient.facts.mean and not normalizes else ()


def normed(patient: Patient) -> tuple[str, ...]:
    """A norm that does not look at other samples, where the model can have one."""
    model = patient.prepared.experiment.model
    if not has_field(model, "norm"):
        return ()
    return (f"model.norm={'layer' if getattr(model, 'norm', None) == 'group' else 'group'}",)
