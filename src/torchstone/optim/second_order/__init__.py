"""Second order and full batch: for smooth functions, small models, and whatever is worth minimizing to the last digit. All in float64.

minimize       any method on any function; `Result`
descent        GradientDescent: batch gradient descent
newton         Newton: damped; by the whole Hessian, or free of it by conjugate gradients
quasi_newton   BFGS, LBFGS
conjugate      ConjugateGradient: PR+ and FR; `solve`: linear systems from products
line_search    Backtracking, StrongWolfe, FixedStep
closed_form    ClosedForm: one solve; `ridge`
curvature      `lanczos`, `saddle`: extreme eigenvalues, and what kind of point it is
problem        `Problem`: value, gradient, Hessian-vector products

The same parts minimize a function here and train a model in `method=full_batch` (train/full_batch).
"""

from torchstone.optim.second_order.closed_form import ClosedForm, ridge
from torchstone.optim.second_order.conjugate import ConjugateGradient, solve
from torchstone.optim.second_order.curvature import Extremes, Saddle, lanczos, saddle, saddle_of
from torchstone.optim.second_order.descent import GradientDescent
from torchstone.optim.second_order.line_search import Backtracking, FixedStep, StrongWolfe
from torchstone.optim.second_order.minimize import FullBatchOptimizer, Result, minimize
from torchstone.optim.second_order.newton import Newton
from torchstone.optim.second_order.problem import Point, Problem
from torchstone.optim.second_order.quasi_newton import BFGS, LBFGS

SecondOrder = LBFGS | BFGS | Newton | ConjugateGradient | GradientDescent | ClosedForm

__all__ = [
    "BFGS",
    "LBFGS",
    "Backtracking",
    "ClosedForm",
    "ConjugateGradient",
    "Extremes",
    "FixedStep",
    "FullBatchOptimizer",
    "GradientDescent",
    "Newton",
    "Point",
    "Problem",
    "Result",
    "Saddle",
    "SecondOrder",
    "StrongWolfe",
    "lanczos",
    "minimize",
    "ridge",
    "saddle",
    "saddle_of",
    "solve",
]
