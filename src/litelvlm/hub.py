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
"""Folders and Hub ids: whether they are to be had, before a library tries many times, and how they are published."""

import re
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id

# In messages names stand in quotes, as `repr` writes them
_QUOTED_PATH = re.compile(r"""(["'])(?:/|~|[A-Za-z]:[\\/]|\\\\).*?\1""")


def check_reachable(name: str | Path, repo_type: str = "model") -> None:
    """
    Asks the Hub once for what is no folder here: loading itself tries for half a minute, and does not say what to do.

    Args:
        name: a folder, or a Hub id.
        repo_type (`str`): `"model"`, which may be in the cache too, or `"dataset"`, which is streamed.

    Raises:
        ValueError: it is neither here nor to be had from the Hub.
    """
    name = str(name)
    if Path(name).exists():
        return
    if name.startswith((".", "~", "/")) or name.endswith("/") or "\\" in name or name.count("/") > 1:
        raise ValueError(f"There is no folder {name!r}; name one that is there, or a Hub id, ORG/NAME.")
    if not is_hub_id(name):
        raise ValueError(f"{name!r} is no folder here, and has not the form of a Hub id, ORG/NAME; check the name.")
    cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "snapshots")
    if repo_type == "model" and cached.is_dir():
        return
    try:
        HfApi().repo_info(name, repo_type=repo_type, timeout=10)
    except RepositoryNotFoundError:
        reason = "and the Hub does not show it; check the name, or set HF_TOKEN where it is private"
    except OfflineModeIsEnabled:
        reason = "nor in the cache, and HF_HUB_OFFLINE is set; unset it, or name a local folder"
    except Exception as error:  # the libraries behind `huggingface_hub` differ between its versions
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = (
            f"and the Hub ({constants.ENDPOINT}) cannot be asked for it ({cause}); name a local folder, or look at "
            "the network, HF_ENDPOINT and HF_TOKEN"
        )
    else:
        return
    raise ValueError(f"{name!r} is no folder here, {reason}.")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a Hub id."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_hub_id(name: str) -> None:
    """Raises a `ValueError` that says what form a Hub id has, where a name has another."""
    if not is_hub_id(name):
        raise ValueError(
            f"{name!r} has not the form of a Hub id; allowed is ORG/NAME or NAME, of up to 96 letters, digits, '-', "
            "'_' and '.'."
        )


def public_name(name: str | Path) -> str:
    """A Hub id or OpenCLIP's name as it is, and of a folder or file its last part: what is written is published."""
    scheme, _, place = str(name).rpartition(":")
    architecture, slash, weights = place.partition("/")
    if scheme == "open_clip" and Path(weights).exists():
        return f"open_clip:{architecture}{slash}{Path(weights).name}"
    if scheme == "local-dir":
        return f"local-dir:{Path(place).resolve().name}"
    # Of a model that was not loaded the name is empty, which as a path is this folder
    return Path(name).resolve().name if str(name) and Path(name).exists() else str(name)


def public_message(message: str) -> str:
    """A message in which an absolute path is the name of its file or folder alone: what is written is published."""
    return _QUOTED_PATH.sub(lambda path: repr(re.split(r"[/\\]", path[0][1:-1].rstrip("/\\"))[-1]), message)


__all__ = ["check_hub_id", "check_reachable", "is_hub_id", "public_message", "public_name"]
