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
"""Boxes and masks in PaliGemma's answers, and what is said of those that are none."""

import pytest
import torch

from litelvlm.modeling.locations_litelvlm import read_locations

SIZE = (100, 400)  # height, width
BOX = "<loc0256><loc0512><loc0768><loc1023>"
CODES = "".join(f"<seg{code:03}>" for code in range(0, 128, 8))


def test_boxes_are_pixels_of_the_image_and_codes_numbers():
    answer = f"{BOX} a cat ; <loc0000><loc0000><loc0512><loc0256>{CODES} dog;{BOX}"
    cat, dog, unnamed = read_locations(answer, SIZE)
    assert cat == {"label": "a cat", "box": [200, 25, 400, 75], "codes": None, "reason": None}
    assert dog == {"label": "dog", "box": [0, 0, 100, 50], "codes": list(range(0, 128, 8)), "reason": None}
    assert unnamed == cat | {"label": ""}


@pytest.mark.parametrize("answer", ["", "no", "a dog ; <b>two</b> cats", "loc0001 seg001", "<loc1><seg1>"])
def test_answers_without_tokens_name_no_object(answer):
    assert read_locations(answer, SIZE) == []


@pytest.mark.parametrize(
    ("answer", "box", "has_codes", "reason"),
    [
        ("<loc0001><loc0002> cat", None, False, "2 <loc> in a row, where a box has 4"),
        (f"{BOX}<loc0001> cat", None, False, "5 <loc> in a row, where a box has 4"),
        (f"{CODES} cat", None, True, "0 <loc> in a row, where a box has 4"),
        (f"{BOX}{CODES[:-8]} cat", [200, 25, 400, 75], False, "15 <seg> in a row, where a mask has 16"),
        ("<loc0256><loc0512><loc0256><loc1023> cat", None, False, "the box covers no pixel"),
        ("<loc0768><loc0512><loc0256><loc1023> cat", None, False, "the box covers no pixel"),
        ("<loc0001><loc0002><loc0003><loc1024> cat", None, False, "<loc> of 1024, where the last is 1023"),
        (f"{BOX}{'<seg128>' * 16} cat", [200, 25, 400, 75], False, "<seg> of 128, where the last is 127"),
        (
            "<loc0001><seg001> cat",
            None,
            False,
            "1 <loc> in a row, where a box has 4; 1 <seg> in a row, where a mask has 16",
        ),
    ],
)
def test_tokens_that_are_no_box_or_no_mask_are_told_with_what_is_right(answer, box, has_codes, reason):
    (found,) = read_locations(answer, SIZE)
    assert found["label"] == "cat" and found["box"] == box and (found["codes"] is not None) == has_codes
    assert found["reason"] == reason


def test_processor_reads_the_answers_of_a_batch_each_in_its_image(processor):
    processor.tokenizer.add_tokens([f"<loc{i:04}>" for i in range(1024)])
    inputs = processor(text=["where?", "and where?"])
    answers = processor.tokenizer([f"{BOX} a cat", "nowhere"], padding=True, padding_side="right", return_tensors="pt")
    sequences = torch.cat([inputs["input_ids"], answers["input_ids"]], dim=1)
    found, nothing = processor.post_process_locations(sequences, inputs, [SIZE, (10, 10)])
    assert [(entry["label"], entry["box"]) for entry in found] == [("a cat", [200, 25, 400, 75])] and nothing == []
    with pytest.raises(ValueError, match="There are 2 answers and 1 `target_sizes`"):
        processor.post_process_locations(sequences, inputs, [SIZE])
