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
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .fetching_litelvlm import fetch


def load_rgb(image: Any) -> Image.Image:
    """
    One image as an RGB `PIL.Image` of 8 bits: upright by its EXIF orientation, 16-bit values scaled (not cut),
    transparency laid over white.

    Args:
        image: what [`open_image`] takes, in any mode, or an array or tensor of shape `(H, W)`, `(H, W, C)` or
            `(C, H, W)` with C of 1, 3 or 4. Values of 16 bits span 0 to 65535, other integers 0 to 255, floats 0 to 1.

    Raises:
        ValueError: as [`open_image`], or the array has another shape or the values another range.
    """
    if isinstance(image, torch.Tensor):
        image = (image.detach().float() if image.is_floating_point() else image).cpu().numpy()
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    return _to_rgb(open_image(image))


def open_image(source: Any) -> Image.Image:
    """
    An image as it is stored but upright: Transformers' `load_image` converts to RGB at once, which cuts 16-bit values
    and drops transparency.

    Args:
        source: a `PIL.Image`, a path, a URL, which is read within the limits of [`fetch`], the bytes of a file, or a
            dictionary of `bytes` or `path`, as `datasets` has images that are not decoded.

    Raises:
        ValueError: the file is missing or no image, the URL gives none in time, or there are more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, bytes):
        source = BytesIO(source)
    if not isinstance(source, (str, os.PathLike, Image.Image, BytesIO)):
        raise ValueError(
            f"An image is of type {type(source).__name__}; allowed are PIL images, numpy arrays, torch tensors, "
            "paths, URLs, and bytes."
        )
    name = repr(_shortened(str(source))) if isinstance(source, (str, os.PathLike)) else "An image"
    is_url = name.startswith(("'http://", "'https://", "'data:image/"))
    try:
        image = source if isinstance(source, Image.Image) else Image.open(_read_url(str(source)) if is_url else source)
        _check_size(image)
        image.load()
        return _upright(image)
    except FileNotFoundError:
        raise ValueError(f"There is no file {name}.") from None
    except Exception as error:  # Pillow's readers raise whatever the damage leads to
        verb = "fetched" if is_url else "read"
        # The system's own message repeats the whole name, which may be an image in base64
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # whose message may name an object in memory
            reason = "it is of no format that Pillow knows"
        raise ValueError(f"{name} cannot be {verb} as an image: {reason.splitlines()[0][:300]}") from error


def _shortened(name: str) -> str:
    """A name as a message holds it: of a long path the end says which file it is, and base64 may be megabytes."""
    return name if len(name) <= 160 else f"{name[:40]}...{name[-110:]}"


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # what cannot be read turns nothing: so does every viewer, and Pillow with a JPEG
        return image
    return ImageOps.exif_transpose(image) if turned else image


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
    if array.dtype.kind not in "bfiu":
        raise ValueError(f"An image array has dtype {array.dtype}; allowed are integers, floats and bool.")
    if array.dtype.kind in "bf":
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


__all__ = ["load_rgb", "open_image"]
