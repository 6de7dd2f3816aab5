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
"""
Publishing, against a server in this process that speaks the endpoints of the Hub which an upload uses.

It speaks plain HTTP (Git LFS). The storage that huggingface_hub prefers where it is installed, Xet, has a protocol of
its own and stays untested here.
"""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from litelvlm import TINY_MODEL
from litelvlm.commands.main import main
from litelvlm.hub_cards import check_folder


class Hub(BaseHTTPRequestHandler):
    """The repository org/tiny: `server.files`, `server.uploads` by hash, `server.private`, and every request made."""

    def do_GET(self):
        self.server.requests.append(f"GET {self.path}")
        self.answer({"id": "org/tiny", "siblings": [], "sha": "0" * 40})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.requests.append(f"POST {self.path}")
        address = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/api/repos/create":
            self.server.private = "private" in (json.loads(body).get("visibility"), *json.loads(body).keys())
            self.answer({"url": f"{address}/org/tiny", "id": "org/tiny"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [self.mode(name) for name in names]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [{"oid": item["oid"], "size": item["size"]} for item in json.loads(body)["objects"]]
            for item in objects:
                if item["oid"] not in self.server.uploads:  # what is there already need not be sent
                    item["actions"] = {"upload": {"href": f"{address}/upload/{item['oid']}"}}
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path and self.server.refuses_commits:
            self.answer({"error": "The Hub is closed today."}, 403)
        elif "/commit/" in self.path:
            for item in map(json.loads, body.splitlines()):
                value = item["value"]
                if item["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.uploads[value["oid"]]
            url = f"{address}/org/tiny/commit/{'1' * 40}"
            self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": url})
        else:
            self.answer({"error": "unknown"}, 404)

    def do_PUT(self):
        self.server.requests.append(f"PUT {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploads[self.path.rpartition("/")[2]] = content
        self.answer({})

    def mode(self, name):
        mode = "lfs" if name.endswith(".safetensors") else "regular"
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.uploads, server.requests, server.private = {}, {}, [], None
    server.refuses_commits = False
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved folder, to be damaged, with files that are nobody else's."""
    folder = shutil.copytree(saved, tmp_path / "litelvlm-tiny")
    for name in (".cache/huggingface/state.json", "guide_tokenizer/.DS_Store", "__pycache__/handler.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_push_sends_what_it_lists(folder, saved, hub, capsys):
    assert main(["push", str(folder), "org/tiny", "--private", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert hub.private
    assert {file["name"] for file in report["files"]} == set(hub.files)
    assert hub.files == {
        path.relative_to(saved).as_posix(): path.read_bytes() for path in saved.rglob("*") if path.is_file()
    }
    assert {"README.md", "model.safetensors", "modeling_litelvlm.py", "handler.py"} <= set(hub.files)
    assert {"requirements.txt", "guide_tokenizer/tokenizer.json"} <= set(hub.files)
    for file in report["files"]:
        content = hub.files[file["name"]]
        assert (file["size"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_interrupted_push_is_resumed_without_sending_weights_twice(folder, hub, capsys):
    hub.refuses_commits = True
    assert main(["push", str(folder), "org/tiny"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "403" in captured.err.splitlines()[-1] and not hub.files
    hub.refuses_commits = False
    assert main(["push", str(folder), "org/tiny"]) == 0
    assert "model.safetensors" in hub.files
    assert sum(request.startswith("PUT ") for request in hub.requests) == 1


def test_dry_run_lists_every_file_and_asks_nothing_of_the_hub(folder, hub, capsys):
    assert main(["push", str(folder), "org/tiny", "--dry-run"]) == 0
    *lines, left_out, last = capsys.readouterr().out.splitlines()
    config = (folder / "config.json").read_bytes()
    assert f"{hashlib.sha256(config).hexdigest()}  {len(config)}  config.json" in lines
    assert last.startswith(f"{len(lines)} files, ") and last.endswith("would go to org/tiny")
    assert not any("cache" in line or "DS_Store" in line for line in lines)
    assert left_out.endswith(": .cache/, __pycache__/, guide_tokenizer/.DS_Store")
    assert hub.requests == []


SECRETS = ["token", "id_rsa", "server.pem", "prod.env", "credentials.json", "optimizer.pt", "optimizer.safetensors"]
SECRETS += [
    "training_args.bin",
    "notes.md",
    "guide_tokenizer/token",
    "patients/scan.png",
    "config.json.bak",
    "train.py",
]


def test_only_what_a_model_repository_holds_is_sent(folder, saved, hub, capsys):
    for name in (*SECRETS, "LICENSE", "LICENSE.txt", "tokenizer.model"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret" if name in SECRETS else "wanted")
    assert main(["push", str(folder), "org/tiny", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    wanted = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert set(hub.files) == wanted | {"LICENSE", "LICENSE.txt", "tokenizer.model"}
    assert b"secret" not in {*hub.files.values(), *hub.uploads.values()}
    for name in SECRETS:
        assert ("patients/" if "patients" in name else name) in report["left_out"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.json", '"num_retained_tokens"', '"clip": {"name": ["/data/mine/clip"]}, "num_retained_tokens"'),
        ("processor_config.json", '"processor_class"', '"source": "D:\\\\work\\\\clip", "processor_class"'),
        ("guide_tokenizer/tokenizer_config.json", "{", '{"name_or_path": "~/clip",'),
        ("conversion_report.json", "", '{"source": "/tmp/LISA"}'),
        ("README.md", "## Training", "Made of /home/someone/LISA-7B. ## Training"),
    ],
)
def test_a_path_of_this_machine_is_not_published(folder, hub, capsys, name, old, new):
    text = (folder / name).read_text(encoding="utf-8") if old else ""
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1) if old else new, encoding="utf-8")
    assert main(["push", str(folder), "org/tiny"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name.rpartition("/")[2] in error and "a path of this machine" in error
    assert not hub.files and not hub.requests


def test_code_that_only_the_configuration_names_is_sent(folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModelForVision2Seq"] = "own_model.Model"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_model.py").write_text("from .own_parts import Part\n")
    (folder / "own_parts.py").write_text("")
    assert main(["push", str(folder), "org/tiny", "--dry-run", "--json"]) == 0
    names = {file["name"] for file in json.loads(capsys.readouterr().out)["files"]}
    assert {"own_model.py", "own_parts.py"} <= names


@pytest.mark.parametrize("name", ["LICENSE", "handler.py", "guide_tokenizer/vocab.json", "guide_tokenizer"])
def test_link_out_of_the_folder_is_refused(folder, hub, capsys, name):
    path, outside = folder / name, folder.parent / "outside"
    if path.is_dir():
        shutil.move(path, outside)
    else:
        path.unlink(missing_ok=True)
        outside.write_text("secret")
    path.symlink_to(outside)
    assert main(["push", str(folder), "org/tiny"]) == 2
    error = capsys.readouterr().err
    assert f"links to files elsewhere: {name}" in error and error.count("\n") == 1
    assert hub.requests == []


def test_link_within_the_folder_is_sent_as_its_file(folder, hub):
    (folder / "LICENSE.txt").write_text("wanted")
    (folder / "LICENSE").symlink_to("LICENSE.txt")
    assert main(["push", str(folder), "org/tiny"]) == 0
    assert hub.files["LICENSE"] == b"wanted"


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "optimizer.bin"])
def test_weights_of_the_index_are_files_of_the_folder(folder, shard):
    save_file({"a": torch.zeros(1)}, folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match="names weights that are no safetensors file of the folder"):
        check_folder(folder)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def replace(name, old, new):
    def change(folder):
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


def cut(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "holds no config.json"),
        (replace("config.json", '"auto_map"', '"other_map"'), "has no `auto_map`"),
        (replace("config.json", "{", ""), "is no JSON"),
        (remove("processor_config.json"), "holds no processor_config.json"),
        (lambda folder: shutil.rmtree(folder / "guide_tokenizer"), "lacks the guide's tokenizer in guide_tokenizer"),
        (remove("modeling_litelvlm.py"), "lacks code: modeling_litelvlm.py;"),
        (remove("pruning_litelvlm.py", "pipeline_litelvlm.py"), "code: pipeline_litelvlm.py, pruning_litelvlm.py;"),
        (remove("model.safetensors"), "lacks weights: model.safetensors"),
        (cut, "is cut off or damaged"),
        (remove("README.md"), "holds no README.md; `litelvlm card` writes one"),
        (replace("README.md", "license: apache-2.0\n", ""), "lacks metadata: license;"),
        (replace("README.md", "license: apache-2.0", "license: other"), "metadata: license_name, license_link;"),
        (replace("README.md", "tags:", "base_model_relation: copy\ntags:"), "_relation` 'copy'; allowed are adapter"),
        (replace("README.md", "tags:", "tags: ]"), "metadata that cannot be read"),
        (replace("README.md", "- name: litelvlm-tiny\n  results:", "- results:"), "metadata that cannot be read"),
    ],
)
def test_folder_that_would_not_load_is_refused_in_one_line(folder, hub, capsys, damage, message):
    damage(folder)
    assert main(["push", str(folder), "org/tiny"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err
    assert hub.requests == []


def test_embedded_model_as_it_is_shipped_lacks_its_code(capsys):
    assert main(["push", str(TINY_MODEL), "org/tiny", "--dry-run"]) == 2
    assert "lacks code: configuration_litelvlm.py, modeling_litelvlm.py" in capsys.readouterr().err


def test_every_shard_of_the_index_is_looked_for(folder):
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}))
    save_file({"a": torch.zeros(1)}, folder / names[0])
    with pytest.raises(ValueError, match=f"lacks weights: {names[1]}"):
        check_folder(folder)
    save_file({"b": torch.zeros(1)}, folder / names[1])
    with pytest.raises(ValueError, match="lacks 1 tensors of the index, c first"):
        check_folder(folder)
    save_file({"b": torch.zeros(1), "c": torch.zeros(1)}, folder / names[1])
    check_folder(folder)


def test_repository_name_is_checked_before_anything_else(folder, hub, capsys):
    assert main(["push", str(folder), "org/tiny/again", "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "repo_type" not in captured.err
    assert "'org/tiny/again' has not the form of a Hub id; allowed is ORG/NAME" in captured.err
