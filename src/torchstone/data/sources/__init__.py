"""Where data come from: each part opens into three splits and their facts.

digits  Digits, bundled with scikit-learn
text    StdlibText (the running Python's own source) and PlainText (your file or folder), as bytes
arrays  Arrays, a .npz file of yours; npz reads it without trusting it
"""

from torchstone.data.sources.arrays import Arrays
from torchstone.data.sources.digits import Digits
from torchstone.data.sources.text import PlainText, StdlibText

__all__ = ["Arrays", "Digits", "PlainText", "StdlibText"]
