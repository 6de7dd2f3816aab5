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
"""A checkpoint's folder, checked for what others need to load it, and sent to the Hub."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects, validate_repo_id
from safetensors import SafetensorError, safe_open

# Hidden files and what Python compiles are nobody else's
IGNORED = (".*", "*/.*", "__pycache__/", "*/__pycache__/")
RELATIONS = ("adapter", "finetune", "merge", "quantized")


def push(folder: str | Path, repo_id: str, *, private: bool = False, dry_run: bool = False) -> dict[str, Any]:
    """
    Publishes a folder. Called again after an interruption it resumes: data that has arrived is not sent twice.

    Args:
        folder (`str` or `Path`): of a saved or converted model, with its card.
        repo_id (`str`): such as `"org/litelvlm-lisa-7b"`; made if it does not exist.
        private (`bool`): whether a new repository is private.
        dry_run (`bool`): only list what would be sent.

    Returns:
        `repo_id`, `dry_run` and `files`, each with `name`, `size` in bytes and `sha256`.

    Raises:
        ValueError: `repo_id` is none, or the folder would not load for others; see [`check_folder`].
        OSError: the Hub refuses, or cannot be reached.
    """
    folder = Path(folder)
    validate_repo_id(repo_id)
    check_folder(folder)
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = [_describe(folder, name) for name in sorted(filter_repo_objects(names, ignore_patterns=list(IGNORED)))]
    if not dry_run:
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=list(IGNORED))  # it adds to the list
    return {"repo_id": repo_id, "dry_run": dry_run, "files": files}


def check_folder(folder: str | Path, with_card: bool = True) -> None:
    """
    Looks for everything that loading a model from this folder needs, without loading it.

    Raises:
        ValueError: names what is missing or cannot be read, and how to mend it.
    """
    folder = Path(folder)
    config = _read_json(folder, "config.json", "name the folder of a saved or converted model")
    if "AutoModel" not in config.get("auto_map", {}):
        raise ValueError(f"{_name(folder, 'config.json')} has no `auto_map`; save the model by `save_pretrained`.")
    processor = _read_json(folder, "processor_config.json", "save the processor into it by `save_pretrained`")
    if not list(folder.glob("guide_tokenizer/tokenizer*")):
        raise ValueError(
            f"{str(folder)!r} lacks CLIP's tokenizer in guide_tokenizer; save the processor by `save_pretrained`."
        )
    pipelines = [pipeline["impl"] for pipeline in config.get("custom_pipelines", {}).values()]
    classes = [*config["auto_map"].values(), *processor.get("auto_map", {}).values(), *pipelines]
    if missing := _missing_code(folder, {name.partition(".")[0] for name in classes}):
        raise ValueError(f"{str(folder)!r} lacks code: {', '.join(missing)}; save the model by `save_pretrained`.")
    _check_weights(folder)
    if with_card:  # which loading does not need
        _check_card(folder)


def _missing_code(folder: Path, modules: set[str]) -> list[str]:
    """Files of these modules, and of those that they import from beside them, which are not there."""
    missing, seen = [], set()
    while modules:
        seen |= modules
        present = [folder / f"{name}.py" for name in sorted(modules) if (folder / f"{name}.py").is_file()]
        missing += [f"{name}.py" for name in sorted(modules) if not (folder / f"{name}.py").is_file()]
        imports = (re.findall(r"^\s*from \.(\w+) import", path.read_text("utf-8"), re.MULTILINE) for path in present)
        modules = {name for names in imports for name in names} - seen
    return missing


def _check_weights(folder: Path) -> None:
    shards: dict[str, set[str]] = {"model.safetensors": set()}
    if (folder / "model.safetensors.index.json").is_file():
        weight_map = _read_json(folder, "model.safetensors.index.json", "save the model anew").get("weight_map", {})
        shards = {shard: {key for key, file in weight_map.items() if file == shard} for shard in weight_map.values()}
    if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise ValueError(f"{str(folder)!r} lacks weights: {', '.join(missing)}; save or convert the model anew.")
    for shard, expected in shards.items():
        try:
            # Reads the header alone, and finds out whether the file is as long as it says
            with safe_open(folder / shard, framework="pt") as weights:
                missing = sorted(expected - set(weights.keys()))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{_name(folder, shard)} is cut off or damaged ({error}); write it anew.") from error
        if missing:
            raise ValueError(f"{_name(folder, shard)} lacks {len(missing)} tensors of the index, {missing[0]} first.")


def _check_card(folder: Path) -> None:
    """What can be told without the Hub, which looks at the metadata once more while it takes the files."""
    name = _name(folder, "README.md")
    mend = "`litelvlm card` writes one that is complete"
    if not (folder / "README.md").is_file():
        raise ValueError(f"{str(folder)!r} holds no README.md; {mend}.")
    try:
        data = ModelCard.load(folder / "README.md").data
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} has metadata that cannot be read ({reason}); {mend}.") from error
    needed = ["license", "library_name", "pipeline_tag"]
    needed += ["license_name", "license_link"] if data.get("license") == "other" else []
    if missing := [field for field in needed if not data.get(field)]:
        raise ValueError(f"{name} lacks metadata: {', '.join(missing)}; {mend}.")
    relation = data.get("base_model_relation")
    if relation is not None and relation not in RELATIONS:
        raise ValueError(f"{name} has `base_model_relation` {relation!r}; allowed are {', '.join(RELATIONS)}.")


def _read_json(folder: Path, name: str, mend: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise ValueError(f"{str(folder)!r} holds no {name}; {mend}.")
    try:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_name(folder, name)} is no JSON ({error}); {mend}.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{_name(folder, name)} holds a {type(data).__name__} and no JSON object; {mend}.")
    return data


def _name(folder: Path, file: str) -> str:
    return repr(str(folder / file))


def _describe(folder: Path, name: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    with open(folder / name, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"name": name, "size": (folder / name).stat().st_size, "sha256": digest.hexdigest()}


__all__ = ["check_folder", "push"]
