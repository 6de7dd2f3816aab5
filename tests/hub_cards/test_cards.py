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
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from litelvlm import EXAMPLE_IMAGE, load_embedded
from litelvlm.cli import main
from litelvlm.hub_cards import TARGETS, render_card, write_card
from litelvlm.hub_cards.cards import FOLDER


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The embedded model as anyone saves it, code included."""
    folder = tmp_path_factory.mktemp("hub") / "litelvlm-tiny"
    model, processor = load_embedded()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_card_on_disk_is_the_rendered_one(target):
    assert (FOLDER / f"{target}.md").read_text(encoding="utf-8") == render_card(target)


@pytest.mark.parametrize("target", TARGETS)
def test_metadata_is_valid(target):
    data = ModelCard(render_card(target)).data
    assert data.library_name == "transformers" and data.license and "custom_code" in data.tags
    assert data.pipeline_tag == ("image-text-to-text" if "llava" in target else "image-segmentation")
    if target != "litelvlm-tiny":
        assert len(data.base_model) == 2 and data.base_model_relation == "merge"
    for result in data.eval_results or []:
        assert 0 < result.metric_value < 100
        # Only the paper's figures are others', and only GLaMM's are in the paper
        assert (result.source_url is not None) == (target == "litelvlm-glamm-refseg")
    assert bool(data.eval_results) == (target in ("litelvlm-tiny", "litelvlm-glamm-refseg"))


@pytest.mark.parametrize("target", TARGETS)
def test_code_of_the_card_runs(target, saved, monkeypatch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", render_card(target), flags=re.DOTALL)
    Image.open(EXAMPLE_IMAGE).convert("RGB").save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    scope = {}
    exec(code.replace(TARGETS[target]["repository"], str(saved)), scope)
    assert isinstance(scope["answer"], str)
    if TARGETS[target]["kind"] != "text":
        assert "[SEG]" in scope["answer"]
        assert scope["masks"].shape[1:] == Image.open(EXAMPLE_IMAGE).size[::-1]


def test_readme_shows_the_figures_of_the_card():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = [line for line in render_card("litelvlm-tiny").splitlines() if " of 576 |" in line]
    assert rows and all(row in readme for row in rows)


def test_card_command_writes_what_an_endpoint_needs(tmp_path, capsys):
    folder = tmp_path / "litelvlm-lisa-7b"
    folder.mkdir()
    assert main(["card", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "handler.py", "requirements.txt"]
    assert "xinlai/LISA-7B-v1" in (folder / "README.md").read_text(encoding="utf-8")
    assert main(["card", str(tmp_path)]) == 2
    assert "allowed are litelvlm-tiny, litelvlm-lisa-7b" in capsys.readouterr().err


def test_unknown_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        write_card(tmp_path / "nowhere", "litelvlm-tiny")
