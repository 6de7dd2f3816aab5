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
"""Video files by PyAV: frames as they were written, upright, within limits."""

import sys

import numpy as np
import pytest
from PIL import Image

from litelvlm.reading import read_video

av = pytest.importorskip("av")


def write_video(path, frames, rotation=0):
    """Lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 255, (7, 24, 40, 3), dtype=np.uint8)


@pytest.fixture
def video(tmp_path, frames):
    write_video(tmp_path / "a.mkv", frames)
    return tmp_path / "a.mkv"


def test_frames_are_those_that_were_written(video, frames):
    read = read_video(video)
    assert all(frame.mode == "RGB" for frame in read)
    np.testing.assert_array_equal(np.stack(read), frames)
    np.testing.assert_array_equal(np.stack(read_video(str(video), every=3)), frames[::3])


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_videos_of_a_turned_camera_are_upright(tmp_path, frames, rotation):
    write_video(tmp_path / "turned.mkv", frames, rotation)
    read = np.stack(read_video(tmp_path / "turned.mkv"))
    np.testing.assert_array_equal(read, np.rot90(frames, rotation // 90, axes=(1, 2)))


def test_limits_hold(video, monkeypatch):
    assert len(read_video(video, max_frames=7)) == 7
    with pytest.raises(ValueError, match="more than 6 frames; take only some, by `every`"):
        read_video(video, max_frames=6)
    assert len(read_video(video, every=2, max_frames=4)) == 4
    with pytest.raises(ValueError, match="`every` is 0"):
        read_video(video, every=0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    with pytest.raises(ValueError, match=r"40 x 24 pixels are more than `PIL\.Image\.MAX_IMAGE_PIXELS`, 959"):
        read_video(video)


def test_playlists_lead_to_no_other_file(video):
    playlist = video.with_suffix(".m3u8")
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{video.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match=r"a\.m3u8' cannot be read as a video"):
        read_video(playlist)


@pytest.mark.parametrize("content", [b"", b"no video" * 50, "cut", "image"])
def test_what_is_no_video_is_named(video, content):
    path = video.with_name("other.mkv")
    if content == "image":
        Image.new("RGB", (8, 8)).save(path, "PNG")
        assert len(read_video(path)) == 1  # a video of one frame, as FFmpeg takes it
        return
    path.write_bytes(video.read_bytes()[:300] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"other\.mkv' cannot be read as a video: \w"):
        read_video(path)
    with pytest.raises(ValueError, match=r"There is no file '.*missing\.mkv'"):
        read_video(video.with_name("missing.mkv"))


def test_missing_library_is_named_with_its_extra(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"'av' is not installed; install it with pip install \"litelvlm\[video\]\""):
        read_video(video)
