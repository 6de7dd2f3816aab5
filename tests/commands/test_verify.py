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
"""`litelvlm verify`: a sound folder, and every kind of damage, each named in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from litelvlm.commands.main import main
from litelvlm.verification import check_hashes


@pytest.fixture
def folder(make_text_model, processor, tmp_path):
    make_text_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def edit_json(folder, name, change):
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def test_sound_folder_is_verified_without_a_card(folder, capsys):
    assert main(["verify", str(folder), "--device", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [file["name"] for file in report["files"]] == ["model.safetensors"] and report["parameters"] > 1000


def cut(folder, name, length):
    (folder / name).write_bytes((folder / name).read_bytes()[:length])


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "config of another shape": (
        lambda f: (f / "config.json").write_text("[]"),
        "holds a JSON list in place of",
    ),
    "torn config": (lambda f: cut(f, "config.json", 40), "config.json' is no JSON"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), "holds no processor_config.json"),
    "processor of another shape": (
        lambda f: (f / "processor_config.json").write_text("3"),
        "holds a JSON int in",
    ),
    "no guide tokenizer": (lambda f: shutil.rmtree(f / "guide_tokenizer"), "lacks the guide's tokenizer"),
    "no code": (lambda f: (f / "prompt_litelvlm.py").unlink(), "lacks code: prompt_litelvlm.py"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks weights: model.safetensors"),
    "torn weights": (lambda f: cut(f, "model.safetensors", 1000), "cut off or damaged"),
    "empty weights": (lambda f: cut(f, "model.safetensors", 0), "cut off or damaged"),
    "pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "cut off or damaged",
    ),
    "missing tensor": (lambda f: edit_weights(f, lambda t: t.pop("lm_head.weight")), "lm_head.weight"),
    "renamed tensor": (lambda f: edit_weights(f, lambda t: t.update(other=t.pop("lm_head.weight"))), "lm_head.weight"),
    "other shape": (
        lambda f: edit_weights(f, lambda t: t.update({"lm_head.weight": torch.ones(3, 48)})),
        "lm_head.weight",
    ),
    "not finite": (
        lambda f: edit_weights(f, lambda t: t["lm_head.weight"].fill_(float("nan"))),
        r"finite",
    ),
    "another [SEG]": (lambda f: edit_json(f, "config.json", lambda c: c.update(seg_token_id=5)), "id of [SEG]"),
    "torn tokenizer": (lambda f: cut(f, "tokenizer.json", 100), "cannot be loaded"),
    "torn guide tokenizer": (lambda f: cut(f, "guide_tokenizer/tokenizer.json", 100), "cannot be loaded"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_and_exit_code_two(folder, name, capsys):
    damage, message = DAMAGES[name]
    damage(folder)
    assert main(["verify", str(folder), "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_another_file_than_the_hubs_is_named(folder):
    notes = folder / ".cache" / "huggingface" / "download" / "model.safetensors.metadata"
    notes.parent.mkdir(parents=True)
    (sound,) = check_hashes(folder)
    notes.write_text(f"{'0' * 40}\n{sound['sha256']}\n1.0\n")
    assert check_hashes(folder)[0]["expected"] == sound["sha256"]
    edit_weights(folder, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(ValueError, match=r"damaged: its SHA-256 is .* the Hub's"):
        check_hashes(folder)


def test_links_of_the_hubs_cache_are_compared_too(folder, tmp_path):
    (sound,) = check_hashes(folder)
    assert sound["expected"] is None
    blob = tmp_path / "blobs" / ("0" * 64)
    blob.parent.mkdir()
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    with pytest.raises(ValueError, match="damaged"):
        check_hashes(folder)
