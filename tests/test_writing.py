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
"""What stands on the disk is replaced whole or not at all, and no input is written over."""

import errno
import json
import os
import stat

import pytest
from PIL import Image

from litelvlm import EXAMPLE_IMAGE
from litelvlm.commands.main import main
from litelvlm.data.refcoco import write_refcoco
from litelvlm.evaluation.sample_files import open_samples
from litelvlm.writing import replacing, write_text


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_full_disk_leaves_what_stood_there(tmp_path, small_disk):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "mask.png")
    (tmp_path / "results.json").write_text("{}")
    before = contents(tmp_path)
    with small_disk(1000):
        with pytest.raises(OSError) as text_error:
            write_text(tmp_path / "results.json", "x" * 2000)
        with pytest.raises(OSError) as image_error, replacing(tmp_path / "mask.png") as temporary:
            Image.effect_noise((64, 64), 50).save(temporary)
    assert text_error.value.errno == image_error.value.errno == errno.EFBIG
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", ["gone/o.png", "file/o.png"])
def test_what_cannot_be_written_is_told_by_the_name_that_was_asked_for(tmp_path, place):
    (tmp_path / "file").touch()
    for write in (lambda path: write_text(path, "x"), save_image):
        with pytest.raises(OSError) as caught:
            write(tmp_path / place)
        assert str(caught.value).endswith(f"'{tmp_path / place}'")


def save_image(path):
    with replacing(path) as temporary:
        Image.new("RGB", (8, 8)).save(temporary)


def test_interruption_leaves_what_stood_there(tmp_path):
    (tmp_path / "table.md").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "table.md") as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"table.md": b"old"}


def test_link_and_permissions_stay(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "real.txt").chmod(0o640)
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real.txt").stat().st_mode) == 0o640


def test_device_is_written_and_not_replaced():
    write_text(os.devnull, "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.fixture
def image(tmp_path):
    (tmp_path / "image.png").write_bytes(EXAMPLE_IMAGE.read_bytes())
    (tmp_path / "link.png").symlink_to("image.png")
    os.link(tmp_path / "image.png", tmp_path / "hard.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "image.png"], "IMAGE and --output are the same file"),
        (["--mask", "./image.png"], "IMAGE and --mask are the same file"),
        (["--mask", "link.png"], "IMAGE and --mask are the same file"),
        (["--output", "hard.png"], "IMAGE and --output are the same file"),
        (["--output", "new.png", "--mask", "new.png"], "--output and --mask are the same file"),
        (["--output", "new.png", "--mask", "../{folder}/new.png"], "--output and --mask are the same file"),
    ],
)
def test_output_goes_over_no_input_and_no_other_output(image, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(image.parent)
    before = contents(image.parent)
    arguments = [argument.format(folder=image.parent.name) for argument in arguments]
    assert main(["segment", "image.png", "the red circle", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert contents(image.parent) == before


def test_segment_on_a_full_disk_leaves_the_earlier_mask(tmp_path, capsys, small_disk):
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"earlier")
    with small_disk(20):
        assert main(["segment", "example", "the red circle", "--mask", str(mask), "--answer", "It is [SEG]."]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(tmp_path) == {"mask.png": b"earlier"}


@pytest.mark.parametrize(("command", "name"), [("evaluate", "results.json"), ("diagnose", "diagnosis.json")])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_report_goes_over_no_annotations(tmp_path, capsys, command, name, whole_folder):
    (tmp_path / name).write_text(json.dumps({"images": [], "annotations": []}))
    before = contents(tmp_path)
    data = tmp_path if whole_folder else tmp_path / name
    assert main([command, "--data", str(data), "--output", str(tmp_path)]) == 2
    assert f"--data and the {name} of --output are the same file" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", ['{"image": 1}', "mine\n", '{"other": 1}\n{"cut'])
def test_lines_that_are_no_evaluations_are_kept(tmp_path, content):
    path = tmp_path / "samples-0.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no evaluation's"):
        open_samples(path, {"seed": 1})
    assert path.read_text() == content
    path.write_text('{"settings": {"se')
    with open_samples(path, {"seed": 1}):
        assert json.loads(path.read_text()) == {"settings": {"seed": 1}}


@pytest.mark.parametrize("there", ["refcoco", "images/mscoco/images/train2014"])
def test_refcoco_is_not_written_over(tmp_path, there):
    folder = tmp_path / there
    folder.mkdir(parents=True)
    (folder / "instances.json").write_text("mine")
    with pytest.raises(ValueError, match="holds a dataset already"):
        write_refcoco(tmp_path, {})
    assert contents(folder) == {"instances.json": b"mine"}
