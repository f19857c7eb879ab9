"""Where data come from: each part opens into three splits and their facts.

digits        Digits, bundled with scikit-learn
text          StdlibText (the running Python's own source) and PlainText (your file or folder), as bytes
arrays        Arrays, a .npz file of yours; npz reads it without trusting it
image_folder  ImageFolder, pictures in class folders; folders lists them without opening any
idx           IDX, the files of the MNIST family
fold          Fold, another source with the samples of train and validation divided anew
label_noise   LabelNoise, another source with some training labels shuffled
subset        Subset, another source with part of its training samples
without       Without, another source less the samples of a list
holding_out   the splits that are missing, taken from the training samples
"""

from torchstone.data.sources.arrays import Arrays
from torchstone.data.sources.digits import Digits
from torchstone.data.sources.fold import Fold
from torchstone.data.sources.idx import IDX
from torchstone.data.sources.image_folder import ImageFolder
from torchstone.data.sources.label_noise import LabelNoise
from torchstone.data.sources.subset import Subset
from torchstone.data.sources.text import PlainText, StdlibText
from torchstone.data.sources.without import Without

__all__ = ["IDX", "Arrays", "Digits", "Fold", "ImageFolder", "LabelNoise", "PlainText", "StdlibText", "Subset", "Without"]
