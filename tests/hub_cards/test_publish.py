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
"""Publishing, against a local HTTP server that speaks the endpoints of the Hub that an upload uses."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import HfApi

from litelvlm import load_embedded
from litelvlm.cli import main
from litelvlm.hub_cards import push, write_card


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "litelvlm-tiny"
    model, processor = load_embedded()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_card(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "private.json").write_text("{}")
    return folder


class Hub(BaseHTTPRequestHandler):
    """One repository in memory: `server.files`, `server.uploads` by hash, and `server.requests`."""

    def do_GET(self):
        self.server.requests.append(("GET", self.path))
        if self.path.startswith("/api/models/org/tiny"):
            return self.answer({"id": "org/tiny", "private": self.server.private, "siblings": [], "sha": "0" * 40})
        return self.answer({"error": "unknown"}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(("POST", self.path))
        address = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/api/repos/create":
            self.server.private = json.loads(body).get("private") or json.loads(body).get("visibility") == "private"
            return self.answer({"url": f"{address}/org/tiny", "id": "org/tiny"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in files
            ]
            return self.answer({"files": modes})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": item["oid"],
                    "size": item["size"],
                    "actions": {"upload": {"href": f"{address}/upload/{item['oid']}"}},
                }
                for item in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            for line in body.decode().splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.uploads[value["oid"]]
            return self.answer(
                {"success": True, "commitOid": "1" * 40, "commitUrl": f"{address}/org/tiny/commit/{'1' * 40}"}
            )
        return self.answer({"error": "unknown"}, 404)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploads[self.path.rsplit("/", 1)[1]] = content
        self.answer({})

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
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.uploads, server.requests, server.private = {}, {}, [], None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_push_sends_every_file_that_a_download_needs(saved, hub, monkeypatch):
    # Plain HTTP: the storage that replaces it speaks a protocol of its own
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    api = HfApi(endpoint=f"http://127.0.0.1:{hub.server_port}", token="hf_test")
    report = push(saved, "org/tiny", private=True, api=api)
    assert hub.private is True
    assert {file["name"] for file in report["files"]} == set(hub.files)
    for file in report["files"]:
        assert hashlib.sha256(hub.files[file["name"]]).hexdigest() == file["sha256"]
    assert {"README.md", "config.json", "model.safetensors", "modeling_litelvlm.py", "handler.py"} <= set(hub.files)
    assert "guide_tokenizer/tokenizer.json" in hub.files and ".cache/private.json" not in hub.files


def test_dry_run_lists_and_sends_nothing(saved, hub, capsys):
    assert main(["push", str(saved), "org/tiny", "--dry-run"]) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256((saved / "config.json").read_bytes()).hexdigest()
    assert f"{digest}  {(saved / 'config.json').stat().st_size}  config.json" in out
    assert "would go to org/tiny" in out
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "holds no config.json"),
        ("modeling_litelvlm.py", "lacks code that config.json names: modeling_litelvlm.py"),
        ("model.safetensors", "lacks weights: model.safetensors"),
        ("README.md", "has no README.md; `litelvlm card` writes it"),
    ],
)
def test_folder_that_would_not_load_is_refused(saved, name, message, capsys):
    hidden = saved.parent / name
    (saved / name).rename(hidden)
    try:
        assert main(["push", str(saved), "org/tiny", "--dry-run"]) == 2
    finally:
        hidden.rename(saved / name)
    assert message in capsys.readouterr().err


def test_card_without_a_licence_is_refused(saved, tmp_path):
    content = (saved / "README.md").read_text(encoding="utf-8")
    (saved / "README.md").write_text(content.replace("license: apache-2.0\n", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="names no `license`"):
        push(saved, "org/tiny", dry_run=True)
    (saved / "README.md").write_text(content, encoding="utf-8")
