"""Losses (one number a term) and penalties (one number a model). The unions are the registry.

layouts          what a loss reads: the words for outputs and targets, and their classes
targets          what a classification target may be, and the expectation under it
class_weights    weights of the classes: given, or from the data (balanced, effective number)
cross_entropy    CrossEntropy, with smoothing, ignored terms and class weights
focal            Focal
long_tail        LogitAdjustment, LDAM, Arcface: margins and priors inside the logits
divergence       KLDiv, JSDiv
binary           BCE, MultilabelSoftMargin, MultilabelMargin: one yes or no a label
margin           MultiMargin, SoftMargin, HingeEmbedding, MarginRanking, CosineEmbedding, Contrastive
regression       MSE, MAE, Huber, SmoothL1, on values or on classes
likelihood       NLL, PoissonNll, GaussianNll: of what a distribution's parameters say
metric_learning  Triplet, SupervisedContrastive, InfoNCE (N-pair, CLIP): on embeddings of the whole batch
center           Center, which remembers the classes' centers
sequence         CTC
boxes            L1Boxes, IOU, GIOU, DIOU, CIOU
detection        Varifocal, DistributionFocal, SetPrediction
adversarial      Minimax, NonSaturating, Hinge, LeastSquares, Wasserstein; GradientPenalty and R1 on the critic
penalties        L1, L2, L0 (of gates), Orthogonality
"""

from torchstone.losses.adversarial import R1, GradientPenalty, Hinge, LeastSquares, Minimax, NonSaturating, Wasserstein
from torchstone.losses.binary import BCE, MultilabelMargin, MultilabelSoftMargin
from torchstone.losses.boxes import CIOU, DIOU, GIOU, IOU, L1Boxes
from torchstone.losses.center import Center
from torchstone.losses.cross_entropy import CrossEntropy
from torchstone.losses.detection import DistributionFocal, SetPrediction, Varifocal
from torchstone.losses.divergence import JSDiv, KLDiv
from torchstone.losses.focal import Focal
from torchstone.losses.layouts import LAYOUTS, Detections, Frames, Gaussian, Objects, Pair, Symbols
from torchstone.losses.likelihood import NLL, GaussianNll, PoissonNll
from torchstone.losses.long_tail import LDAM, Arcface, LogitAdjustment
from torchstone.losses.margin import Contrastive, CosineEmbedding, HingeEmbedding, MarginRanking, MultiMargin, SoftMargin
from torchstone.losses.metric_learning import InfoNCE, SupervisedContrastive, Triplet
from torchstone.losses.penalties import L0, L1, L2, Orthogonality
from torchstone.losses.regression import MAE, MSE, Huber, SmoothL1
from torchstone.losses.sequence import CTC

ClassLoss = (
    CrossEntropy | Focal | LogitAdjustment | LDAM | KLDiv | JSDiv | BCE | MultilabelSoftMargin | MultiMargin | MSE | MAE | Huber | SmoothL1
)
"""What fits logits of classes, or one-hot vectors of them."""
EmbeddingLoss = Triplet | SupervisedContrastive | Center | Arcface
"""What fits embeddings, or cosines to the classes' directions, and a class of each."""
OtherLoss = (
    NLL
    | PoissonNll
    | GaussianNll
    | MultilabelMargin
    | SoftMargin
    | HingeEmbedding
    | MarginRanking
    | CosineEmbedding
    | Contrastive
    | InfoNCE
    | CTC
    | L1Boxes
    | IOU
    | GIOU
    | DIOU
    | CIOU
    | Varifocal
    | DistributionFocal
    | SetPrediction
)
"""What fits other outputs and targets; each says which (`takes`), and a task that gives others is refused before training."""
Loss = ClassLoss | EmbeddingLoss | OtherLoss
AdversarialLoss = Minimax | NonSaturating | Hinge | LeastSquares | Wasserstein
CriticPenalty = GradientPenalty | R1
Penalty = L1 | L2 | L0 | Orthogonality

__all__ = [
    "BCE",
    "CIOU",
    "CTC",
    "DIOU",
    "GIOU",
    "IOU",
    "L0",
    "L1",
    "L2",
    "LAYOUTS",
    "LDAM",
    "MAE",
    "MSE",
    "NLL",
    "R1",
    "AdversarialLoss",
    "Arcface",
    "Center",
    "ClassLoss",
    "Contrastive",
    "CosineEmbedding",
    "CriticPenalty",
    "CrossEntropy",
    "Detections",
    "DistributionFocal",
    "EmbeddingLoss",
    "Focal",
    "Frames",
    "Gaussian",
    "GaussianNll",
    "GradientPenalty",
    "Hinge",
    "HingeEmbedding",
    "Huber",
    "InfoNCE",
    "JSDiv",
    "KLDiv",
    "L1Boxes",
    "LeastSquares",
    "LogitAdjustment",
    "Loss",
    "MarginRanking",
    "Minimax",
    "MultiMargin",
    "MultilabelMargin",
    "MultilabelSoftMargin",
    "NonSaturating",
    "Objects",
    "Orthogonality",
    "OtherLoss",
    "Pair",
    "Penalty",
    "PoissonNll",
    "SetPrediction",
    "SmoothL1",
    "SoftMargin",
    "SupervisedContrastive",
    "Symbols",
    "Triplet",
    "Varifocal",
    "Wasserstein",
]
