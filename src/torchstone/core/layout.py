"""The names in a run folder, and the version of their meaning."""

VERSION = 1
"""Of artifact.json and everything beside it; another one is refused."""

EXPERIMENT, ENVIRONMENT, ARTIFACT, METRICS = "experiment.toml", "environment.json", "artifact.json", "metrics.json"
ENSEMBLE, RESULTS = "ensemble.json", "results.json"
"""Of a folder of runs that answer together: which they are, and what they measure."""
CHECKPOINTS = "checkpoints"
PREDICTIONS, PICTURES = "predictions.safetensors", "pictures"
PROBES = "probes.jsonl"
TRAINING = "train_"
"""Before the name of a metric that was measured on the training split."""
STEP, SNAPSHOT = "step-", "snapshot-"
"""How a checkpoint's folder begins (its step follows), and the text files that name those kept as snapshots (1, 2, ... follow)."""
