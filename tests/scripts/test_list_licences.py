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
"""The page of licences names every dependency."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_of_licences_names_every_dependency():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = project.partition("[project.scripts]")[0].partition("dependencies")[2]
    asked = re.findall(r'"([\w.-]+)(?:\[\w+\])?>=[\d.]+"', project)
    listed = re.findall(r"^\| ([\w.-]+) \| .+ \|$", (ROOT / "docs" / "licences.md").read_text("utf-8"), re.MULTILINE)
    assert len(asked) > 20
    names = {name.lower().replace("_", "-") for name in asked}
    assert names == set(listed) - {"package", "---"}, "run `python scripts/list_licences.py`"
