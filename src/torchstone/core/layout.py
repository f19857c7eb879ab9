"""The names in a run folder, and the version of their meaning."""

VERSION = 1
"""Of artifact.json and everything beside it; another one is refused."""

EXPERIMENT, ENVIRONMENT, ARTIFACT, METRICS = "experiment.toml", "environment.json", "artifact.json", "metrics.json"
CHECKPOINTS = "checkpoints"
PREDICTIONS, PICTURES = "predictions.safetensors", "pictures"
STEP = "step-"
"""How a checkpoint's folder begins; its step follows."""
