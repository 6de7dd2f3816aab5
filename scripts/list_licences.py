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
Writes `docs/licences.md`: the licence of each dependency that pyproject.toml names, as its installed metadata says.

    python scripts/list_licences.py
"""

import re
from importlib.metadata import PackageMetadata, metadata, requires
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licences of dependencies

As the metadata of each package says; written by `python scripts/list_licences.py`. LiteLVLM itself is Apache-2.0.

| package | licence |
| --- | --- |
"""


def dependencies() -> list[str]:
    """Names of all packages that pyproject.toml asks for, extras included."""
    names = {
        re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") for requirement in requires("litelvlm") or []
    }
    return sorted(names - {"litelvlm"})


def licence(found: PackageMetadata) -> str:
    """An SPDX expression where there is one, else a classifier, else the first line of the text."""
    classifiers = [c.rpartition(" :: ")[2] for c in found.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (found.get("License") or "").strip().splitlines()
    return found.get("License-Expression") or ", ".join(classifiers) or (text[0] if text else "not said")


if __name__ == "__main__":
    PAGE.write_text(HEAD + "".join(f"| {name} | {licence(metadata(name))} |\n" for name in dependencies()), "utf-8")
