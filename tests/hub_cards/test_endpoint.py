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
"""The endpoint handler and the Space, run from an exported folder in a process where litelvlm is not installed."""

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

from litelvlm import EXAMPLE_IMAGE
from litelvlm.hub_cards import handler
from litelvlm.hub_cards.cards import FOLDER

# The finder makes `import litelvlm` fail as if it were not installed
ISOLATED = """
import base64, json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "litelvlm":
            raise ModuleNotFoundError("litelvlm is hidden")

sys.meta_path.insert(0, Hidden())
path, text_only = sys.argv[1:]

from collections import OrderedDict

import app, handler

image = base64.b64encode(open(path, "rb").read()).decode()
request = {"inputs": {"image": image, "text": "the red circle"}}
answers = {"masks": handler.EndpointHandler(".")(request), "text": handler.EndpointHandler(text_only)(request)}
loaded = app.load(".")
shown = app.ask(*loaded, OrderedDict(), path, "the red circle", "litelvlm", 85)
page = app.build(*loaded)
answers["space"] = {"size": shown.image.size, "methods": app.list_methods(loaded[0]), "answer": shown.run.answer}
answers["space"]["masks"] = [[int(entry["mask"].sum()), entry["label"]] for entry in shown.run.found]
answers["space"]["kept"] = [int(patches.sum()) for patches in shown.patches]
assert not any(name.partition(".")[0] == "litelvlm" for name in sys.modules)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(saved, saved_text_only, tmp_path_factory):
    """What the handler and the Space answer about the example, run in the folder that they stand in."""
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("isolated") / "litelvlm-tiny")
    shutil.copy(FOLDER / "app.py", folder)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder.parent / "modules")}
    environment.pop("PYTHONPATH", None)
    arguments = [sys.executable, "-c", ISOLATED, str(EXAMPLE_IMAGE), str(saved_text_only)]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected(embedded):
    """The mask of the red circle, as the package finds it."""
    model, processor = embedded
    inputs = processor(images=EXAMPLE_IMAGE, text="the red circle")
    output = model.segment(**inputs, max_new_tokens=64)
    return processor.post_process_instance_segmentation(output, inputs)[0][0]["mask"].numpy()


def test_endpoint_answers_with_masks_as_png(answers, expected):
    assert "[SEG]" in answers["masks"]["answer"]
    (mask,) = (np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in answers["masks"]["masks"])
    assert set(np.unique(mask)) == {0, 255} and np.mean((mask == 255) == expected) > 0.999


def test_endpoint_of_a_model_without_masks_answers_in_text(answers):
    assert answers["text"].keys() == answers["masks"].keys() and answers["text"]["masks"] == []
    assert isinstance(answers["text"]["answer"], str) and "<image>" not in answers["text"]["answer"]


def test_space_shows_the_image_with_its_masks(answers, expected):
    space = answers["space"]
    assert tuple(space["size"]) == Image.open(EXAMPLE_IMAGE).size and "[SEG]" in space["answer"]
    ((area, label),) = space["masks"]
    assert label == "the red circle" and area == pytest.approx(expected.sum(), rel=0.01)
    assert space["kept"] == [42, 43] and space["methods"] == ["litelvlm", "none"]


@pytest.fixture(scope="module")
def endpoint(embedded):
    endpoint = object.__new__(handler.EndpointHandler)
    endpoint.model, endpoint.processor = embedded
    return endpoint


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"text": "x"}, "The request has no image or no text"),
        ({"inputs": {"image": "x"}}, "The request has no image or no text"),
        ({"inputs": {"image": str(EXAMPLE_IMAGE), "text": "x"}}, "neither an image in base64 nor an allowed URL"),
        ({"inputs": {"image": encoded(b"no image"), "text": "x"}}, "neither an image in base64 nor an allowed URL"),
        ({"inputs": {"image": "data:image/png;base64,", "text": "x"}}, "it is empty"),
        ({"inputs": {"image": encoded(EXAMPLE_IMAGE.read_bytes()) + "_", "text": "x"}}, "base64"),
        ({"inputs": {"image": 7, "text": "x"}}, "neither an image in base64 nor an allowed URL"),
        ({"inputs": {"image": encoded(EXAMPLE_IMAGE.read_bytes()), "text": " "}}, "texts that are not empty"),
    ],
)
def test_endpoint_says_what_is_wrong_with_a_request(endpoint, data, message):
    with pytest.raises(ValueError, match=message):
        endpoint(data)


def test_endpoint_takes_data_urls_and_known_parameters_only(endpoint):
    image = "data:image/png;base64," + base64.encodebytes(EXAMPLE_IMAGE.read_bytes()).decode()
    request = {"image": image, "text": "the red circle"}
    answer = endpoint({"inputs": request, "parameters": {"num_retained_tokens": 28, "max_new_tokens": 1}})
    assert set(answer) == {"answer", "reason", "masks", "scores", "predicted_ious", "boxes"}
    assert answer["reason"] == "the answer holds no [SEG]"
    given = endpoint({"inputs": request, "parameters": {"answer": "It is [SEG]."}})
    assert (
        given["answer"] == "It is [SEG]."
        and given["reason"] is None
        and len(given["masks"]) == len(given["boxes"]) == 1
    )
    assert 0 <= given["scores"][0] <= 1 and isinstance(given["predicted_ious"][0], float)
    with pytest.raises(ValueError, match="`num_retained_tokens` is 0"):
        endpoint({"inputs": request, "parameters": {"num_retained_tokens": 0}})
    with pytest.raises(ValueError, match=r"Unknown parameters \['image_state'\]; allowed are answer, max_new_tokens"):
        endpoint({"inputs": request, "parameters": {"image_state": 1}})


IMAGE = encoded(EXAMPLE_IMAGE.read_bytes())


def png_of(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return encoded(buffer.getvalue())


def postscript():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    return encoded(buffer.getvalue())


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        ({"image": png_of(9600, 9600)}, {}, "9600 x 9600 pixels are more than the limit"),
        ({"image": png_of(20000, 20000)}, {}, "pixels"),
        ({"image": "A" * (30 * 2**20)}, {}, "more than 20 MiB"),
        ({"image": postscript()}, {}, "cannot identify"),
        ({"image": None}, {}, "`image` is neither"),
        ({"image": ["a", "b"]}, {}, "`image` is neither"),
        ({"image": "http://127.0.0.1/x.png"}, {}, "fetches no URLs"),
        ({"image": "file:///etc/passwd"}, {}, "`image` is neither"),
        ({"text": ["the red circle", "the blue square"]}, {}, "`text` is .*; allowed is one text"),
        ({"text": [["the red circle"]]}, {}, "allowed is one text"),
        ({"text": "x" * 200_000}, {}, "200000 characters; allowed are 2000"),
        ({"text": "\ud800"}, {}, "which is half of a character"),
        ({"text": None}, {}, "allowed is one text"),
        ({"mask": 1}, {}, r"Unknown inputs \['mask'\]"),
        ({}, {"max_new_tokens": 10**9}, "`max_new_tokens` is 1000000000; allowed are 1 to 512"),
        ({}, {"max_new_tokens": 0}, "allowed are 1 to 512"),
        ({}, {"max_new_tokens": True}, "`max_new_tokens` is True; allowed is a value of type int"),
        ({}, {"max_new_tokens": 5.5}, "allowed is a value of type int"),
        ({}, {"num_retained_tokens": "many"}, "allowed is a value of type int"),
        ({}, {"num_retained_tokens": 10**30}, "`num_retained_tokens` is 1000"),
        ({}, {"pruning_method": {"a": 1}}, "allowed is a value of type str"),
        ({}, {"answer": "[SEG]" * 10_000}, "`answer` has 50000 characters"),
        ({}, {"answer": ["[SEG]"]}, "allowed is a value of type str"),
        ({}, {"max_time": 1e9}, "Unknown parameters"),
        ({}, ["max_new_tokens"], "`parameters` are no object"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_request_beyond_the_limits_is_refused(endpoint, inputs, parameters, message):
    with pytest.raises(ValueError, match=message) as raised:
        endpoint({"inputs": {"image": IMAGE, "text": "the red circle"} | inputs, "parameters": parameters})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("data", [None, [], "x", {}, {"inputs": None}, {"inputs": "x"}, {"inputs": []}])
def test_request_of_another_shape_is_refused(endpoint, data):
    with pytest.raises(ValueError, match="The request has no image or no text"):
        endpoint(data)


def test_generation_ends_at_the_time_limit(endpoint, monkeypatch):
    monkeypatch.setattr(handler, "MAX_SECONDS", 0.0)
    with pytest.raises(ValueError, match="longer than 0 seconds; ask for fewer"):
        endpoint({"inputs": {"image": IMAGE, "text": "the red circle"}, "parameters": {"max_new_tokens": 500}})


def test_urls_are_fetched_only_where_configured_and_public(endpoint, serve_bytes, monkeypatch):
    address = serve_bytes(b"HTTP/1.1 200 OK\r\n\r\n", EXAMPLE_IMAGE.read_bytes())
    request = {"inputs": {"image": f"http://{address}/x.png", "text": "the red circle"}}
    with pytest.raises(ValueError, match="fetches no URLs"):
        endpoint(request)
    monkeypatch.setenv("LITELVLM_FETCH_URLS", "1")
    with pytest.raises(ValueError, match=r"'127\.0\.0\.1' has no public address"):
        endpoint(request)
    assert serve_bytes.requests == []
    monkeypatch.setattr("litelvlm.modeling.fetching_litelvlm.is_public", lambda address: True)
    assert endpoint(request)["masks"] and len(serve_bytes.requests) == 1
    request["inputs"]["image"] = f"http://{serve_bytes(b'nonsense')}/"
    with pytest.raises(ValueError, match="not HTTP"):
        endpoint(request)
