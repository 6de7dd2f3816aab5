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
"""Annotation by Ray's actors: the rows of the local engine, whatever happens to an actor or to the whole."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.annotation import Annotator
from litelvlm.annotation import annotate as local_engine
from litelvlm.annotation.parts import Parts
from litelvlm.annotation.sources import open_source
from litelvlm.commands.main import main

ray = pytest.importorskip("ray.data") and pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")
ray_engine = pytest.importorskip("litelvlm.annotation.ray_engine")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # where Ray keeps its token
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import tests
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.fixture
def images(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for number in range(5):
        Image.open(EXAMPLE_IMAGE).resize((96 + 8 * number, 96)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    monkeypatch.setattr(local_engine, "REQUESTS_PER_PART", 1)
    return tmp_path / "images"


class Ending(Annotator):
    """Fails as it comes to one image, and ends its process as it comes to another, each the first time."""

    def __init__(self, folder):
        super().__init__(*load_tiny(), answer="It is [SEG].")
        self.folder = folder

    def annotate(self, prepared):
        for name in {name for name, _ in prepared.asked} & {"1.png", "3.png"} - {
            f.stem for f in self.folder.iterdir()
        }:
            (self.folder / f"{name}.seen").touch()
            if name == "1.png":
                raise RuntimeError("the disk is full")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().annotate(prepared)


def rows_of(path):
    return parquet.read_table(path).to_pylist()


def test_rows_are_those_of_the_local_engine_though_it_was_stopped_and_an_actor_lost(cluster, images, tmp_path):
    source = open_source(str(images), ["the red circle", "the green star"])
    annotator = Annotator(*load_tiny(), answer="It is [SEG].")
    local = local_engine.annotate(annotator, source, Parts(tmp_path / "local.parquet", {}), 2)
    (tmp_path / "seen").mkdir()
    load = partial(Ending, tmp_path / "seen")
    output = tmp_path / "ray.parquet"
    with pytest.raises(Exception, match="the disk is full"):
        ray_engine.annotate_on_ray(load, source, Parts(output, {}), 2)
    made = len(list(Path(f"{output}.parts").glob("*.jsonl")))
    report = ray_engine.annotate_on_ray(load, source, Parts(output, {}), 2)
    assert len(list((tmp_path / "seen").iterdir())) == 2 and report["images"] == 5 - made
    assert rows_of(output) == rows_of(tmp_path / "local.parquet") and len(rows_of(output)) == 8
    for name in ("rows", "masks", "errors"):
        assert report[name] == local[name]
    errors = [(tmp_path / f"{name}.parquet.errors.jsonl").read_text().splitlines() for name in ("ray", "local")]
    assert errors[0] == errors[1] and len(errors[0]) == 2


def test_settings_of_the_other_engine_are_refused(tmp_path, capsys):
    for arguments, message in (
        (["--engine", "spark"], "--engine is 'spark'; allowed are local and ray"),
        (["--workers", "2"], "are of --engine ray"),
        (["--engine", "ray", "--workers", "0"], "--workers is 0"),
    ):
        assert main(["annotate", str(tmp_path), str(tmp_path / "x.parquet"), "--text", "x", *arguments]) == 2
        assert message in capsys.readouterr().err
