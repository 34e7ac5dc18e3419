"""Images brought to MNIST's format as LeCun et al. (1998) did with theirs: fitted into a box, centred in a field.

Axes: N images, H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INK = 26  # a level of at least a tenth of full scale belongs to the digit


def to_field(images_u8: Tensor, centring: str, mode: str, box: int = 20, field: int = 28) -> Tensor:
    """Grey images uint8 (N, 1, H, W), whose digits fill their frame, as uint8 (N, 1, field, field).

    The longer side of the frame becomes `box` pixels, the aspect is kept. Then the digit is moved by whole pixels so that its
    centre of 'mass' (levels as masses), or that of its bounding 'box' (levels of at least `INK`), comes to the field's
    centre, field / 2; a digit never leaves the field. An empty image is centred as it is.
    """
    height, width = images_u8.shape[2:]
    scale = box / max(height, width)
    size = (round(scale * height), round(scale * width))
    smooth = {"align_corners": False, "antialias": True} if mode != "nearest-exact" else {}
    scaled = F.interpolate(images_u8.float(), size, mode=mode, **smooth).round_().clamp_(0, 255)
    centre_N2 = mass_centre(scaled[:, 0]) if centring == "mass" else box_centre(scaled[:, 0])
    corner_N2 = torch.floor(field / 2 - centre_N2 + 0.5).long()
    out = torch.zeros(len(scaled), field, field, dtype=torch.uint8)
    for image, target, (top, left) in zip(scaled[:, 0].to(torch.uint8), out, corner_N2.tolist(), strict=True):
        places = torch.nonzero(image)
        if len(places):
            (first_row, first_column), (last_row, last_column) = places.min(0)[0].tolist(), places.max(0)[0].tolist()
            digit = image[first_row : last_row + 1, first_column : last_column + 1]
            top = min(max(top + first_row, 0), field - digit.shape[0])
            left = min(max(left + first_column, 0), field - digit.shape[1])
            target[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return out[:, None]


def mass_centre(levels_NHW: Tensor) -> Tensor:
    """(N, 2) row and column of the mean position, in pixels from the corner's centre."""
    mass_N = levels_NHW.sum((1, 2))
    rows_N = levels_NHW.sum(2) @ torch.arange(levels_NHW.shape[1], dtype=levels_NHW.dtype)
    columns_N = levels_NHW.sum(1) @ torch.arange(levels_NHW.shape[2], dtype=levels_NHW.dtype)
    centre_N2 = torch.stack([rows_N, columns_N], dim=1) / mass_N[:, None]
    return torch.where(mass_N[:, None] > 0, centre_N2, middle(levels_NHW))


def box_centre(levels_NHW: Tensor) -> Tensor:
    """(N, 2) row and column of the middle of the box around the ink, as a length from the corner's edge."""
    ends = []
    for ink_NL in ((levels_NHW >= INK).any(2), (levels_NHW >= INK).any(1)):
        length = ink_NL.shape[1]
        first_N = ink_NL.int().argmax(1)
        last_N = length - ink_NL.flip(1).int().argmax(1)
        ends.append(torch.where(ink_NL.any(1), (first_N + last_N) / 2, torch.tensor(length / 2)))
    return torch.stack(ends, dim=1)


def middle(levels_NHW: Tensor) -> Tensor:
    return torch.tensor([levels_NHW.shape[1] / 2, levels_NHW.shape[2] / 2])
