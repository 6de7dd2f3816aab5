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
"""A saved folder in a process that has not this package: what a Hub repository must hold by itself."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def check_loads_without_the_package(
    folder: Path,
    model: Any,
    processor: Any,
    images: list[Any],
    questions: list[str],
    generate: dict[str, Any],
    auto_model: str = "AutoModelForImageTextToText",
) -> None:
    """
    Saves both in `folder`, and sees a process that has not this package make the same inputs and tokens of them.

    Args:
        images: one for each question, or a list of them for each.
        auto_model: the class of Transformers that loads the model.
    """
    inputs = processor(images, questions)
    for part in (model, processor):
        part.save_pretrained(folder / "saved")
    torch.save({"inputs": dict(inputs), "tokens": model.generate(**inputs, **generate)}, folder / "expected.pt")
    numbers = itertools.count()

    def written(image: Any) -> Any:
        if isinstance(image, list):
            return [written(one) for one in image]
        image.save(path := folder / f"{next(numbers)}.png")
        return str(path)

    code = (
        "import sys, importlib.abc, torch\n"
        "class Missing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'litelvlm':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"from transformers import {auto_model}, AutoProcessor\n"
        f"folder = {str(folder)!r}\n"
        f"model = {auto_model}.from_pretrained(folder + '/saved', trust_remote_code=True)\n"
        "processor = AutoProcessor.from_pretrained(folder + '/saved', trust_remote_code=True)\n"
        "expected = torch.load(folder + '/expected.pt')\n"
        f"inputs = processor({written(images)!r}, {questions!r})\n"
        "assert all(torch.equal(inputs[name], value) for name, value in expected['inputs'].items())\n"
        f"assert torch.equal(model.generate(**inputs, **{generate!r}), expected['tokens'])\n"
        "print('same')\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


__all__ = ["check_loads_without_the_package"]
