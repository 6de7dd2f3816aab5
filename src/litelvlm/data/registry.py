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
"""Datasets by name: RefShapes, the RefCOCO family, ReasonSeg, a file or folder of one's own, or videos."""

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from . import reasonseg, refcoco, refvos, tables
from .refshapes import SPLITS as REFSHAPES_SPLITS
from .refshapes import Clip, MovingRefShapes, RefShapes
from .samples import Referring, ReferringImage, ReferringVideo

NAMES = ("refshapes", *refcoco.PARTITIONS, "reasonseg")
VIDEO_NAMES = ("refshapes", *refvos.NAMES)


def splits_of(name: str) -> tuple[str, ...]:
    """
    The splits of a dataset that are evaluated unless others are named.

    Raises:
        ValueError: there is no such dataset.
    """
    base, _, partition = name.partition(":")
    if base == "refshapes":
        return ("val", "testA", "testB")
    if base == "reasonseg":
        return reasonseg.SPLITS
    if base in refcoco.PARTITIONS:
        partitions = refcoco.PARTITIONS[base]
        if partition and partition not in partitions:
            raise ValueError(f"{base!r} has no partition {partition!r}; allowed are {', '.join(partitions)}.")
        return partitions[partition] if partition else next(iter(partitions.values()))
    if Path(name).exists():
        found = tables.find_splits(Path(name))
        if found:
            return tuple(found)
        raise ValueError(f"There is no .parquet and no .json file in {name!r}.")
    raise ValueError(f"There is no dataset {name!r}; allowed are {', '.join(NAMES)}, or a file or folder.")


def load_split(
    name: str, split: str, root: str | Path = ".", *, num_images: int | None = None, size: int = 256, seed: int = 0
) -> list[ReferringImage]:
    """
    A split of a dataset.

    Args:
        name (`str`): one of [`NAMES`], `"refcoco:google"` for a partition, or the path of a table of one's own.
        split (`str`): such as `"val"`.
        root: the folder that holds the RefCOCO family or ReasonSeg.
        num_images (`int`, *optional*): only so many images, the first ones.
        size (`int`): side of RefShapes' images in pixels.
        seed (`int`): of RefShapes' scenes.

    Raises:
        ValueError: what cannot be found or read, by name.
    """
    base, _, partition = name.partition(":")
    if base == "refshapes":
        if split not in REFSHAPES_SPLITS:
            raise ValueError(f"RefShapes has no split {split!r}; it has {', '.join(REFSHAPES_SPLITS)}.")
        return refshapes_entries(RefShapes(split, num_images or 500, size, seed))
    splits_of(name)
    if base == "reasonseg":
        entries = reasonseg.load_reasonseg(root, split)
    elif base in refcoco.PARTITIONS:
        entries = refcoco.load_refcoco(root, base, partition or next(iter(refcoco.PARTITIONS[base])), split)
    else:
        entries = tables.load_tables(Path(name), split)
    return entries[:num_images]


def load_videos(
    name: str,
    split: str = "valid",
    root: str | Path = ".",
    *,
    num_videos: int | None = None,
    size: int = 256,
    seed: int = 0,
) -> list[ReferringVideo]:
    """
    A split of a dataset of videos.

    Args:
        name (`str`): one of [`VIDEO_NAMES`].
        split (`str`): `"valid"` or `"train"`; of RefShapes `"valid"`.
        root: the folder that holds `ref-davis` or `ref-youtube-vos`.
        num_videos (`int`, *optional*): only so many, the first ones; of RefShapes 100 unless said.
        size (`int`): side of RefShapes' frames in pixels.
        seed (`int`): of RefShapes' clips.

    Raises:
        ValueError: what cannot be found or read, by name.
    """
    splits = dict.fromkeys(refvos.NAMES, refvos.SPLITS) | {"refshapes": ("valid",)}
    if name not in splits:
        raise ValueError(f"There is no dataset of videos {name!r}; allowed are {', '.join(VIDEO_NAMES)}.")
    if split not in splits[name]:
        raise ValueError(f"{name!r} has no split {split!r}; it has {', '.join(splits[name])}.")
    if name == "refshapes":
        return clip_entries(MovingRefShapes(num_videos or 100, size=size, seed=seed))
    load = refvos.load_ref_davis if name == "ref-davis" else refvos.load_ref_youtube_vos
    return load(root, split)[:num_videos]


def clip_entries(clips: MovingRefShapes) -> list[ReferringVideo]:
    """Clips as videos with expressions; they are drawn again when they are needed, and only the last is kept."""
    return [
        ReferringVideo(
            str(i),
            tuple(partial(_clip_frame, clips, i, frame) for frame in range(clips.num_frames)),
            tuple(
                Referring(f"{i}-{number}", expression.text, partial(_clip_masks, clips, i, number))
                for number, expression in enumerate(_clip(clips, i).expressions)
            ),
        )
        for i in range(len(clips))
    ]


@lru_cache(maxsize=1)
def _clip(clips: MovingRefShapes, index: int) -> Clip:
    return clips[index]


def _clip_frame(clips: MovingRefShapes, index: int, frame: int) -> Image.Image:
    return Image.fromarray(_clip(clips, index).frames[frame])


def _clip_masks(clips: MovingRefShapes, index: int, number: int) -> np.ndarray:
    masks: np.ndarray = _clip(clips, index).masks[number]
    return masks.astype(np.uint8)


def refshapes_entries(scenes: RefShapes) -> list[ReferringImage]:
    """Scenes as images with expressions; they are drawn again when they are needed, and not kept."""
    return [
        ReferringImage(
            str(i),
            partial(_scene_image, scenes, i),
            tuple(
                Referring(f"{i}-{number}", expression.text, partial(_scene_mask, scenes, i, number))
                for number, expression in enumerate(scenes[i].expressions)
            ),
        )
        for i in range(len(scenes))
    ]


def _scene_image(scenes: RefShapes, index: int) -> Image.Image:
    return Image.fromarray(scenes[index].image)


def _scene_mask(scenes: RefShapes, index: int, number: int) -> np.ndarray | None:
    mask: np.ndarray = scenes[index].masks[number]
    return mask.astype(np.uint8) if mask.any() else None


__all__ = ["NAMES", "VIDEO_NAMES", "clip_entries", "load_split", "load_videos", "refshapes_entries", "splits_of"]
