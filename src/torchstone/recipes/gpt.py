"""Language models on text."""

from torchstone.data import StdlibText
from torchstone.experiment import Experiment
from torchstone.models import GPTConfig
from torchstone.optim import ClipByNorm, Cosine, Muon, NoDecay
from torchstone.tasks import Language
from torchstone.train.method import Method
from torchstone.train.settings import Run


def gpt_bytes() -> Experiment:
    """A byte-level GPT of 4 layers, 256 wide, with rotary positions; Muon for the matrices, AdamW for the rest.

    About ten minutes on two quiet CPU cores. Its text is the running Python's own standard library; `data=plain_text data.path=FILE`
    (or a folder) takes yours.
    """
    return Experiment(
        data=StdlibText(context=256),
        task=Language(),
        model=GPTConfig(depth=4, dim=256, num_heads=4, positions="rotary", activation="squared_relu", qk_norm=True),
        method=Method(
            gradient_transforms=(ClipByNorm(max_norm=1.0),),
            groups=NoDecay(),
            optimizer=Muon(lr=0.02, weight_decay=0.0),
            schedules=(Cosine(path="optimizer.lr", warmup=0.05),),
        ),
        run=Run(steps=1400, batch_size=8, evaluate_every=350, evaluation_batch_size=32),
    )
