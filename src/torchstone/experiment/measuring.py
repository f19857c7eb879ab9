"""A predictor measured on a split, as the evaluations of its run were."""

from typing import Any

from torchstone.core.errors import UserError, WorkError
from torchstone.core.protocols import Split
from torchstone.experiment.preparing import resolved
from torchstone.experiment.tree import Experiment
from torchstone.ship import Predictor
from torchstone.ship.inputs import PictureFiles, refusal, unreadable
from torchstone.train.evaluate import evaluate


def measured(experiment: Experiment, predictor: Predictor, split: Split) -> dict[str, Any]:
    """All metrics of the run's task over the split, by the run's own loss, precision and batches."""
    facts, run = predictor.artifact.facts, experiment.run
    method = resolved(experiment, facts).method if experiment.method.loss is None else experiment.method
    try:
        return evaluate(
            predictor.model,
            split,
            forward=predictor.artifact.task.forward,
            loss=method.loss,  # type: ignore[arg-type]
            metrics=predictor.artifact.task.metrics(facts),
            device=predictor.device,
            batch_size=run.evaluation_batch_size,
            precision=run.precision,
            memory_format=run.memory_format,
            sample_transforms=predictor.artifact.preprocess.sample,
            batch_transforms=predictor.transforms,
            workers=run.workers,
        )
    except WorkError:
        bad = list(unreadable(split, range(len(split))).values()) if isinstance(split, PictureFiles) else []
        if not bad:
            raise
        raise UserError(refusal(bad, len(split))) from None
