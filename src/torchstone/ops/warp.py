"""Affine warps: every image of a batch sampled once along its own map.

Maps go from the place of an output pixel to the place it is read from, in pixels, x (right) before y (down), with pixel (0, 0)
centered at the origin. They compose by `compose`, so that any number of turns, crops and mirrors costs one sampling pass.
Shapes: N images of C channels and H x W pixels.
"""

import math
from collections.abc import Iterator
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float, Float64, UInt8
from torch import Tensor

Interpolation = Literal["bilinear", "nearest"]
Fill = Literal["reflect", "zero", "edge"]

_PADDING = {"reflect": "reflection", "zero": "zeros", "edge": "border"}
_CACHED_PIXELS = 1 << 16
"""Pixels sampled at a time: their grid and their images stay in the second-level cache."""
_ONE_MIRROR = 3.0
"""In torch's units an image is 2 wide, from -1 to 1: as far out the first mirror image goes."""


def warp(
    images: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"],
    maps: Float[Tensor, "N 2 3"],
    *,
    interpolation: Interpolation = "bilinear",
    fill: Fill = "reflect",
) -> Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"]:
    """Images read along their maps; bytes stay bytes (rounded to the nearest). A row depends on its own image and map alone.

    fill: what lies outside the image, its mirror image (the edge is not repeated), zeros, or its nearest pixel.
    """
    out = torch.empty_like(images)
    for some, values in warped(images, maps, interpolation=interpolation, fill=fill):
        # By way of int16: torch makes bytes of floats one at a time, four times slower.
        out[some] = values if images.is_floating_point() else values.to(torch.int16)
    return out


def warped(
    images: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"],
    maps: Float[Tensor, "N 2 3"],
    *,
    interpolation: Interpolation = "bilinear",
    fill: Fill = "reflect",
) -> Iterator[tuple[slice, Float[Tensor, "K C H W"]]]:
    """The same a few images at a time, for who goes on with them while they are in the cache; bytes come as whole floats 0 ... 255."""
    height, width = images.shape[-2:]
    columns, rows = _grid_parts(maps, height, width)
    on_cpu = images.device.type == "cpu"
    step = max(1, _CACHED_PIXELS // max(1, height * width)) if on_cpu else max(1, len(images))
    reach = _reach(columns, rows).tolist() if on_cpu and fill == "reflect" else ()
    real = images.dtype if images.is_floating_point() else torch.float32
    for start in range(0, len(images), step):
        some = slice(start, start + step)
        grid = torch.view_as_real(columns[some, None, :] + rows[some, :, None]).to(real)
        padding, furthest = _PADDING[fill], max(reach[some], default=0.0)
        if furthest > 1:  # 2 edge - place, here, where torch would look for mirrors of any order at every pixel
            grid.lerp_(grid.clamp(-1, 1), 2.0)
        if reach and furthest <= _ONE_MIRROR:  # all places lie inside now, and in the others' images too: no bit depends on a neighbor
            padding = "border"
        values = F.grid_sample(images[some].to(real), grid, interpolation, padding, align_corners=True)
        yield some, values if images.is_floating_point() else values.round_()


def _reach(columns: Complex64[Tensor, "N W"], rows: Complex64[Tensor, "N H"]) -> Float[Tensor, " N"]:
    """The largest coordinate, up or down, left or right, that each image is read at: at one of its corners, since maps are affine."""
    corners = columns[:, None, [0, -1]] + rows[:, [0, -1], None]
    return torch.view_as_real(corners).abs().flatten(1).amax(dim=1)


def _grid_parts(maps: Float[Tensor, "N 2 3"], height: int, width: int) -> tuple[Complex64[Tensor, "N W"], Complex64[Tensor, "N H"]]:
    """What column and row of an output pixel each add to its place x + iy, in torch's units: -1 and 1 are the outermost pixel centers.

    Complex, because adding rows of two numbers each takes ten times as long.
    """
    maps = maps.to(torch.float64)
    unit = maps.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    across, down, origin = (torch.complex(*part.unbind(dim=1)) for part in (maps * unit[:, None]).unbind(dim=2))
    x, y = (torch.arange(side, dtype=maps.dtype, device=maps.device) for side in (width, height))
    columns = across[:, None] * x
    rows = down[:, None] * y + (origin - (1 + 1j))[:, None]
    return columns.to(torch.complex64), rows.to(torch.complex64)


# --- maps --------------------------------------------------------------------------------------------------------------


def compose(*maps: Float64[Tensor, "N 3 3"]) -> Float64[Tensor, "N 2 3"]:
    """One map that reads as the given ones would in turn: the image warped by the first, the result by the second, and so on."""
    return reduce(torch.matmul, maps)[:, :2]


def linear(
    xx: Float64[Tensor, " N"], xy: Float64[Tensor, " N"], yx: Float64[Tensor, " N"], yy: Float64[Tensor, " N"]
) -> Float64[Tensor, "N 3 3"]:
    """x' = xx x + xy y, y' = yx x + yy y."""
    zero, one = torch.zeros_like(xx), torch.ones_like(xx)
    return torch.stack((xx, xy, zero, yx, yy, zero, zero, zero, one), dim=1).view(-1, 3, 3)


def shift(x: Float64[Tensor, " N"], y: Float64[Tensor, " N"]) -> Float64[Tensor, "N 3 3"]:
    """x' = x + shift, in pixels: reading further right moves the picture left."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack((one, zero, x, zero, one, y, zero, zero, one), dim=1).view(-1, 3, 3)


def rotation(degrees: Float64[Tensor, " N"]) -> Float64[Tensor, "N 3 3"]:
    """Turns the picture counterclockwise, as seen, about the origin."""
    angle = degrees * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    return linear(cosine, -sine, sine, cosine)
