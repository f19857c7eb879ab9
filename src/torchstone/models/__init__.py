"""Models by family. A config is a part; `config.build(inputs, outputs)` makes the module, drawing its weights from the default generator.

Every model names its output layer `head`, and its repeated residual blocks, where it has any, `blocks`.
"""

from torchstone.models.building import build
from torchstone.models.pretrained import Body, PretrainedConfig
from torchstone.models.text.gpt import GPT, GPTConfig
from torchstone.models.vision.cifar_resnet import CifarResnet, CifarResnetConfig
from torchstone.models.vision.conv_net import ConvNet, ConvNetConfig
from torchstone.models.vision.fast_conv_net import FastConvNet, FastConvNetConfig
from torchstone.models.vision.lenet import Lenet, LenetConfig
from torchstone.models.vision.mlp import MLP, MLPConfig
from torchstone.models.vision.mobilenet import MobileNetV2, MobileNetV2Config
from torchstone.models.vision.resnet import Resnet, ResnetConfig
from torchstone.models.vision.vit import VIT, VITConfig
from torchstone.models.weights import Loaded, load_body

Model = Body | PretrainedConfig

__all__ = [
    "GPT",
    "MLP",
    "VIT",
    "Body",
    "CifarResnet",
    "CifarResnetConfig",
    "ConvNet",
    "ConvNetConfig",
    "FastConvNet",
    "FastConvNetConfig",
    "GPTConfig",
    "Lenet",
    "LenetConfig",
    "Loaded",
    "MLPConfig",
    "MobileNetV2",
    "MobileNetV2Config",
    "Model",
    "PretrainedConfig",
    "Resnet",
    "ResnetConfig",
    "VITConfig",
    "build",
    "load_body",
]
