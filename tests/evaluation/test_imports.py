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
"""What measures starts fast: libraries of the extra `eval` are loaded when they are used."""

import ast
from pathlib import Path

import pytest

import litelvlm

PACKAGE = Path(litelvlm.__file__).parent
FILES = sorted(path for folder in ("benchmark", "data", "evaluation") for path in (PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_optional_library_is_imported_at_module_level(path):
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    imported = {alias.name for s in statements if isinstance(s, ast.Import) for alias in s.names}
    imported |= {str(s.module) for s in statements if isinstance(s, ast.ImportFrom)}
    optional = {"matplotlib", "pandas", "sklearn", "pycocotools", "datasets", "tabulate", "scipy", "av"}
    assert not {name.partition(".")[0] for name in imported} & optional
