"""Color changes as one matrix an image: brightness, contrast, saturation, hue and gray are all linear in the pixel.

Luminance is ITU-R BT.601's; hue turns the chroma plane of the NTSC's YIQ (FCC, 1953), which keeps luminance and grays as they are.
Shapes: N images of C channels (3: red, green, blue; 1: gray) and H x W pixels.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from torchstone.ops.cached import a_few_at_a_time

LUMINANCE = (0.299, 0.587, 0.114)
_YIQ = (LUMINANCE, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def recolor(
    images: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"],
    matrix: Float[Tensor, "N C C"],
    pull: Float[Tensor, " N"],
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    pieces: Iterable[tuple[slice, Float[Tensor, "K C H W"]]] | None = None,
) -> Float[Tensor, "N C H W"]:
    """Every pixel becomes matrix @ pixel + pull * (the image's mean luminance), clamped to [0, 1]; bytes count as v / 255.

    mean, std: one number a channel, or one for all; with them the channels are normalized in the same pass. pieces: what has become of the
    images meanwhile, a few at a time, bytes as floats 0 ... 255 (`ops.warp.warped`); none: the images as they are.
    """
    unit = 1 / 255 if images.dtype == torch.uint8 else 1.0
    real = images.dtype if images.is_floating_point() else torch.float32
    channels = images.shape[1]
    means, stds = (torch.tensor(numbers, dtype=torch.float64).expand(channels) for numbers in (mean, std))
    bounds = list(zip((-means / stds).tolist(), ((1 - means) / stds).tolist(), strict=True))
    weights = _luminance(channels) * (unit / max(1, images.shape[2:].numel()))
    weights, base, scale = (x.to(images.device, real) for x in (weights, -means / stds, 1 / stds))
    matrix, pull = matrix.to(real) * (scale * unit)[:, None], pull.to(real)[:, None] * scale
    out = torch.empty(images.shape, dtype=real, device=images.device)
    for some, rows in a_few_at_a_time(images) if pieces is None else pieces:
        values = rows.to(real)
        pixels, result = values.flatten(2), out[some].flatten(2)
        luminance = pixels.sum(dim=2) @ weights
        offset = torch.addcmul(base, pull[some], luminance[:, None])
        torch.baddbmm(offset[:, :, None], matrix[some], pixels, out=result)
        if len(set(bounds)) == 1:
            result.clamp_(*bounds[0])
        else:  # a bound a channel: one tensor of bounds takes four times as long
            for channel, (low, high) in zip(result.unbind(dim=1), bounds, strict=True):
                channel.clamp_(low, high)
    return out


def mix(
    gain: Float[Tensor, " N"],
    saturation: Float[Tensor, " N"],
    hue: Float[Tensor, " N"],
    gray: Float[Tensor, " N"],
) -> Float[Tensor, "N 3 3"]:
    """The matrix that multiplies by `gain`, then moves away from luminance by `saturation` (1: stays, 0: gray), then turns the hue by
    `hue` of a full circle, then leaves luminance alone where `gray` is 1."""
    luminance, color = _parts(gain.device)
    saturation, gray, gain = (x.double()[:, None, None] for x in (saturation, gray, gain))
    # Each of the later three keeps luminance and works on the rest alone, so only the rest is turned and scaled.
    return (gain * (luminance + (1 - gray) * saturation * (hue_turn(hue) @ color))).to(torch.float32)


def hue_turn(hue: Float[Tensor, " N"]) -> Float[Tensor, "N 3 3"]:
    """The rotation of the chroma plane by `hue` of a full circle, on (red, green, blue); float64."""
    still, cosine, sine = _turns(hue.device)
    angle = (hue.double() * (2 * math.pi))[:, None, None]
    return still + angle.cos() * cosine + angle.sin() * sine


@lru_cache(maxsize=4)
def _parts(device: torch.device) -> tuple[Tensor, Tensor]:
    """What keeps of a pixel its luminance, and what keeps the rest; [3, 3]."""
    luminance = torch.tensor([LUMINANCE] * 3, dtype=torch.float64)
    return luminance.to(device), (torch.eye(3, dtype=torch.float64) - luminance).to(device)


@lru_cache(maxsize=4)
def _turns(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What of a hue's turn stays, goes with its cosine, and goes with its sine; [3, 3]."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    inner = torch.zeros(3, 3, 3, dtype=torch.float64)
    inner[0, 0, 0] = inner[1, 1, 1] = inner[1, 2, 2] = inner[2, 2, 1] = 1
    inner[2, 1, 2] = -1
    still, cosine, sine = (torch.linalg.inv(to_yiq) @ inner @ to_yiq).to(device)
    return still, cosine, sine


def _luminance(channels: int) -> Tensor:
    return torch.tensor(LUMINANCE if channels == 3 else (1 / channels,) * channels, dtype=torch.float64)
