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
"""
Ref-DAVIS-17 and Ref-YouTube-VOS: videos as folders of frames, masks as images of object ids, expressions as JSON.

    root/ref-davis/meta_expressions/valid/meta_expressions.json
    root/ref-davis/JPEGImages/480p/NAME/00000.jpg      or valid/JPEGImages/NAME/00000.jpg
    root/ref-davis/Annotations/480p/NAME/00000.png     or valid/Annotations/NAME/00000.png

    root/ref-youtube-vos/meta_expressions/valid/meta_expressions.json
    root/ref-youtube-vos/valid/JPEGImages/NAME/00000.jpg     and in train/Annotations the masks, which valid has not

The expressions of DAVIS are the JSON file that tools for Ref-YouTube-VOS make of its text files. Sources: Khoreva et
al., "Video Object Segmentation with Language Referring Expressions" (ACCV 2018), and Seo et al., "URVOS: Unified
Referring Video Object Segmentation Network with a Large-Scale Benchmark" (ECCV 2020).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .samples import IGNORED, BrokenAnnotation, ReferringVideo, broken, broken_video, read_image, read_json, refer

NAMES = ("ref-davis", "ref-youtube-vos")
SPLITS = ("valid", "train")

# Where frames and masks may lie, seen from the dataset's folder. Ref-DAVIS is measured on the masks of DAVIS'
# unsupervised track where they are there.
_FOLDERS = {
    "ref-davis": (
        ("{split}/JPEGImages", "{split}/Annotations"),
        ("JPEGImages/480p", "Annotations_unsupervised/480p"),
        ("JPEGImages/480p", "Annotations/480p"),
        ("DAVIS/JPEGImages/480p", "DAVIS/Annotations_unsupervised/480p"),
        ("DAVIS/JPEGImages/480p", "DAVIS/Annotations/480p"),
    ),
    "ref-youtube-vos": (("{split}/JPEGImages", "{split}/Annotations"),),
}


def load_ref_davis(root: str | Path, split: str = "valid") -> list[ReferringVideo]:
    """
    A split of Ref-DAVIS-17, one entry per video in the order of the expressions' file.

    Args:
        root: the folder that holds `ref-davis`.
        split (`str`): `"valid"` or `"train"`.

    Raises:
        ValueError: a file or folder is missing, or the expressions cannot be read.
    """
    return _load(Path(root), "ref-davis", split)


def load_ref_youtube_vos(root: str | Path, split: str = "valid") -> list[ReferringVideo]:
    """
    A split of Ref-YouTube-VOS, likewise. The masks of `"valid"` are not published: asking for them raises
    [`BrokenAnnotation`]. Its file lists the videos of the test set too, which are left out where
    `meta_expressions/test` says which they are.

    Args:
        root: the folder that holds `ref-youtube-vos`.
        split (`str`): `"valid"` or `"train"`.

    Raises:
        ValueError: a file or folder is missing, or the expressions cannot be read.
    """
    tests = _meta_path(Path(root), "ref-youtube-vos", "test")
    left_out = _read_videos(tests).keys() if split == "valid" and tests.is_file() else ()
    return [video for video in _load(Path(root), "ref-youtube-vos", split) if video.id not in left_out]


def _load(root: Path, name: str, split: str) -> list[ReferringVideo]:
    path = _meta_path(root, name, split)
    videos = _read_videos(path)
    pairs = [[root / name / one.format(split=split) for one in pair] for pair in _FOLDERS[name]]
    found = [pair for pair in pairs if pair[0].is_dir()]
    if not found:
        tried = ", ".join(str(pair[0].relative_to(root)) for pair in pairs)
        raise ValueError(f"There is no folder of frames in '{root}'; put them into one of {tried}.")
    # Frames without masks can be asked about too; that there are none is named with the masks
    images, annotations = next((pair for pair in found if pair[1].is_dir()), found[0])
    return [_video(path, images, annotations, video, values) for video, values in videos.items()]


def _meta_path(root: Path, name: str, split: str) -> Path:
    return root / name / "meta_expressions" / split / "meta_expressions.json"


def _read_videos(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"There is no file '{path}'; the root is the folder that holds 'ref-davis' or its like.")
    data = read_json(path)
    videos = data.get("videos") if isinstance(data, dict) else None
    if not isinstance(videos, dict):
        raise ValueError(f"'{path}' is not in Ref-YouTube-VOS's layout; it needs `videos`, by name.")
    return videos


def _video(path: Path, images: Path, annotations: Path, name: str, values: Any) -> ReferringVideo:
    try:
        frames, expressions = values["frames"], dict(values["expressions"])
        is_list = isinstance(frames, list) and frames and expressions
        if not is_list or not all(isinstance(frame, str) and "\0" not in frame for frame in frames):
            raise ValueError("no frames or no expressions")
        asked = tuple(
            refer(
                f"'{path}': video {name}, expression {number}",
                f"{name}-{number}",
                said["exp"],
                _masks_of(f"'{path}': video {name}, expression {number}", annotations / name, frames, said),
            )
            for number, said in expressions.items()
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else f"is not in the layout ({error})"
        return broken_video(name, f"'{path}': video {name} {reason}.")
    loaders = tuple(
        partial(read_image, images / name / f"{frame}.jpg", f"video {name}, frame {frame}") for frame in frames
    )
    return ReferringVideo(name, loaders, asked)


def _masks_of(name: str, folder: Path, frames: list[str], said: dict[str, Any]) -> partial:
    if not folder.is_dir():
        return partial(broken, f"{name}: there are no masks in '{folder}'.")
    if "obj_id" not in said:
        return partial(broken, f"{name} has no `obj_id`, and so no masks.")
    return partial(_load_masks, name, [folder / f"{frame}.png" for frame in frames], said["obj_id"])


def _load_masks(name: str, paths: list[Path], obj_id: Any) -> np.ndarray:
    try:
        wanted = int(obj_id)
        masks = [_object_mask(path, wanted) for path in paths]
        return np.stack(masks)
    except (OSError, ValueError, TypeError) as error:
        raise BrokenAnnotation(f"{name}: {str(error).strip()}.") from error


def _object_mask(path: Path, obj_id: int) -> np.ndarray:
    """The pixels of a palette image with the index of an object; those of 255 are not counted."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ValueError(f"mode {image.mode}; allowed are indices of objects, P or L")
            indices = np.asarray(image)
    except Exception as error:  # each of Pillow's readers raises its own
        raise ValueError(f"'{path}' cannot be read ({error})") from error
    mask = (indices == obj_id).astype(np.uint8)
    mask[indices == IGNORED] = IGNORED
    return mask


__all__ = ["NAMES", "SPLITS", "load_ref_davis", "load_ref_youtube_vos"]
