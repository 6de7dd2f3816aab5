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
"""What mkdocs needs to know beyond mkdocs.yml: pages outside docs/, and how our docstrings write names and types."""

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Files and folders that are pages of the site as they stand; links to them work on GitHub too
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/results", "hub_cards/litelvlm-tiny.md")


def on_files(files: Files, config: Any) -> Files:
    for place in (ROOT / name for name in OUTSIDE):
        for path in [place] if place.is_file() else sorted(place.rglob("*.*")):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """In the site docs/ is the top of the tree."""
    if page.file.src_uri.startswith(OUTSIDE):
        return re.sub(r"(\]\((?:\.\./)*)docs/", r"\1", markdown)
    return markdown.replace("](../", "](")


class PlainNames(Extension):
    """Transformers' docstrings write [`Name`], and types in backticks."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            return
        text = re.sub(r"\[(`[^`]+`)\]", r"\1", obj.docstring.value)
        in_type = re.compile(r"^(\s+[\w, ]+ \()(.*?)(\):)", re.MULTILINE)
        obj.docstring.value = in_type.sub(lambda found: found[1] + found[2].replace("`", "") + found[3], text)
