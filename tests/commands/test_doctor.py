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
"""`litelvlm doctor`: the truth about this machine, and nothing about who owns it."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

from litelvlm import checkup
from litelvlm.commands.main import main

SECRET = re.compile(r"mallory|hf_secret|/\w+/|~/|[A-Z]:\\")


def test_versions_devices_features_and_the_embedded_model_are_told_but_not_whose_they_are(tmp_path):
    secrets = {"HOME": str(tmp_path / "mallory"), "USER": "mallory", "HF_TOKEN": "hf_secret"}
    command = [sys.executable, "-m", "litelvlm", "doctor", "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | secrets)
    report = json.loads(done.stdout)
    assert report["versions"]["torch"] == version("torch") and report["versions"]["python"].startswith("3.")
    assert report["devices"][0]["type"] == "cpu" and report["devices"][0]["threads"] >= 1
    assert report["features"]["image processing by torchvision"] is None
    assert report["embedded_model"]["cpu"] is None
    assert not SECRET.search(done.stdout), done.stdout


@pytest.fixture
def without_model(monkeypatch):
    monkeypatch.setattr(checkup, "try_embedded_model", lambda device: None)


def test_what_fails_is_told_without_its_message(monkeypatch, capsys):
    def fail(**kwargs):
        raise OSError("no such file: /home/mallory/models/litelvlm-tiny with hf_secret")

    monkeypatch.setattr(checkup, "load_tiny", fail)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "fails with OSError" in said and not SECRET.search(said), said


def test_what_is_missing_or_too_old_is_named_with_its_extra(without_model, monkeypatch, capsys):
    known = checkup.version_of
    changed = {"pycocotools": None, "torch": "2.1.0"}
    monkeypatch.setattr(checkup, "version_of", lambda name: changed.get(name, known(name)))
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "  pycocotools: not installed\n" in said
    assert '  pip install "litelvlm[formats]" (for pycocotools>=2.0.8)\n' in said
    assert '  pip install "litelvlm" (for torch>=2.6)\n' in said


def test_a_library_that_cannot_be_imported_does_not_work(without_model, monkeypatch, tmp_path, capsys):
    (tmp_path / "bitsandbytes.py").write_text("raise RuntimeError('built for another PyTorch')")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["doctor"]) == 0
    assert "bitsandbytes: no, importing bitsandbytes fails with RuntimeError\n" in capsys.readouterr().out


def test_a_machine_without_a_compiler_does_not_compile(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in checkup.features()["torch.compile"]


def test_a_model_that_misses_the_object_is_told(monkeypatch):
    def load(**kwargs):
        model, processor = load_tiny(**kwargs)
        for parameter in model.seg_head.parameters():
            torch.nn.init.zeros_(parameter)
        return model, processor

    load_tiny = checkup.load_tiny
    monkeypatch.setattr(checkup, "load_tiny", load)
    assert "IoU of" in checkup.try_embedded_model("cpu")


def test_an_accelerator_is_told_with_its_memory(monkeypatch):
    class Properties:
        name, total_memory = "NVIDIA H100", 80 * 2**30

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(checkup, "is_torch_bf16_available_on_device", lambda kind: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    _, first, second = checkup.describe_devices()
    expected = {"type": "cuda", "bfloat16": True, "name": "NVIDIA H100", "memory": 80.0, "runtime": "ROCm 6.4"}
    assert first == second == expected
