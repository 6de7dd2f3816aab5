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
"""RefCOCO's layout: what is written is read, no pickle runs code, and what is broken is named."""

import json
import pickle
import resource

import numpy as np
import pytest
from PIL import Image

from litelvlm.data.refcoco import load_refcoco, write_refcoco
from litelvlm.data.refshapes import RefShapes
from litelvlm.data.registry import load_split, refshapes_entries, splits_of
from litelvlm.data.samples import BrokenAnnotation


@pytest.fixture
def written(tmp_path):
    scenes = {split: RefShapes(split, 2, size=64, seed=5) for split in ("val", "testA")}
    write_refcoco(tmp_path, scenes)
    return tmp_path, scenes


def edit(path, change):
    """Changes a JSON or pickled file in place."""
    refs = path.suffix == ".p"
    data = pickle.loads(path.read_bytes()) if refs else json.loads(path.read_text())
    change(data)
    path.write_bytes(pickle.dumps(data, 2)) if refs else path.write_text(json.dumps(data))


def test_refshapes_in_refcocos_layout_is_read_as_it_was_drawn(written):
    root, scenes = written
    for split in scenes:
        direct, read = refshapes_entries(scenes[split]), load_refcoco(root, "refcoco", "unc", split)
        assert len(read) == 2
        for one, other in zip(direct, read, strict=True):
            assert np.array_equal(one.load_image(), other.load_image())
            assert [e.text for e in one.expressions] == [e.text for e in other.expressions]
            for mine, theirs in zip(one.expressions, other.expressions, strict=True):
                assert np.array_equal(mine.load_mask(), theirs.load_mask()) and mine.load_mask().any()


def test_several_objects_and_none_are_written_as_in_grefcoco(tmp_path):
    scenes = RefShapes("testC", 30, size=64)
    write_refcoco(tmp_path, {"testC": scenes})
    read = load_refcoco(tmp_path, "refcoco", "unc", "testC")
    kinds = {e.kind for i in range(30) for e in scenes[i].expressions}
    assert {"plural", "none"} <= kinds
    for one, other in zip(refshapes_entries(scenes), read, strict=True):
        for mine, theirs in zip(one.expressions, other.expressions, strict=True):
            expected, found = mine.load_mask(), theirs.load_mask()
            assert (expected is None) == (found is None) and (found is None or np.array_equal(expected, found))


def test_partitions_are_files_of_their_own(written):
    root, _ = written
    (root / "refcocog").mkdir()
    for name in ("refs(umd).p", "refs(google).p"):
        (root / "refcocog" / name).write_bytes((root / "refcoco" / "refs(unc).p").read_bytes())
    (root / "refcocog" / "instances.json").write_bytes((root / "refcoco" / "instances.json").read_bytes())
    assert len(load_split("refcocog", "val", root)) == len(load_split("refcocog:google", "val", root, num_images=2))
    assert splits_of("refcocog") == ("val", "test") and splits_of("refcocog:google") == ("val",)
    with pytest.raises(ValueError, match="'refcocog' has no partition 'unc'; allowed are umd, google"):
        splits_of("refcocog:unc")
    with pytest.raises(ValueError, match=r"refs\(umd\)\.p' has no split 'test'; it has testA, val"):
        load_split("refcocog", "test", root)


def test_pickle_that_would_run_code_is_refused(written):
    root, _ = written

    class Evil:
        def __reduce__(self):
            return (open, (str(root / "ran"), "w"))

    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(ValueError, match="only plain containers are allowed"):
        load_refcoco(root, "refcoco", "unc", "val")
    assert not (root / "ran").exists()


def test_pickle_of_python_2_is_read(written):
    root, _ = written
    # As Python 2 wrote it: protocol 0, byte strings, one of them not in ASCII
    text = b"(lp0\n(dp1\nS'sentences'\np2\n(lp3\n(dp4\nS'sent_id'\np5\nI7\nsS'sent'\np6\nS'caf\\xe9'\np7\nsas"
    text += b"S'ref_id'\np8\nI1\nsS'ann_id'\np9\nI1\nsS'image_id'\np10\nI1\nsS'split'\np11\nS'val'\np12\nsa."
    (root / "refcoco" / "refs(unc).p").write_bytes(text)
    (entry,) = load_refcoco(root, "refcoco", "unc", "val")
    assert entry.expressions[0].text == "café" and entry.expressions[0].id == "1-7"


@pytest.mark.parametrize("name", ["refs(unc).p", "instances.json"])
def test_missing_and_torn_files_are_named(written, name):
    root, _ = written
    path = root / "refcoco" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="cannot be read") as caught:
        load_refcoco(root, "refcoco", "unc", "val")
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match="There is no file") as caught:
        load_refcoco(root, "refcoco", "unc", "val")
    assert str(path) in str(caught.value)


