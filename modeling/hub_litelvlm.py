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
"""A Hub repository: how it is reached, and the code in it, by which a saved folder loads without this package."""

import inspect
import os
import re
from pathlib import Path
from typing import Any

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from .mask_decoder_litelvlm import LiteLVLMMaskDecoder
from .pipeline_litelvlm import ReferringSegmentationPipeline

# Options of `from_pretrained`: how to reach the Hub, and which files of one repository to read
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
LOADING_OPTIONS = (*HUB_OPTIONS, "code_revision", "revision", "subfolder", "trust_remote_code")

# Transformers fetches a file of a repository only if another one imports it, and no model needs its pipeline, nor the
# decoder of PaliGemma's masks
_EVERYWHERE = (LiteLVLMConfig, LiteLVLMMaskDecoder, ReferringSegmentationPipeline)


def export_code(directory: str | os.PathLike) -> list[str]:
    """
    Copies the modules of a Hub repository into one folder, with imports made flat: Transformers copies only modules
    that stand beside each other. Works from the package and from code that was itself loaded from such a folder.

    Args:
        directory (`str` or `os.PathLike`): an existing folder, such as the one a model has just been saved into.

    Returns:
        `list[str]`: the paths written.
    """
    folders = sorted({Path(inspect.getfile(member)).parent for member in _EVERYWHERE})
    written = []
    for source in (path for folder in folders for path in sorted(folder.glob("*_litelvlm.py"))):
        code = re.sub(r"from \.\.\w+\.(\w+) import", r"from .\1 import", source.read_text(encoding="utf-8"))
        target = Path(directory) / source.name
        target.write_text(code, encoding="utf-8")
        written.append(str(target))
    return written


def check_is_name(argument: str, value: Any) -> None:
    """Raises a `ValueError` for what is neither a Hub id nor a folder, such as a model that is loaded."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"`{argument}` is a {type(value).__name__}; allowed is a Hub id or a folder, by name.")


__all__ = ["HUB_OPTIONS", "LOADING_OPTIONS", "check_is_name", "export_code"]
