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
"""The tasks of lmms-eval on a tiny set: read as its loader reads them, and with the package itself where it is."""

import importlib.util
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from datasets import Dataset
from PIL import Image

import litelvlm
from litelvlm.data.masks import encode_mask
from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU

FOLDER = Path(litelvlm.__file__).parent / "evaluation" / "lmms_eval"
TASKS = sorted(path.name for path in FOLDER.glob("refcoco*.yaml"))


def load_function(loader, node):
    """`!function file.name`, of a file beside the task that is imported by itself."""
    module_name, name = node.value.split(".")
    spec = importlib.util.spec_from_file_location(module_name, FOLDER / f"{module_name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def load_task(name):
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", load_function)
    own = yaml.load((FOLDER / name).read_text(), loader)
    return yaml.load((FOLDER / own.pop("include")).read_text(), loader) | own


@pytest.fixture(scope="module")
def task():
    return load_task("refcoco_mask_val.yaml")


@pytest.fixture(scope="module")
def dataset():
    """Two objects in the columns of the real set: one of two expressions with a polygon, one with run lengths."""
    scene = RefShapes("testA", 1, size=64)[0]
    image = Image.fromarray(scene.image)
    square = [8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0]
    rows = [
        {"image": image, "answer": ["a square", "the box"], "segmentation": square},
        {"image": image, "answer": ["the rest"], "segmentation": [0.0, 32.0, 64.0, 32.0, 64.0, 64.0, 0.0, 64.0]},
    ]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("name", TASKS)
def test_each_file_is_a_whole_task(name):
    task = load_task(name)
    assert task["task"] == name.removesuffix(".yaml") and task["task"].endswith(f"_{task['test_split']}")
    assert [metric["metric"] for metric in task["metric_list"]] == ["ciou", "giou"]
    group = yaml.safe_load((FOLDER / f"_{name.partition('_mask')[0]}_mask.yaml").read_text())
    assert task["task"] in group["task"] and group["group"] == name.partition("_mask")[0] + "_mask"


def reply(*masks):
    return json.dumps({"masks": [encode_mask(mask) for mask in masks]})


def test_a_tiny_set_is_asked_and_counted(task, dataset):
    docs = list(task["process_docs"](dataset))
    assert [task["doc_to_text"](doc) for doc in docs] == ["a square", "the box", "the rest"]
    assert all(task["doc_to_visual"](doc)[0].mode == "RGB" for doc in docs)
    square, rest = (np.zeros((64, 64), dtype=bool) for _ in range(2))
    square[8:24, 8:24], rest[32:] = True, True
    left, right = rest.copy(), rest.copy()
    left[:, 32:], right[:, :32] = False, False
    # Right, refused in words, and in two parts that are right together
    replies = [reply(square), "I see no box.", reply(left, right)]
    counts = [task["process_results"](doc, [text]) for doc, text in zip(docs, replies, strict=True)]
    figures = {m["metric"]: m["aggregation"]([c[m["metric"]] for c in counts]) for m in task["metric_list"]}
    expected = CumulativeIoU()
    for mask in (square, np.zeros_like(square), rest):
        expected.update(mask[None], (rest if mask is rest else square)[None])
    assert figures == {"ciou": pytest.approx(100 * expected.ciou), "giou": pytest.approx(200 / 3)}


@pytest.mark.parametrize("text", ["", "no", "[]", "3", "null", '{"masks": null}', '{"boxes": []}'])
def test_a_reply_that_holds_no_masks_counts_as_none(task, dataset, text):
    doc = task["process_docs"](dataset)[0]
    counts = task["process_results"](doc, [text])["ciou"]
    assert counts.predicted == counts.intersection == 0 < counts.expected


def test_the_model_of_lmms_eval_answers_with_masks(task):
    pytest.importorskip("lmms_eval.api.model", reason="lmms-eval is installed by hand, as it brings 60 libraries")
    from litelvlm.evaluation.lmms_eval.model import MANIFEST, LiteLVLM

    assert MANIFEST.simple_class_path == "litelvlm.evaluation.lmms_eval.model.LiteLVLM"
    scene = RefShapes("testA", 1, size=256)[0]
    doc = {"image": Image.fromarray(scene.image), "segmentation": encode_mask(scene.masks[0])}
    model = LiteLVLM()
    model.task_dict = {"task": {"val": [doc]}}
    visual = partial(task["doc_to_visual"])
    request = SimpleNamespace(args=(scene.expressions[0].text, {"max_new_tokens": 16}, visual, 0, "task", "val"))
    counts = task["process_results"](doc, model.generate_until([request]))["ciou"]
    assert counts.iou > 0.5
    with pytest.raises(ValueError, match="allowed are pretrained"):
        LiteLVLM(method="litelvlm")
