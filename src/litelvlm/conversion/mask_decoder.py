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
"""The mask decoder that big_vision published for PaliGemma, a `.npz` file, as a folder with safetensors."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..modeling.damage_litelvlm import is_finite
from ..modeling.mask_decoder_litelvlm import LiteLVLMMaskDecoder, LiteLVLMMaskDecoderConfig
from .destination import check_free, making

# Of the file's layers, in their order; those between have no weights
_NAMES = {
    "decoder.0": "conv_in",
    **{
        f"decoder.{2 + block}.net.{layer}": f"residuals.{block}.conv_{i + 1}"
        for block in range(2)
        for i, layer in enumerate((0, 2, 4))
    },
    **{f"decoder.{4 + 2 * i}": f"upsamplings.{i}" for i in range(4)},
    "decoder.12": "conv_out",
}
_KEYS = {"_vq_vae._embedding": "embedding.weight"} | {
    f"{key}.{part}": f"{name}.{part}" for key, name in _NAMES.items() for part in ("weight", "bias")
}


def convert_mask_decoder(source: str | Path, dest: str | Path) -> dict[str, Any]:
    """
    Converts `vae-oid.npz`, whose encoder is left out.

    Args:
        source (`str` or `Path`): the file.
        dest (`str` or `Path`): the folder to make, for [`LiteLVLMMaskDecoder`]; must not exist.

    Returns:
        `dict`: `kind`, `num_parameters`, and in `left_out` the names of arrays that are not the decoder's.

    Raises:
        ValueError: `dest` exists, the file cannot be read or holds more than arrays of numbers, or arrays of the
            decoder are missing, of other shapes or not finite.
    """
    check_free(Path(dest))
    arrays, left_out = _read(source)
    if missing := sorted(_KEYS.keys() - arrays.keys()):
        raise ValueError(
            f"{str(source)!r} lacks {len(missing)} arrays of PaliGemma's mask decoder, such as {missing[0]!r}; give "
            "big_vision's vae-oid.npz."
        )
    num_codes, code_size = _sizes(source, arrays["_vq_vae._embedding"], 2)
    hidden_size, *_ = _sizes(source, arrays["decoder.0.weight"], 4)
    config = LiteLVLMMaskDecoderConfig(num_codes=num_codes, code_size=code_size, hidden_size=hidden_size)
    try:
        decoder = LiteLVLMMaskDecoder(config)
    except ValueError as error:
        raise ValueError(f"{str(source)!r} is no decoder of PaliGemma's masks: {error}") from error
    state = {name: torch.from_numpy(arrays[key]) for key, name in _KEYS.items()}
    expected = decoder.state_dict()
    for key, name in _KEYS.items():
        if state[name].shape != expected[name].shape:
            raise ValueError(
                f"{key!r} of {str(source)!r} has shape {tuple(state[name].shape)}; allowed is {name}'s "
                f"{tuple(expected[name].shape)}. Download the file anew."
            )
        if not is_finite(state[name]):
            raise ValueError(f"{key!r} of {str(source)!r} holds NaN or infinity. Download the file anew.")
    decoder.load_state_dict(state)
    with making(Path(dest)) as incomplete:
        decoder.save_pretrained(incomplete)
    return {"kind": "mask-decoder", "num_parameters": decoder.num_parameters(), "left_out": left_out}


def _read(source: str | Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The decoder's arrays in float32, and the names of all others, which are not read."""
    try:
        # What is no archive NumPy would take for a pickle, and advise to allow it
        if Path(source).is_file() and not zipfile.is_zipfile(source):
            raise ValueError("it is no zip archive, or a damaged one")
        # Without pickles, which can run code
        with np.load(source, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in _KEYS}
            left_out = sorted(set(file.files) - _KEYS.keys())
        if others := [key for key, array in arrays.items() if array.dtype.kind != "f"]:
            raise ValueError(f"{others[0]!r} holds {arrays[others[0]].dtype}, and no floating-point numbers")
        return {key: array.astype(np.float32) for key, array in arrays.items()}, left_out
    except Exception as error:  # archives answer damage by errors of many kinds
        reason = str(error).strip() or type(error).__name__
        raise ValueError(f"{str(source)!r} cannot be read as an .npz file of numbers: {reason}") from error


def _sizes(source: str | Path, array: np.ndarray, number: int) -> tuple[int, ...]:
    if array.ndim != number:
        raise ValueError(f"{str(source)!r} has an array of shape {array.shape}, where {number} dimensions are wanted.")
    return array.shape


__all__ = ["convert_mask_decoder"]
