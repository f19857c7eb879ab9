"""Models by family. A config is a part; `config.build(inputs, outputs)` makes the module, drawing its weights from the default generator.

Every model names its output layer `head`, and its repeated residual blocks, where it has any, `blocks`.
"""

from torchstone.models.building import build
from torchstone.models.text.gpt import GPT, GPTConfig
from torchstone.models.vision.conv_net import ConvNet, ConvNetConfig
from torchstone.models.vision.mlp import MLP, MLPConfig

Model = MLPConfig | ConvNetConfig | GPTConfig

__all__ = ["GPT", "MLP", "ConvNet", "ConvNetConfig", "GPTConfig", "MLPConfig", "Model", "build"]
