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
"""The endpoint handler and the Space app, run from the exported folder where litelvlm is hidden."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from litelvlm import EXAMPLE_IMAGE, load_embedded
from litelvlm.hub_cards import write_card
from litelvlm.hub_cards.cards import FOLDER

HIDER = """
import sys
class Hider:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "litelvlm":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hider())
import base64, json
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "litelvlm-tiny"
    model, processor = load_embedded()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_card(folder)
    shutil.copy(FOLDER / "app.py", folder)
    return folder


@pytest.fixture(scope="module")
def expected():
    model, processor = load_embedded()
    inputs = processor(images=EXAMPLE_IMAGE, text="the red circle")
    return processor.post_process_masks(model.segment(**inputs, max_new_tokens=64), inputs)[0][0].numpy()


def run(folder, program):
    """What a program prints last, as JSON, run in the exported folder."""
    environment = os.environ | {"HF_MODULES_CACHE": str(folder.parent / "modules")}
    arguments = [sys.executable, "-c", HIDER + program]
    result = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_endpoint_answers_with_masks_and_names_bad_requests(exported, expected):
    answers = run(
        exported,
        f"""
from handler import EndpointHandler
handler = EndpointHandler(".")
picture = base64.b64encode(open({str(EXAMPLE_IMAGE)!r}, "rb").read()).decode()
request = {{"image": picture, "text": "the red circle"}}
requests = [
    {{"inputs": request}},
    {{"inputs": request, "parameters": {{"num_retained_tokens": 0}}}},
    {{"inputs": {{"image": "no picture", "text": "x"}}}},
    {{"text": "x"}},
]
print(json.dumps([handler(request) for request in requests]))
""",
    )
    good, *bad = answers
    assert "[SEG]" in good["answer"]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(good["masks"][0]))))
    assert set(np.unique(mask)) == {0, 255}
    assert iou(mask > 0, expected) > 0.99
    assert "num_retained_tokens" in bad[0]["error"]
    assert all(set(answer) == {"error"} for answer in bad)


def test_space_segments_with_the_exported_code(exported, expected):
    answer = run(
        exported,
        f"""
from PIL import Image
import app
model, processor = app.load(".")
image = Image.open({str(EXAMPLE_IMAGE)!r})
(picture, masks), text = app.segment(model, processor, image, "the red circle", 85)
print(json.dumps({{"text": text, "label": masks[0][1], "mask": masks[0][0].tolist()}}))
""",
    )
    assert answer["label"] == "the red circle" and "[SEG]" in answer["text"]
    assert iou(np.array(answer["mask"]), expected) > 0.99


def test_space_page_is_built(exported):
    pytest.importorskip("gradio")
    assert run(exported, 'import app\nprint(json.dumps(type(app.build(*app.load("."))).__name__))') == "Interface"
