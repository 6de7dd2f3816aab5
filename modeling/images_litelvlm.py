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
"""Images as people have them, to RGB as a vision tower wants them."""

import os
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from PIL import Image, ImageOps

from .fetching_litelvlm import fetch


def load_rgb(image: Any) -> Image.Image:
    """
    One image as an RGB `PIL.Image` of 8 bits: upright by its EXIF orientation, 16-bit values scaled (not cut),
    transparency laid over white.

    Args:
        image: a `PIL.Image` of any mode, a path, a URL, or an array or tensor of shape `(H, W)`, `(H, W, C)` or
            `(C, H, W)` with C of 1, 3 or 4. Values of 16 bits span 0 to 65535, other integers 0 to 255, floats 0 to 1.
            A URL is read within the limits of [`fetch`].

    Raises:
        ValueError: the file is missing or no image, the URL gives none in time, the array has another shape or the
            values another range, or there are more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if isinstance(image, (str, os.PathLike)):
        image = _open(image)
    elif isinstance(image, torch.Tensor):
        image = _from_array(image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu().numpy())
    elif isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        raise ValueError(
            f"`images` holds a {type(image).__name__}; allowed are PIL images, numpy arrays, torch tensors, paths and "
            "URLs."
        )
    _check_size(image)
    return _to_rgb(ImageOps.exif_transpose(image))


def _open(source: str | os.PathLike) -> Image.Image:
    """
    A file or URL, as it is stored: Transformers' `load_image` converts to RGB at once, which cuts 16-bit values and
    drops transparency.
    """
    name = str(source)
    is_url = name.startswith(("http://", "https://", "data:image/"))
    try:
        image = Image.open(_read_url(name) if is_url else source)
        _check_size(image)
        image.load()
    except FileNotFoundError:
        raise ValueError(f"There is no file {name!r}.") from None
    except (OSError, SyntaxError, ValueError, HTTPException, Image.DecompressionBombError) as error:
        verb = "fetched" if is_url else "read"
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{name[:80]!r} cannot be {verb} as an image: {reason[0]}") from error
    return image


def _read_url(url: str) -> BytesIO:
    if not url.startswith("data:"):
        return BytesIO(fetch(url))
    with urlopen(url) as response:  # decodes it, and sends nothing
        return BytesIO(response.read())


def _check_size(image: Image.Image) -> None:
    """Pillow itself only warns of images beyond its limit, up to twice the limit."""
    limit, (width, height) = Image.MAX_IMAGE_PIXELS, image.size
    if limit is not None and width * height > limit:
        raise ValueError(
            f"{width} x {height} pixels are more than `PIL.Image.MAX_IMAGE_PIXELS`, {limit}; make the image smaller, "
            "or raise that limit if you trust it."
        )


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ValueError(
            f"An image array has shape {array.shape}; allowed are (H, W), (H, W, C) and (C, H, W) with C of 1, 3 or 4."
        )
    if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        low, high, full = float(array.min()), float(array.max()), 1.0
    else:
        full = 65535.0 if (array.dtype.kind, array.dtype.itemsize) == ("u", 2) else 255.0
        low, high = int(array.min()), int(array.max())
    if not (low >= 0 and high <= full):
        raise ValueError(
            f"An image array of dtype {array.dtype} has values from {low} to {high}; allowed are 0 to {full:g}."
        )
    return Image.fromarray((array.astype(np.float64) * (255 / full)).round().astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # 16 or 32 bits, or floats, which Pillow's own conversion would cut at 255
        image = _from_array(np.asarray(image))
    if image.mode in ("La", "RGBa"):  # colours multiplied by their transparency
        image = image.convert(image.mode.upper())
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


__all__ = ["load_rgb"]
