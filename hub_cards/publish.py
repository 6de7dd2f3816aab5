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
"""The folder of a checkpoint, checked and sent to the Hub."""

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard

# What a download needs; anything else in the folder, such as a cache or an editor's file, stays behind
PATTERNS = ("*.safetensors", "*.json", "*.py", "*.jinja", "*.txt", "*.model", "*.md", "*/*.json", "*/*.txt")


def check_folder(folder: str | Path) -> list[Path]:
    """
    The files to publish, after a look at whether the folder would load for others.

    Raises:
        ValueError: the first thing that is missing or cannot be read, and how to mend it.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no config.json; name the folder of a saved or converted model.")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    modules = {name.split(".")[0] for name in config.get("auto_map", {}).values()}
    if not modules:
        raise ValueError("config.json has no `auto_map`; save the model with `save_pretrained` once more.")
    missing = sorted(f"{name}.py" for name in modules if not (folder / f"{name}.py").is_file())
    if missing:
        raise ValueError(f"The folder lacks code that config.json names: {', '.join(missing)}; save the model anew.")
    index = folder / "model.safetensors.index.json"
    weights = {"model.safetensors"}
    if index.is_file():
        weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    missing = sorted(name for name in weights if not (folder / name).is_file())
    if missing:
        raise ValueError(f"The folder lacks weights: {', '.join(missing)}.")
    card = folder / "README.md"
    if not card.is_file():
        raise ValueError("The folder has no README.md; `litelvlm card` writes it.")
    try:
        data = ModelCard.load(card).data
    except Exception as error:
        raise ValueError(f"README.md has no metadata that can be read: {str(error).splitlines()[0]}") from error
    if not data.license or not data.library_name:
        raise ValueError("README.md's metadata names no `license` or no `library_name`; `litelvlm card` writes both.")
    found = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def push(
    folder: str | Path, repo_id: str, *, private: bool = False, dry_run: bool = False, api: HfApi | None = None
) -> dict[str, Any]:
    """
    Publishes a folder; what an interrupted upload has sent is not sent again.

    Args:
        folder (`str` or `Path`): of a saved or converted model, with its card.
        repo_id (`str`): such as `"org/litelvlm-lisa-7b"`; made if it does not exist.
        private (`bool`): whether a new repository is private.
        dry_run (`bool`): only list what would be sent.
        api (`HfApi`, *optional*): to talk to another server than the default.

    Returns:
        `repo_id`, `dry_run` and `files`, each with name, size in bytes and SHA-256.

    Raises:
        ValueError: the folder would not load for others.
    """
    files = check_folder(folder)
    described = [_describe(path, Path(folder)) for path in files]
    if not dry_run:
        api = api or HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        names = [entry["name"] for entry in described]
        api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=names)
    return {"repo_id": repo_id, "dry_run": dry_run, "files": described}


def _describe(path: Path, folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"name": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": digest.hexdigest()}


__all__ = ["check_folder", "push"]
