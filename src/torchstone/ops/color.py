"""Color changes as one matrix an image: brightness, contrast, saturation, hue and gray are all linear in the pixel.

Luminance is ITU-R BT.601's; hue turns the chroma plane of the NTSC's YIQ (FCC, 1953), which keeps luminance and grays as they are.
Shapes: N images of C channels (3: red, green, blue; 1: gray) and H x W pixels.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)
_YIQ = (LUMINANCE, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_CACHED_NUMBERS = 1 << 18
"""Numbers recolored at a time: bytes turned into floats are read again before they leave the second-level cache."""


def recolor(
    images: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"], matrix: Float[Tensor, "N C C"], pull: Float[Tensor, " N"]
) -> Float[Tensor, "N C H W"]:
    """Every pixel becomes matrix @ pixel + pull * (the image's mean luminance), clamped to [0, 1]; bytes count as v / 255."""
    unit = 1 / 255 if images.dtype == torch.uint8 else 1.0
    real = images.dtype if images.is_floating_point() else torch.float32
    pixels = images.flatten(2)
    out = torch.empty(pixels.shape, dtype=real, device=images.device)
    weights = _luminance(images.shape[1]).to(images.device, real)
    step = max(1, _CACHED_NUMBERS // max(1, pixels[0:1].numel())) if images.device.type == "cpu" else max(1, len(images))
    for start in range(0, len(images), step):
        some = slice(start, start + step)
        values = pixels[some].to(real)
        mean = (values.mean(dim=2) * weights).sum(dim=1)
        offset = (pull[some].to(real) * mean * unit)[:, None, None]
        torch.baddbmm(offset, matrix[some].to(real) * unit, values, out=out[some]).clamp_(0, 1)
    return out.view(images.shape)


def mix(
    gain: Float[Tensor, " N"],
    saturation: Float[Tensor, " N"],
    hue: Float[Tensor, " N"],
    gray: Float[Tensor, " N"],
) -> Float[Tensor, "N 3 3"]:
    """The matrix that multiplies by `gain`, then moves away from luminance by `saturation` (1: stays, 0: gray), then turns the hue by
    `hue` of a full circle, then leaves luminance alone where `gray` is 1."""
    luminance = torch.tensor([LUMINANCE] * 3, dtype=torch.float64, device=gain.device)
    color = torch.eye(3, dtype=torch.float64, device=gain.device) - luminance
    saturation, gray, gain = (x.double()[:, None, None] for x in (saturation, gray, gain))
    # Each of the later three keeps luminance and works on the rest alone, so only the rest is turned and scaled.
    return (gain * (luminance + (1 - gray) * saturation * (hue_turn(hue) @ color))).to(torch.float32)


def hue_turn(hue: Float[Tensor, " N"]) -> Float[Tensor, "N 3 3"]:
    """The rotation of the chroma plane by `hue` of a full circle, on (red, green, blue); float64."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64, device=hue.device)
    angle = hue.double() * (2 * math.pi)
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack((one, zero, zero, zero, cosine, -sine, zero, sine, cosine), dim=1).view(-1, 3, 3)
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


def _luminance(channels: int) -> Tensor:
    return torch.tensor(LUMINANCE if channels == 3 else (1 / channels,) * channels, dtype=torch.float64)
