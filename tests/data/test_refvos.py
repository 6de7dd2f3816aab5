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
"""Ref-DAVIS-17 and Ref-YouTube-VOS in their layouts: what is there is read, and what is broken is named."""

import json

import numpy as np
import pytest
from PIL import Image

from litelvlm.data.refvos import load_ref_davis, load_ref_youtube_vos
from litelvlm.data.samples import IGNORED, BrokenAnnotation

FRAMES = ["00000", "00001", "00002"]
# Columns 0 and 1 are object 1, then 2 and 3 are object 2; in the last frame object 2 has gone, and a column is void
INDICES = [np.array([1, 1, 2, 2, 0, 0], np.uint8), np.array([0, 1, 1, 2, 2, 0], np.uint8)]
INDICES.append(np.array([0, 0, 1, 1, 0, 255], np.uint8))
SAID = {
    "0": {"exp": "a black swan", "obj_id": "1"},
    "1": {"exp": " the one behind ", "obj_id": "2"},
}


def write_meta(folder, split, videos):
    path = folder / "meta_expressions" / split / "meta_expressions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": videos}))
    return path


def write_video(images, annotations, name):
    for folder in (images / name, annotations / name):
        folder.mkdir(parents=True)
    for frame, indices in zip(FRAMES, INDICES, strict=True):
        Image.new("RGB", (6, 4), "red").save(images / name / f"{frame}.jpg")
        image = Image.fromarray(np.tile(indices, (4, 1))).convert("P")
        image.putdata(np.tile(indices, 4).tolist())
        image.putpalette([value for i in range(256) for value in (i, 255 - i, 0)])
        image.save(annotations / name / f"{frame}.png")


@pytest.fixture
def davis(tmp_path):
    folder = tmp_path / "ref-davis"
    write_video(folder / "JPEGImages/480p", folder / "Annotations/480p", "blackswan")
    write_meta(folder, "valid", {"blackswan": {"expressions": SAID, "frames": FRAMES}})
    return tmp_path


def check(video):
    first, second = video.expressions
    assert [e.text for e in video.expressions] == ["a black swan", "the one behind"]
    assert [e.id for e in video.expressions] == [f"{video.id}-0", f"{video.id}-1"]
    assert [frame().size for frame in video.load_frames] == [(6, 4)] * 3 and video.load_frames[0]().mode == "RGB"
    masks = first.load_mask()
    assert masks.shape == (3, 4, 6) and masks.dtype == np.uint8
    assert masks[:, 0].tolist() == [[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, IGNORED]]
    assert (second.load_mask() == 1).sum(axis=(1, 2)).tolist() == [8, 8, 0]


def test_davis_layout_is_read(davis):
    (video,) = load_ref_davis(davis)
    assert video.id == "blackswan"
    check(video)


def test_davis_moved_into_the_layout_of_youtube_vos_is_read(tmp_path):
    folder = tmp_path / "ref-davis"
    write_video(folder / "valid/JPEGImages", folder / "valid/Annotations", "camel")
    write_meta(folder, "valid", {"camel": {"expressions": SAID, "frames": FRAMES}})
    (video,) = load_ref_davis(tmp_path)
    check(video)


def test_masks_of_the_unsupervised_track_come_first(davis):
    folder = davis / "ref-davis"
    (folder / "Annotations_unsupervised").mkdir()
    (folder / "Annotations/480p").rename(folder / "Annotations_unsupervised/480p")
    (folder / "Annotations/480p/blackswan").mkdir(parents=True)
    (video,) = load_ref_davis(davis)
    check(video)


