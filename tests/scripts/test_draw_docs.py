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
"""The images of the README and the pages."""

import runpy
import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).parents[2]


def test_images_of_the_pages_are_what_the_embedded_model_gives_today(tmp_path, monkeypatch):
    """Small files, and up to the letters' edges, which fonts draw otherwise, the same images."""
    monkeypatch.setattr(sys, "argv", ["draw_docs.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "scripts" / "draw_docs.py"), run_name="__main__")
    drawn = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    shown = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.png")}
    assert set(drawn) == shown - {Path("demo.png")}  # a browser's picture
    for name in drawn:
        assert (ROOT / "docs" / name).stat().st_size < 200_000
        shown, now = (Image.open(folder / name).convert("RGB") for folder in (ROOT / "docs", tmp_path))
        assert shown.size == now.size
        assert max(ImageStat.Stat(ImageChops.difference(shown, now)).mean) < 2, f"draw {name} anew"
