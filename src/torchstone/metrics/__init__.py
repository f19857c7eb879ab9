"""Metrics: sums of a batch that add over batches and ranks, divided once at the end. The union is the registry.

    sums = metric.measure(outputs, target, weight, terms)      # of each batch; added up key by key
    metric.result(sums)                                        # {"accuracy": 0.97}

`weight` is one a term (0: padding or ignored), `terms` the run's loss at each; a metric takes what it needs. Counts are
int64, so they do not depend on how the split was cut; other sums are float64. A metric that needs every score (`ranking`)
names in `rows` what is laid end to end instead of added. Nothing counted is NaN, not 0.

classification  Accuracy, TopK, Confusion
class_report    ClassReport: precision, recall and F1 of each class, balanced accuracy, macro F1
averages        Precision, Recall, FBeta, Specificity: macro, weighted, micro; Matthews
ranking         RocAuc, AveragePrecision, Curves
probability     LogLoss, Brier
calibration     CalibrationError, Reliability; fit_temperature
thresholds      AtThreshold; FScore, Youden, AtPrecision choose it (ThresholdRule)
loss            MeanLoss
language        BitsPerByte
counts          what those are made of, as functions: outcomes of each class; `ops.curves`: counts at each threshold
"""

from torchstone.metrics.averages import FBeta, Matthews, Precision, Recall, Specificity
from torchstone.metrics.calibration import CalibrationError, Reliability, fit_temperature
from torchstone.metrics.class_report import ClassReport
from torchstone.metrics.classification import Accuracy, Confusion, TopK
from torchstone.metrics.language import BitsPerByte
from torchstone.metrics.loss import MeanLoss
from torchstone.metrics.probability import Brier, LogLoss
from torchstone.metrics.ranking import AveragePrecision, Curves, RocAuc
from torchstone.metrics.thresholds import AtPrecision, AtThreshold, FScore, ThresholdRule, Youden, choose

Metric = (
    Accuracy
    | TopK
    | MeanLoss
    | Confusion
    | ClassReport
    | Precision
    | Recall
    | FBeta
    | Specificity
    | Matthews
    | RocAuc
    | AveragePrecision
    | Curves
    | LogLoss
    | Brier
    | CalibrationError
    | Reliability
    | AtThreshold
    | BitsPerByte
)

__all__ = [
    "Accuracy",
    "AtPrecision",
    "AtThreshold",
    "AveragePrecision",
    "BitsPerByte",
    "Brier",
    "CalibrationError",
    "ClassReport",
    "Confusion",
    "Curves",
    "FBeta",
    "FScore",
    "LogLoss",
    "Matthews",
    "MeanLoss",
    "Metric",
    "Precision",
    "Recall",
    "Reliability",
    "RocAuc",
    "Specificity",
    "ThresholdRule",
    "TopK",
    "Youden",
    "choose",
    "fit_temperature",
]