def test_youtube_vos_has_masks_in_train_alone(tmp_path):
    folder = tmp_path / "ref-youtube-vos"
    write_video(folder / "train/JPEGImages", folder / "train/Annotations", "003234408d")
    write_meta(folder, "train", {"003234408d": {"expressions": SAID, "frames": FRAMES}})
    (video,) = load_ref_youtube_vos(tmp_path, "train")
    check(video)
    (folder / "train").rename(folder / "valid")
    (folder / "valid/Annotations").rename(folder / "elsewhere")
    asked = {number: {"exp": said["exp"]} for number, said in SAID.items()}
    of_both = {"expressions": asked, "frames": FRAMES}
    write_meta(folder, "valid", {"003234408d": of_both, "0a0b": of_both})
    assert [video.id for video in load_ref_youtube_vos(tmp_path)] == ["003234408d", "0a0b"]
    write_meta(folder, "test", {"0a0b": of_both})
    (video,) = load_ref_youtube_vos(tmp_path)
    assert len(video.load_frames) == 3 and video.load_frames[2]().size == (6, 4)
    with pytest.raises(BrokenAnnotation, match="video 003234408d, expression 0: there are no masks in"):
        video.expressions[0].load_mask()


def test_broken_frames_and_masks_are_named_with_file_and_id(davis):
    folder = davis / "ref-davis"
    (video,) = load_ref_davis(davis)
    (folder / "JPEGImages/480p/blackswan/00001.jpg").unlink()
    with pytest.raises(BrokenAnnotation, match=r"video blackswan, frame 00001: There is no file"):
        video.load_frames[1]()
    path = folder / "Annotations/480p/blackswan/00002.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BrokenAnnotation, match=r"blackswan, expression 1: '.*00002\.png' cannot be read"):
        video.expressions[1].load_mask()
    Image.new("RGB", (6, 4)).save(path)
    with pytest.raises(BrokenAnnotation, match=r"00002\.png' cannot be read \(mode RGB; allowed are indices"):
        video.expressions[0].load_mask()
    Image.new("P", (5, 4)).save(path)
    with pytest.raises(BrokenAnnotation, match=r"blackswan, expression 0: .*shape"):
        video.expressions[0].load_mask()


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {"expressions": SAID},
        {"expressions": {}, "frames": FRAMES},
        {"expressions": SAID, "frames": []},
        {"expressions": SAID, "frames": [1, 2]},
        {"expressions": SAID, "frames": "00000"},
        {"expressions": {"0": "a swan"}, "frames": FRAMES},
        {"expressions": {"0": {"obj_id": "1"}}, "frames": FRAMES},
    ],
)
def test_videos_of_another_layout_are_broken_beside_sound_ones(davis, values):
    sound = {"expressions": SAID, "frames": FRAMES}
    path = write_meta(davis / "ref-davis", "valid", {"blackswan": sound, "odd": values})
    video, odd = load_ref_davis(davis)
    check(video)
    for load in (odd.load_frames[0], odd.expressions[0].load_mask):
        with pytest.raises(BrokenAnnotation, match=r"video odd (has no|is not in the layout)") as caught:
            load()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"exp": " ", "obj_id": "1"}, "has the text ' '"),
        ({"exp": "a swan"}, "has no `obj_id`"),
        ({"exp": "a swan", "obj_id": "left"}, "expression 0: invalid literal"),
        ({"exp": "a swan", "obj_id": None}, "expression 0: int"),
    ],
)
def test_expression_without_text_or_object_is_a_broken_annotation(davis, said, message):
    write_meta(davis / "ref-davis", "valid", {"blackswan": {"expressions": {"0": said}, "frames": FRAMES}})
    (video,) = load_ref_davis(davis)
    with pytest.raises(BrokenAnnotation, match=message):
        video.expressions[0].load_mask()


def test_missing_files_and_other_layouts_are_named(davis):
    folder = davis / "ref-davis"
    with pytest.raises(ValueError, match=r"There is no file '.*train.meta_expressions\.json'"):
        load_ref_davis(davis, "train")
    path = write_meta(folder, "valid", [])
    with pytest.raises(ValueError, match=r"not in Ref-YouTube-VOS's layout; it needs `videos`"):
        load_ref_davis(davis)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_ref_davis(davis)
    write_meta(folder, "valid", {})
    (folder / "JPEGImages").rename(folder / "frames")
    with pytest.raises(ValueError, match=r"no folder of frames in .*; put them .*ref-davis/JPEGImages/480p"):
        load_ref_davis(davis)
