"""The canon's rows about learning: each has its parts, in the seats where they are switched on, or its functions and tests."""

import importlib
from pathlib import Path

import pytest

from torchstone.cli import catalog
from torchstone.nn import activation, init, norm

TESTS = Path(__file__).parents[1]
ABOUT = {"activation": activation.ABOUT, "norm": norm.ABOUT, "init": init.ABOUT}
"""Choices of a model that are names, not parts."""

ROWS: dict[str, dict[str, str]] = {
    "A2": {"optimizer": "closed_form", "torchstone.optim.second_order": "ridge"},
    "A3": {"stop": "patience loss_threshold"},
    "A5": {
        "tests": "derivations/dense derivations/conv derivations/pooling derivations/batch_norm derivations/layer_norm "
        "derivations/softmax_cross_entropy derivations/sigmoid_mse derivations/softmax_mse derivations/attention derivations/lstm_cell"
    },
    "A7": {
        "optimizer": "gradient_descent newton bfgs lbfgs conjugate_gradient sgd",
        "torchstone.optim.second_order": "minimize",
        "torchstone.optim.second_order.line_search": "Backtracking StrongWolfe",
    },
    "A8": {"torchstone.optim.second_order": "lanczos saddle", "torchstone.experiment": "saddle_of_run"},
    "C1": {"norm": "batch layer instance group switchable rms frozen_batch", "torchstone.nn": "SyncBatchNorm"},
    "C3": {
        "activation": "sigmoid tanh relu leaky_relu prelu elu selu gelu gelu_tanh silu swish softplus mish hardswish softmax "
        "glu bilinear reglu geglu swiglu"
    },
    "C4": {
        "init": "normal uniform xavier kaiming truncated orthogonal lsuv mup",
        "groups": "mup",
        "model": "pretrained",
        "torchstone.nn": "zero_branch gain",
    },
    "C6": {"torchstone.nn": "DropPath DropBlock WordDropout", "model_transforms": "drop_path_ramp"},
    "D1": {
        "loss": "mse mae huber smooth_l1 cross_entropy bce nll kl_div poisson_nll gaussian_nll margin_ranking hinge_embedding "
        "multilabel_margin multilabel_soft_margin multi_margin soft_margin cosine_embedding triplet ctc"
    },
    "D2": {"loss": "cross_entropy focal bce"},
    "D3": {"traps": "d3"},
    "D5": {"loss": "kl_div js_div", "traps": "d5"},
    "D6": {
        "loss": "cross_entropy focal logit_adjustment ldam contrastive info_nce arcface supervised_contrastive center",
        "model_transforms": "cosine_head",
    },
    "D7": {"loss": "l1_boxes iou giou diou ciou varifocal distribution_focal set_prediction"},
    "D8": {
        "adversarial": "minimax non_saturating hinge least_squares wasserstein",
        "critic_penalties": "gradient_penalty r1",
    },
    "E1": {
        "optimizer": "sgd adagrad adadelta rmsprop adam adamw nadam radam adamax lamb lars lion muon soap shampoo schedule_free lookahead",
        "gradient": "sam asam",
    },
    "E2": {"penalties": "l1 l2 l0", "model_transforms": "hard_concrete", "optimizer": "adam adamw", "traps": "e2"},
    "E3": {"groups": "no_decay layer_decay patterns"},
    "E4": {
        "schedules": "constant step multi_step exponential polynomial cosine cosine_restarts one_cycle cyclic plateau wsd inverse_sqrt",
        "torchstone.train.rate_finder": "",
    },
    "E5": {"averaging": "ema swa lawa", "torchstone.train.batch_norm": "", "torchstone": "soup"},
    "E6": {"gradient_transforms": "clip_by_norm clip_by_value adaptive_clip centralize gradient_noise", "traps": "e6"},
    "E7": {"stop": "patience", "torchstone": "train_folds", "data": "fold"},
    "G1": {
        "metrics": "accuracy precision recall f_beta specificity matthews class_report top_k confusion",
        "traps": "g1",
    },
    "G2": {"metrics": "curves roc_auc average_precision calibration_error reliability log_loss brier"},
    "G5": {"torchstone.core.protocols": "RowMetric"},
}
"""Row -> place -> names: a seat and its kinds, a table and its names, a module and what it has (at least itself), derivations, traps."""


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_canon_has_its_parts(row: str) -> None:
    seats = catalog.seats()
    for place, text in ROWS[row].items():
        names = text.split()
        if place == "tests":
            missing = [name for name in names if not (TESTS / "reference" / f"{name}.py").exists()]
        elif place == "traps":
            found = "\n".join(path.read_text() for path in TESTS.rglob("test_*.py"))
            missing = [name for name in names if f"def test_trap_{name}" not in found]
        elif place in seats:
            missing = [name for name in names if name not in seats[place].parts]
        elif place in ABOUT:
            missing = [name for name in names if name not in ABOUT[place]]
        else:
            module = importlib.import_module(place)
            missing = [name for name in names if not hasattr(module, name)]
        assert not missing, f"{row}: {place} lacks {', '.join(missing)}"
