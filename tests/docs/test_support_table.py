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
"""The README's table of backbones says what the tests try, of every kind that they try and of no other."""

from pathlib import Path

from litelvlm.conversion.key_mappings import KEY_MAPPINGS, LLAVA_TYPES

from ..checkpoints import ADDED, LAYOUTS
from ..hosts import WITH_SEVERAL_IMAGES, WRAPPED
from ..qwen import HOSTS

ROOT = Path(__file__).parents[2]
# The first cell of each row, and the kinds of checkpoints, or types of backbones, that it stands for
ROWS = {
    "the embedded model (LLaVA, CLIP, SAM)": set(),
    "LISA, 7B and 13B": {"lisa"},
    "LISA++, a mask per object": {"lisa-plus"},
    "SESAME, which denies in words what is not there": {"sesame"},
    "GSVA, which answers [REJ] to what is not there": {"gsva"},
    "READ, without its point prompts": {"read"},
    "GLaMM": {"glamm"},
    "LLaVA-1.5, VipLLaVA, LLaVA-NeXT": {"llava", "vipllava", "llava_next"},
    "llava-interleave, LLaVA-OneVision, with SigLIP's or SigLIP 2's tower": {"llava", "llava_onevision"},
    "PaliGemma and PaliGemma 2, with SigLIP's tower": {"paligemma"},
    "Qwen2-VL, Qwen2.5-VL, with a CLIP beside their tower": {"qwen2_vl", "qwen2_5_vl"},
}
# What tests are parametrised by: of checkpoints with SAM in tests/conversion, of others in tests/modeling, where
# PaliGemma has a file of its own
WITH_MASKS = {*LAYOUTS, *ADDED}
WITH_IMAGES = {*WITH_SEVERAL_IMAGES, *WRAPPED, "paligemma"}


def read_table() -> dict[str, list[str]]:
    """The cells behind the first of each row, by the first."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| backbone | masks | text | what was tried |") + 2
    rows = [line.strip("| ").split(" | ") for line in lines[start : lines.index("", start)]]
    return {first: cells for first, *cells in rows}


def plain(text: str) -> str:
    return text.lower().replace("++", "-plus").replace(".", "-").replace("_", "-")


def test_all_that_is_tried_has_a_row_and_no_row_is_untried():
    assert list(read_table()) == list(ROWS)
    assert set().union(*ROWS.values()) == {*WITH_MASKS, *WITH_IMAGES, *HOSTS} == {*KEY_MAPPINGS, *LLAVA_TYPES}
    for first, kinds in ROWS.items():
        assert all(plain(kind) in plain(first) for kind in kinds), first


def test_a_row_promises_what_its_kinds_are_tried_with():
    for first, (masks, text, _) in read_table().items():
        kinds = ROWS[first]
        otherwise = "as `<seg>` tokens" if kinds == {"paligemma"} else "no"
        assert masks == ("yes" if kinds <= WITH_MASKS else otherwise), first
        assert text == ("yes, of several images too" if kinds and kinds <= WITH_IMAGES else "yes"), first


def test_the_page_about_lvlms_names_all_of_their_types():
    page = plain((ROOT / "docs" / "llava.md").read_text(encoding="utf-8"))
    assert [kind for kind in LLAVA_TYPES if plain(kind) not in page] == []
