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
"""Video files as frames, by PyAV, within limits."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .extras import required
from .modeling.images_litelvlm import load_rgb

MAX_FRAMES = 256
"""As SAM 2 sees them, at 1024 pixels in float32, these are 3 GB."""


def read_video(path: str | os.PathLike, *, every: int = 1, max_frames: int = MAX_FRAMES) -> list[Image.Image]:
    """
    The frames of a video file, upright.

    Args:
        path: a file in any format that FFmpeg decodes, which PyAV brings along. Files that lead to others, such as
            playlists, are not followed.
        every (`int`): only each `every`-th frame, the first one included.
        max_frames (`int`): more of those are refused.

    Raises:
        ValueError: there is no such file, it is no video or damaged, it holds no frames or too many, or frames of more
            pixels than `PIL.Image.MAX_IMAGE_PIXELS`; or PyAV is not installed.
    """
    if every < 1 or max_frames < 1:
        raise ValueError(f"`every` is {every} and `max_frames` {max_frames}; allowed are numbers of at least 1.")
    if not Path(path).is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    av: Any = required("av", "video")
    frames: list[Image.Image] = []
    try:
        # A file that is open already, and no protocol: nothing else can be opened in its place
        with open(path, "rb") as file, av.open(file, options={"protocol_whitelist": "none"}) as container:
            if not container.streams.video:
                raise ValueError("it holds no video")
            stream = container.streams.video[0]
            _check_size(stream.width, stream.height)
            for number, frame in enumerate(container.decode(stream)):
                if number % every:
                    continue
                if len(frames) == max_frames:
                    raise ValueError(
                        f"it has more than {max_frames} frames; take only some, by `every` of `read_video`, or raise "
                        "`max_frames`"
                    )
                _check_size(frame.width, frame.height)
                # Rotations are multiples of 90 degrees, to the left
                upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                frames.append(load_rgb(np.ascontiguousarray(upright)))
    except (OSError, ValueError) as error:  # FFmpeg's errors are of both kinds
        raise ValueError(
            f"{str(path)!r} cannot be read as a video: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not frames:
        raise ValueError(f"{str(path)!r} cannot be read as a video: it holds no frames.")
    return frames


def _check_size(width: int, height: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ValueError(f"{width} x {height} pixels are more than `PIL.Image.MAX_IMAGE_PIXELS`, {limit}")


__all__ = ["MAX_FRAMES", "read_video"]
