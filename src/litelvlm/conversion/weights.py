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
"""Reads tensors from a checkpoint folder one at a time, and writes them to another one shard at a time."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from ..modeling.damage_litelvlm import is_finite

_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
# What was read of a mapped file counts as memory of the process until the file is mapped anew; in bytes
_REMAP_AFTER = 2**29


class CheckpointReader:
    """
    The tensors of a checkpoint folder: `.safetensors` or `.bin`, sharded or not, mapped and not loaded. Pickled files
    are read with `weights_only`, so they cannot run code.

    Args:
        folder (`Path`): holds the weights, beside their index if there are several files.

    Raises:
        ValueError: no weights, a shard that is missing or cannot be read, or an index that names other tensors.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._open: tuple[str, Any] | None = None
        self._bytes_read = 0
        self.file_of = self._index()
        self.meta: dict[str, torch.Tensor] = {}
        for name in dict.fromkeys(self.file_of.values()):
            expected = {key for key, file in self.file_of.items() if file == name}
            found = self._describe(name)
            if not expected <= set(found):
                missing = sorted(expected - set(found))
                raise ValueError(f"{name} lacks {len(missing)} tensors that its index names, such as {missing[0]}.")
            self.meta |= found
            self.file_of |= dict.fromkeys(found, name)
        self._open = None

    def _index(self) -> dict[str, str]:
        for name in (_SAFE, _PICKLED):
            index = self.folder / f"{name}.index.json"
            if index.is_file():
                file_of = dict(json.loads(index.read_text())["weight_map"])
                missing = sorted(file for file in set(file_of.values()) if not (self.folder / file).is_file())
                if missing:
                    raise ValueError(f"{index.name} names files that are not there: {', '.join(missing)}.")
                return file_of
            if (self.folder / name).is_file():
                return dict.fromkeys(self._describe(name), name)
        raise ValueError(f"{str(self.folder)!r} holds no weights; expected are {_SAFE} or {_PICKLED}, or their index.")

    def _mapped(self, name: str) -> Any:
        if self._open is None or self._open[0] != name or self._bytes_read > _REMAP_AFTER:
            self._open = None  # unmap before mapping
            path = self.folder / name
            try:
                if name.endswith(".safetensors"):
                    opened = safe_open(path, framework="pt")
                else:
                    opened = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except pickle.UnpicklingError as error:
                raise ValueError(
                    f"{name} holds more than tensors, and running what a pickle asks for is not safe; only plain "
                    "weights are converted."
                ) from error
            except Exception as error:
                raise ValueError(f"{name} cannot be read: {str(error).strip().splitlines()[0]}") from error
            self._open, self._bytes_read = (name, opened), 0
        return self._open[1]

    def _describe(self, name: str) -> dict[str, torch.Tensor]:
        """Shapes and dtypes, as tensors on the meta device."""
        opened = self._mapped(name)
        if isinstance(opened, dict):
            for key, value in opened.items():
                if not isinstance(value, torch.Tensor):
                    raise ValueError(
                        f"{name} holds {key!r} of type {type(value).__name__}; allowed are tensors by name alone. "
                        "Where the weights are nested in a training state, save them as a file of their own."
                    )
            return {key: torch.empty_like(value, device="meta") for key, value in opened.items()}
        return {key: opened.get_tensor(key).to("meta") for key in opened.keys()}  # noqa: SIM118  (not a dict)

    def read(self, key: str) -> torch.Tensor:
        """A copy of one tensor."""
        opened = self._mapped(self.file_of[key])
        tensor = opened[key] if isinstance(opened, dict) else opened.get_tensor(key)
        self._bytes_read += tensor.nbytes
        return tensor.clone()

    def close(self) -> None:
        self._open = None


@dataclass(frozen=True)
class Source:
    """Where a tensor of the model comes from; `change` is applied after reading."""

    reader: CheckpointReader
    key: str
    change: Callable[[torch.Tensor], torch.Tensor] | None = None

    def read(self) -> torch.Tensor:
        tensor = self.reader.read(self.key)
        return tensor if self.change is None else self.change(tensor).contiguous()


def write_shards(
    sources: dict[str, Source], like: dict[str, torch.Tensor], folder: Path, max_shard_size: str
) -> list[dict[str, Any]]:
    """
    Writes safetensors, holding one shard in memory at a time.

    Args:
        sources (`dict[str, Source]`): of each tensor, in the order of writing.
        like (`dict[str, torch.Tensor]`): shape and dtype of each, on any device.
        folder (`Path`): exists and is empty.
        max_shard_size (`str`): such as `"5GB"`.

    Returns:
        One entry per tensor: name, source, shape, dtype, file and SHA-256 of its values.

    Raises:
        OSError: the disk became full.
        ValueError: too little space on the disk, or a tensor of another shape than expected or with NaN or infinity.
    """
    meta = {name: torch.empty_like(like[name], device="meta") for name in sources}
    split = split_torch_state_dict_into_shards(meta, max_shard_size=max_shard_size)
    needed, free = sum(tensor.nbytes for tensor in meta.values()), shutil.disk_usage(folder).free
    if needed + 2**20 > free:
        raise ValueError(f"{needed / 1e9:.1f} GB are to be written but {free / 1e9:.1f} GB are free on the disk.")
    report = []
    with tqdm(total=needed, unit="B", unit_scale=True, desc="convert") as progress:
        for file, names in split.filename_to_tensors.items():
            shard = {}
            for name in names:
                tensor = sources[name].read()
                if tensor.shape != meta[name].shape:
                    raise ValueError(
                        f"{sources[name].key} has shape {tuple(tensor.shape)}, but {name} of the model that the "
                        f"configuration describes has {tuple(meta[name].shape)}."
                    )
                shard[name] = tensor.to(meta[name].dtype)
                # A buffer may well hold infinity, as a mask of attention does
                if isinstance(like[name], torch.nn.Parameter) and not is_finite(shard[name]):
                    raise ValueError(
                        f"{sources[name].key} holds NaN or infinity in {meta[name].dtype}; download the checkpoint "
                        "anew, or name a dtype that holds its values."
                    )
                values = shard[name].flatten().view(torch.uint8).numpy()
                entry = {"name": name, "source": sources[name].key, "shape": list(tensor.shape)}
                entry |= {"dtype": str(shard[name].dtype).removeprefix("torch."), "file": file}
                report.append(entry | {"sha256": hashlib.sha256(values).hexdigest()})
                progress.update(meta[name].nbytes)
            try:
                save_file(shard, folder / file, metadata={"format": "pt"})
            except SafetensorError as error:
                raise OSError(f"'{folder / file}' cannot be written: {error}") from error
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{_SAFE}.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return report


def largest_difference(one: Iterable[torch.Tensor], other: Iterable[torch.Tensor]) -> float:
    """Largest absolute difference over pairs of tensors."""
    pairs = zip(one, other, strict=True)
    return max((float((a.float() - b.float()).abs().max()) for a, b in pairs), default=0.0)


__all__ = ["CheckpointReader", "Source", "largest_difference", "write_shards"]
