"""What kind of place the weights of a run have come to: a minimum, a saddle, or nowhere yet.

The function looked at is the training loss over the whole training split, penalties included, of the weights that the run predicts with; in
evaluation mode (no dropout, running batch-norm statistics), without augmentation, in float64. A training that uses those minimizes a
neighbor of this function, so its weights need not be stationary here. Shapes: P trained parameters.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchstone import ship
from torchstone.core import layout
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch
from torchstone.data.pytree import map_leaves
from torchstone.data.ready import ready
from torchstone.experiment.preparing import Prepared, evaluation_batch, prepare, threads_restored
from torchstone.experiment.tree import Experiment, load_without_own_parts
from torchstone.optim.second_order import Problem, Saddle, saddle_of

LARGEST_CUT = 1024
"""Samples looked at together at most."""
NEEDED = ("loss", "penalties", "sample_transforms", "batch_transforms")
"""Seats that the function is made of."""


class Whole(nn.Module):
    """A model whose forward may be anything that is done with it, so that its parameters can be other tensors for once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, use: Callable[[nn.Module], Tensor]) -> Tensor:
        return use(self.model)


def saddle_of_run(run: Path, experiment: Experiment | None = None, *, tolerance: float = 1e-4, most: int = 100) -> Saddle:
    """The report of a run folder, on the CPU. `tolerance`: the gradient norm up to which the weights count as stationary; `most`: Lanczos
    steps, each about three passes over the training split. `experiment`: the one that was trained, where its loss is a class of the
    user's own, which no file can build.

    Raises UserError for what is no run, has no weights yet, is several models, or whose data are gone.
    """
    predictor = ship.load(run, device="cpu")
    if predictor.members:
        raise UserError(f"{run}: several models answer together here; --saddle looks at the weights of one: give it the run of a member")
    experiment = experiment or as_trained(run)
    model = predictor.model.double()
    with threads_restored():
        prepared = prepare(experiment, "run.device=cpu", "run.speed=plain", fresh=False)
        torch.set_num_threads(prepared.experiment.run.threads or 1)
        problem, start = flat_problem(prepared, model)
        with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
            return saddle_of(problem, start, tolerance=tolerance, most=most)


def as_trained(run: Path) -> Experiment:
    """The experiment of a run, without the user's own classes in seats that the training loss does not read.

    Raises UserError where one sits in a seat that it does.
    """
    experiment, own = load_without_own_parts(run / layout.EXPERIMENT)
    if lost := [f"method.{seat}" for seat in own if seat in NEEDED]:
        raise UserError(
            f"{run}: {' and '.join(lost)} is a class of your own, which no file can build; "
            "in Python: torchstone.experiment.saddle_of_run(run, experiment) with the experiment that was trained"
        )
    return experiment


def flat_problem(prepared: Prepared, model: nn.Module) -> tuple[Problem, Tensor]:
    """The training loss as a function of the flat float64 parameters of `model`, and where they are now."""
    method, loss = prepared.experiment.method, prepared.experiment.method.objective
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = torch.cat([p.detach().flatten() for p in trained.values()])
    whole = Whole(model.eval())

    def under(x: Tensor, use: Callable[[nn.Module], Tensor]) -> Tensor:
        parts = x.split([p.numel() for p in trained.values()])
        named = {f"model.{name}": part.view_as(p) for (name, p), part in zip(trained.items(), parts, strict=True)}
        return functional_call(whole, named, (use,))

    rows = np.arange(len(prepared.splits.train))
    cuts = np.array_split(rows, -(-len(rows) // LARGEST_CUT))
    total = sum(float(loss.weight(batch_of(prepared, cut).target).double().sum()) for cut in cuts)

    def share(cut: np.ndarray, model: nn.Module) -> Tensor:
        batch = batch_of(prepared, cut)
        terms = loss(model(batch.inputs), batch.target)
        return (terms * loss.weight(batch.target)).sum() / total

    uses = [*(partial(share, cut) for cut in cuts), *method.penalties]
    return Problem([partial(under, use=use) for use in uses]), start


def batch_of(prepared: Prepared, rows: np.ndarray) -> Batch:
    """Training samples as an evaluation would hand them to the model, in float64."""
    batch = evaluation_batch(prepared.experiment.method, prepared.splits, rows)
    return Batch(map_leaves(_doubled, ready(batch.inputs, "contiguous")), map_leaves(_doubled, batch.target), batch.index, batch.weight)


def _doubled(tensor: Any) -> Any:
    return tensor.double() if tensor.is_floating_point() else tensor
