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

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils.sha import sha_fileobj
from safetensors import SafetensorError, safe_open

from ..hub import check_hub_id
from ..modeling.damage_litelvlm import read_json

_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
    *("spiece.model", "sentencepiece.bpe.model"),
)
# What a model repository holds, beside its weights and code, which are known by the index and the configuration: a
# folder where somebody worked holds keys, optimizer states and more
PUBLISHED = (
    *("README.md", "LICENSE", "LICENSE.*", "NOTICE", "NOTICE.*", "USE_POLICY.md"),
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("model.safetensors.index.json", "conversion_report.json", "chat_template.json"),
    *("handler.py", "app.py", "requirements.txt", "*_litelvlm.py"),
    *_TOKENIZER,
    "additional_chat_templates/*.jinja",
    *(f"guide_tokenizer/{name}" for name in _TOKENIZER),
)
# Vocabularies hold all kinds of texts; these files say what a model was made of
_DESCRIPTIONS = ("*config.json", "guide_tokenizer/*config.json", "conversion_report.json")
_ABSOLUTE = re.compile(r"(?:/|~|[A-Za-z]:[\\/]|\\\\)[^/\\]*[/\\].*")
_HOME = re.compile(r"(?<![\w.])(?:/home/|/root/|/Users/|[A-Za-z]:\\Users\\)[^\s\"'`]+")
RELATIONS = ("adapter", "finetune", "merge", "quantized")


def push(folder: str | Path, repo_id: str, *, private: bool = False, dry_run: bool = False) -> dict[str, Any]:
    """
    Publishes what a model repository holds, [`PUBLISHED`], the weights and the code that the configuration names, and
    nothing else of a folder. Called again after an interruption it resumes: data that has arrived is not sent twice.

    Args:
        folder (`str` or `Path`): of a saved or converted model, with its card.
        repo_id (`str`): such as `"org/litelvlm-lisa-7b"`; made if it does not exist.
        private (`bool`): whether a new repository is private.
        dry_run (`bool`): only list what would be sent.

    Returns:
        `repo_id`, `dry_run`, `files`, each with `name`, `size` in bytes and `sha256`, and `left_out`, the names of
        what is not published (of a folder one name, with a slash).

    Raises:
        ValueError: `repo_id` is none, a file is a link out of the folder or names a path of this machine, or the
            folder would not load for others; see [`check_folder`].
        OSError: the Hub refuses, or cannot be reached.
    """
    folder = Path(folder)
    check_hub_id(repo_id)
    allowed = [*PUBLISHED, *check_folder(folder)]
    names, left_out = _list_files(folder, allowed)
    if links := [name for name in names if not (folder / name).resolve().is_relative_to(folder.resolve())]:
        raise ValueError(
            f"{str(folder)!r} holds links to files elsewhere: {', '.join(links)}; put the files themselves there, if "
            "they are to be published."
        )
    _check_private(folder, names)
    files = [{"name": name} | describe_file(folder / name) for name in names]
    if not dry_run:
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=names)
    return {"repo_id": repo_id, "dry_run": dry_run, "files": files, "left_out": left_out}


def _check_private(folder: Path, names: list[str]) -> None:
    """Nothing that is published names a folder of whoever made it."""
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in _DESCRIPTIONS):
            held = [text for text in _texts(_read_json(folder, name, "save it anew")) if _ABSOLUTE.fullmatch(text)]
        elif name == "README.md":
            held = _HOME.findall((folder / name).read_text(encoding="utf-8"))
        else:
            continue
        if held:
            raise ValueError(
                f"{_name(folder, name)} holds a path of this machine, {held[0]!r}; write a Hub id or a name in its "
                "place, as all of the file is published."
            )


def _texts(value: Any) -> Iterator[str]:
    """All texts of what JSON holds, but keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _list_files(folder: Path, allowed: list[str]) -> tuple[list[str], list[str]]:
    """Names of files to publish, and of what is left out: files, and folders of which nothing is published."""
    subfolders = {pattern.rpartition("/")[0] for pattern in allowed} - {""}
    entries = [*folder.iterdir(), *(path for name in sorted(subfolders) for path in folder.glob(f"{name}/*"))]
    names, left_out = [], []
    for path in entries:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            left_out += [] if name in subfolders else [f"{name}/"]
        elif any(fnmatchcase(name, pattern) for pattern in allowed):
            names.append(name)
        else:
            left_out.append(name)
    return sorted(names), sorted(left_out)


def check_folder(folder: str | Path, with_card: bool = True) -> list[str]:
    """
    Looks for everything that loading a model from this folder needs, without loading it.

    Returns:
        The names of its weights and of the code that its configurations name.

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
            f"{str(folder)!r} lacks the guide's tokenizer in guide_tokenizer; save the processor by `save_pretrained`."
        )
    pipelines = [pipeline["impl"] for pipeline in config.get("custom_pipelines", {}).values()]
    classes = [*config["auto_map"].values(), *processor.get("auto_map", {}).values(), *pipelines]
    code = _code_files(folder, {name.partition(".")[0] for name in classes})
    if missing := sorted(name for name in code if not (folder / name).is_file()):
        raise ValueError(f"{str(folder)!r} lacks code: {', '.join(missing)}; save the model by `save_pretrained`.")
    weights = _check_weights(folder)
    if with_card:  # which loading does not need
        _check_card(folder)
    return [*code, *weights]


def _code_files(folder: Path, modules: set[str]) -> list[str]:
    """Files of these modules, and of those that they import from beside them, whether they are there or not."""
    seen: set[str] = set()
    while modules:
        seen |= modules
        present = [folder / f"{name}.py" for name in sorted(modules) if (folder / f"{name}.py").is_file()]
        imports = (re.findall(r"^\s*from \.(\w+) import", path.read_text("utf-8"), re.MULTILINE) for path in present)
        modules = {name for names in imports for name in names} - seen
    return [f"{name}.py" for name in sorted(seen)]


def _check_weights(folder: Path) -> list[str]:
    """The names of the files of weights."""
    shards: dict[str, set[str]] = {"model.safetensors": set()}
    if (folder / "model.safetensors.index.json").is_file():
        weight_map = _read_json(folder, "model.safetensors.index.json", "save the model anew").get("weight_map", {})
        shards = {shard: {key for key, file in weight_map.items() if file == shard} for shard in weight_map.values()}
        if others := sorted(shard for shard in shards if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", shard)):
            raise ValueError(
                f"{_name(folder, 'model.safetensors.index.json')} names weights that are no safetensors file of the "
                f"folder: {', '.join(others)}; save the model anew."
            )
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
    return list(shards)


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
    return read_json(folder / name, mend)


def _name(folder: Path, file: str) -> str:
    return repr(str(folder / file))


def describe_file(path: Path) -> dict[str, Any]:
    """`size` in bytes and `sha256` of a file."""
    with open(path, "rb") as file:
        return {"size": path.stat().st_size, "sha256": sha_fileobj(file).hex()}


__all__ = ["check_folder", "describe_file", "push"]