def test_broken_annotation_is_named_with_file_and_id(written):
    root, _ = written
    path = root / "refcoco" / "instances.json"
    first, second = load_refcoco(root, "refcoco", "unc", "val")
    number = pickle.loads((root / "refcoco" / "refs(unc).p").read_bytes())[0]["ann_id"]

    def cut(data):
        next(a for a in data["annotations"] if a["id"] == number)["segmentation"] = [[1, 2]]
        data["images"] = [image for image in data["images"] if str(image["id"]) != second.id]

    edit(path, cut)
    first, second = load_refcoco(root, "refcoco", "unc", "val")
    with pytest.raises(
        BrokenAnnotation, match=f"annotation {number} of ref 1: no polygon of three points or more"
    ) as caught:
        first.expressions[0].load_mask()
    assert str(path) in str(caught.value)
    with pytest.raises(BrokenAnnotation, match=f"there is no image {second.id}"):
        second.load_image()
    next(root.rglob(f"*{int(first.id):012d}.png")).unlink()
    with pytest.raises(BrokenAnnotation, match=f"image {first.id}: There is no file"):
        first.load_image()


def test_grefcoco_has_several_targets_and_none(tmp_path):
    (tmp_path / "grefcoco").mkdir()
    (tmp_path / "train2014").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "train2014" / "a.jpg")
    left, right = [[0, 0, 2, 0, 2, 4, 0, 4]], [[4, 0, 6, 0, 6, 4, 4, 4]]
    annotations = [{"id": 1, "segmentation": left}, {"id": 2, "segmentation": right}]
    images = [{"id": 9, "file_name": "a.jpg", "height": 4, "width": 6}]
    said = [{"ann_id": [1, 2], "sent": "both"}, {"ann_id": [-1], "sent": "none", "no_target": True}]
    refs = [
        {"ref_id": i, "image_id": 9, "split": "val", "ann_id": one["ann_id"], "no_target": one.get("no_target", False)}
        | {"sentences": [{"sent_id": i, "sent": one["sent"]}]}
        for i, one in enumerate(said)
    ]
    (tmp_path / "grefcoco" / "grefs(unc).json").write_text(json.dumps(refs))
    (tmp_path / "grefcoco" / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (entry,) = load_split("grefcoco", "val", tmp_path)
    both, nothing = entry.expressions
    assert both.load_mask().sum(axis=0).tolist() == [4, 4, 0, 0, 4, 4]
    assert nothing.load_mask() is None


@pytest.mark.parametrize(
    "change",
    [
        lambda refs: refs.append(None),
        lambda refs: refs.append({}),
        lambda refs: refs[0].update(sentences=5),
        lambda refs: refs[0].update(image_id=[]),
        lambda refs: refs.append(refs[0] | {"image_id": ""}),
        lambda refs: refs[0].pop("ann_id"),
        lambda refs: refs[0]["sentences"][0].pop("sent"),
    ],
)
def test_refs_of_another_shape_are_broken_beside_sound_ones(written, change):
    root, _ = written
    sound = load_refcoco(root, "refcoco", "unc", "val")
    edit(root / "refcoco" / "refs(unc).p", change)
    *read, unread = load_refcoco(root, "refcoco", "unc", "val")
    assert {entry.id for entry in read} == {entry.id for entry in sound}
    with pytest.raises(BrokenAnnotation, match=r"refs\(unc\)\.p': entry \d+ of 'val' (has no|is not in)"):
        unread.load_image()


def test_a_pickle_of_a_few_bytes_takes_no_gigabytes(written):
    """The number under which it remembers a list is 2**26, and what it remembers is itself many times."""
    root, _ = written
    laughs = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 2
    path = root / "refcoco" / "refs(unc).p"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x03.")
    with pytest.raises(ValueError, match="has no split 'val'"):
        load_refcoco(root, "refcoco", "unc", "val")
    path.write_bytes(pickle.dumps([{"ref_id": 1, "image_id": 1, "ann_id": 1, "split": "val"}], 2))
    edit(path, lambda refs: refs[0].update(sentences=[{"sent_id": 1, "sent": laughs}]))
    (entry,) = load_refcoco(root, "refcoco", "unc", "val")
    with pytest.raises(BrokenAnnotation, match=r"ref 1 has the text \[\["):
        entry.expressions[0].load_mask()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_sentence_that_is_no_text_is_a_broken_annotation(written):
    root, _ = written
    edit(root / "refcoco" / "refs(unc).p", lambda refs: refs[0]["sentences"][0].update(sent=None))
    with pytest.raises(BrokenAnnotation, match=r"refs\(unc\)\.p': ref 1 has the text None"):
        load_refcoco(root, "refcoco", "unc", "val")[0].expressions[0].load_mask()


@pytest.mark.parametrize("instances", [[], 5, {"annotations": 3, "images": []}])
def test_instances_of_another_shape_are_named(written, instances):
    root, _ = written
    (root / "refcoco" / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(ValueError, match=r"instances\.json' are not in REFER's layout"):
        load_refcoco(root, "refcoco", "unc", "val")
