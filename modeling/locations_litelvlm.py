# Copyright 2026 The LiteLVLM authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Objects in PaliGemma's answers: a box as four <loc> tokens, a mask as 16 <seg> tokens, and a name."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

NUM_CODES = 128
"""<seg> tokens of PaliGemma."""
_NUM_LOCATIONS, _CODES_OF_MASK = 1024, 16
_OBJECT = re.compile(r"((?:<loc\d{4}>\s*)*)((?:<seg\d{3}>\s*)*)([^;<]*)")


def read_locations(answer: str, size: tuple[int, int]) -> list[dict[str, Any]]:
    """
    The objects that an answer of PaliGemma names by tokens.

    Args:
        answer (`str`): as text, such as `"<loc0256><loc0000><loc0512><loc1023> cat ; ..."`.
        size (`tuple[int, int]`): height and width of the image, in pixels.

    Returns:
        `list[dict]`: of each object `label` (the text behind its tokens, or `""`), `box` (`[left, top, right, bottom]`
        in pixels, the last two exclusive; or `None`), `codes` (16 integers from 0 to 127, or `None` without a mask)
        and `reason`: `None`, or what is wrong with tokens that are no box or no mask. Empty where none are named.
    """
    objects = []
    for located, coded, name in _OBJECT.findall(answer):
        locations, codes = ([int(digits) for digits in re.findall(r"\d+", tokens)] for tokens in (located, coded))
        if not locations and not codes:
            continue
        no_box = _why_not("<loc>", locations, 4, _NUM_LOCATIONS)
        no_codes = _why_not("<seg>", codes, _CODES_OF_MASK, NUM_CODES) if codes else None
        box = None
        if no_box is None:
            height, width = size
            # (y_min, x_min, y_max, x_max), in 1024ths of the image
            top, left, bottom, right = (
                round(location * side / _NUM_LOCATIONS)
                for location, side in zip(locations, (height, width, height, width), strict=True)
            )
            box = [left, top, right, bottom]
            if right <= left or bottom <= top:
                box, no_box = None, "the box covers no pixel"
        reasons = [reason for reason in (no_box, no_codes) if reason is not None]
        objects.append(
            {
                "label": name.strip(),
                "box": box,
                "codes": codes if codes and no_codes is None else None,
                "reason": "; ".join(reasons) or None,
            }
        )
    return objects


@torch.no_grad()
def add_masks(
    objects: list[dict[str, Any]], size: tuple[int, int], mask_decoder: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """
    Adds to each of [`read_locations`] its `mask`, `(height, width)`, bool, and `score`, the mean probability of the
    mask's pixels (0 of an empty mask); both `None` without a box or codes.

    Args:
        objects (`list[dict]`): what an answer names.
        size (`tuple[int, int]`): height and width of the image.
        mask_decoder ([`LiteLVLMMaskDecoder`]): from codes to masks of values from -1 to 1.

    Raises:
        ValueError: a decoder that is not loaded.
    """
    if not callable(mask_decoder):
        raise ValueError(
            f"`mask_decoder` is {mask_decoder!r}; allowed is a decoder that is loaded, such as by "
            "`LiteLVLMMaskDecoder.from_pretrained(...)`."
        )
    for entry in objects:
        entry |= {"mask": None, "score": None}
        if entry["box"] is None or entry["codes"] is None:
            continue
        left, top, right, bottom = entry["box"]
        device = getattr(mask_decoder, "device", None)
        values = mask_decoder(torch.tensor([entry["codes"]], device=device)).float()
        values = nn.functional.interpolate(
            values[:, None], (bottom - top, right - left), mode="bilinear", antialias=True
        )
        probability = torch.zeros(*size, device=values.device)
        probability[top:bottom, left:right] = (values[0, 0] * 0.5 + 0.5).clamp(0, 1)
        mask = probability > 0.5
        entry |= {"mask": mask, "score": probability[mask].mean().item() if mask.any() else 0.0}


def _why_not(token: str, values: list[int], number: int, limit: int) -> str | None:
    if len(values) != number:
        what = "a box" if token == "<loc>" else "a mask"
        return f"{len(values)} {token} in a row, where {what} has {number}"
    return f"{token} of {max(values)}, where the last is {limit - 1}" if max(values) >= limit else None


__all__ = ["NUM_CODES", "add_masks", "read_locations"]
