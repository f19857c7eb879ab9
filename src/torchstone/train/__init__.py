"""Training: the method's seats, the step, the plan, the state, the loop, evaluation and checkpoints.

method      the seats of how a model learns            step        one update, every change in its line
settings    the outer settings of a run                plan        which samples each update, rank and micro-batch holds
build       from a method to a state at step 0         state       everything that changes while a model trains
loop        steps, evaluations, checkpoints            evaluate    every sample of a split scored once
checkpoint  what is stored and which one is trusted    folder      the run folder
guard       no update from what is not finite          precision   fp32, bf16, fp16 with its loss scale
results     metrics.json                               exactness   what two runs must share to be bit-identical
signals     Ctrl-C and SIGTERM                         trackers    what watches

The package is also the verb: `torchstone.train(experiment, *edits, out=..., resume=...)` is `torchstone.experiment.train_experiment`,
and draws the run's page at the end.
"""

import sys
from types import ModuleType
from typing import Any

import torchstone


class _Verb(ModuleType):
    def __call__(self, experiment: Any, *edits: str, **options: Any) -> Any:
        return torchstone.train_with_report(experiment, *edits, **options)


sys.modules[__name__].__class__ = _Verb
