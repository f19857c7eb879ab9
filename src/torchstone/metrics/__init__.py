"""Metrics: sums of a batch that add over batches and ranks, divided once at the end. The union is the registry.

    sums = metric.measure(outputs, target, weight, terms)      # of each batch; added up key by key
    metric.result(sums)                                        # {"accuracy": 0.97}

`weight` is one a term (0: padding or ignored), `terms` the run's loss at each; a metric takes what it needs. Counts are
int64, so they do not depend on how the split was cut; other sums are float64. Nothing counted is NaN, not 0.

classification  Accuracy, TopK, Confusion
class_report    ClassReport: precision, recall and F1 of each class, balanced accuracy, macro F1
calibration     CalibrationError
loss            MeanLoss
language        BitsPerByte
"""

from torchstone.metrics.calibration import CalibrationError
from torchstone.metrics.class_report import ClassReport
from torchstone.metrics.classification import Accuracy, Confusion, TopK
from torchstone.metrics.language import BitsPerByte
from torchstone.metrics.loss import MeanLoss

Metric = Accuracy | TopK | MeanLoss | Confusion | ClassReport | CalibrationError | BitsPerByte

__all__ = ["Accuracy", "BitsPerByte", "CalibrationError", "ClassReport", "Confusion", "MeanLoss", "Metric", "TopK"]
