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
"""A saved folder loads by `trust_remote_code` where litelvlm is not installed, and can be saved again from there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import hub

from litelvlm.modeling.hub_litelvlm import export_code
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation

# Runs in a process of its own. The finder makes `import litelvlm` fail as if it were not installed.
ISOLATED = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "litelvlm":
            raise ModuleNotFoundError("litelvlm is hidden")

sys.meta_path.insert(0, Hidden())
folder, image, result, again = sys.argv[1:]

import torch
from transformers import (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline)

config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
assert config.num_retained_tokens == 6
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)) is type(model)
assert AutoModel.from_pretrained(folder, trust_remote_code=True, num_retained_tokens=3).config.num_retained_tokens == 3
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(images=image, text="the dog", answers="It is [SEG].")
inputs.pop("labels")
with torch.no_grad():
    output = model(**inputs)
torch.save({"logits": output.logits, "masks": output.pred_masks[0], "retained": output.retained_indices}, result)

pipe = pipeline(model=folder, trust_remote_code=True)
assert pipe.task == "referring-segmentation", pipe.task
answers = pipe([{"image": image, "text": "the dog"}] * 3, batch_size=2, max_new_tokens=4)
assert len(answers) == 3 and answers[0] == answers[2] and answers[0][0]["label"] == "the dog"

model.save_pretrained(again)
processor.save_pretrained(again)
assert not any(name.partition(".")[0] == "litelvlm" for name in sys.modules)
"""


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def run_isolated(folder: Path, image: Path, result: Path, again: Path) -> dict[str, torch.Tensor]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(again.parent / "modules")}
    environment.pop("PYTHONPATH", None)
    arguments = [sys.executable, "-c", ISOLATED, *map(str, (folder, image, result, again))]
    done = subprocess.run(arguments, cwd=result.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(result)


def test_saved_folder_loads_isolated_with_identical_outputs_and_saves_again(
    make_text_model, processor, image, tmp_path
):
    folder, again = tmp_path / "saved", tmp_path / "again"
    make_text_model().save_pretrained(folder, max_shard_size="200KB")
    processor.save_pretrained(folder)
    first = run_isolated(folder, image, tmp_path / "first.pt", again)

    # Loaded here as there, so that even the weights' places in the file are the same
    model = LiteLVLMForSegmentation.from_pretrained(folder)
    inputs = processor(images=image, text="the dog", answers="It is [SEG].")
    inputs.pop("labels")
    with torch.no_grad():
        output = model(**inputs)
    assert torch.equal(first["logits"], output.logits)
    assert torch.equal(first["retained"], output.retained_indices)
    assert first["masks"].shape == (1, 16, 16)
    assert torch.equal(first["masks"], output.pred_masks[0])

    assert {p.name for p in again.glob("*.py")} == {p.name for p in folder.glob("*.py")}
    second = run_isolated(again, image, tmp_path / "second.pt", tmp_path / "third")
    assert torch.equal(second["logits"], first["logits"])
    torch.testing.assert_close(second["masks"], first["masks"], atol=1e-7, rtol=1e-5)


def test_saved_folder_holds_what_a_hub_repository_needs(make_text_model, processor, tmp_path):
    make_text_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "chat_template.jinja"} <= names
    assert {"tokenizer.json", "guide_tokenizer", "generation_config.json"} <= names
    config = json.loads((tmp_path / "config.json").read_text())
    entries = [*config["auto_map"].values(), config["custom_pipelines"]["referring-segmentation"]["impl"]]
    entries.append(json.loads((tmp_path / "processor_config.json").read_text())["auto_map"]["AutoProcessor"])
    for entry in entries:
        module, _, name = entry.partition(".")
        assert f"class {name}" in (tmp_path / f"{module}.py").read_text()


def test_exported_code_imports_nothing_of_the_package(tmp_path):
    written = export_code(tmp_path)
    assert len(written) == len({Path(path).name for path in written}) >= 8
    for path in written:
        code = Path(path).read_text()
        assert "from .." not in code and "import litelvlm" not in code and "from litelvlm" not in code


def test_push_to_hub_uploads_the_whole_folder(make_text_model, processor, monkeypatch, tmp_path):
    """The upload itself is huggingface_hub's, and stands still here; what it is handed is ours."""
    uploaded = {}

    class Api:
        def create_repo(self, repo_id, **kwargs):
            return SimpleNamespace(repo_id=repo_id)

    class Card:
        def save(self, path):
            Path(path).write_text("card")

    def upload(self, folder, repo_id, *args, **kwargs):
        uploaded[type(self).__name__] = set(os.listdir(folder))

    monkeypatch.setattr(hub, "hf_api", Api)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *args, **kwargs: Card())
    for thing in (make_text_model(), processor):
        monkeypatch.setattr(type(thing), "_upload_modified_files", upload)
        thing.push_to_hub("someone/litelvlm-test")
        whole = uploaded.pop(type(thing).__name__)
        thing.save_pretrained(tmp_path / type(thing).__name__, push_to_hub=True, repo_id="someone/x", private=True)
        assert uploaded[type(thing).__name__] == whole
    assert "model.safetensors" in uploaded["LiteLVLMForSegmentation"]
    assert "processor_config.json" in uploaded["LiteLVLMProcessor"]
    for names in uploaded.values():
        assert {"modeling_litelvlm.py", "processing_litelvlm.py", "pipeline_litelvlm.py"} <= names
