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
"""The pipeline: one call, many calls, batches and streams give the same entries."""

import numpy as np
import pytest
from PIL import Image

from litelvlm.modeling.pipeline_litelvlm import ReferringSegmentationPipeline

RNG = np.random.default_rng(0)
ITEMS = [
    {"image": Image.fromarray(RNG.integers(0, 255, size, dtype=np.uint8)), "text": text}
    for size, text in [((40, 30, 3), "the dog"), ((25, 50, 3), "a red, very long bus"), ((32, 32, 3), "it")]
]


@pytest.fixture
def pipe(make_text_model, processor):
    model = make_text_model()
    model.generation_config.max_new_tokens = 4
    # A random model never says [SEG]: let the token that it does say stand for it
    inputs = processor([i["image"] for i in ITEMS], [i["text"] for i in ITEMS])
    model.config.seg_token_id = int(model.segment(**inputs).sequences[0, 0])
    return ReferringSegmentationPipeline(model=model, processor=processor)


def same(one, two) -> bool:
    """Entries with equal answers and masks; scores to 1e-4, as a batch may round another way."""
    return len(one) == len(two) and all(
        a["label"] == b["label"]
        and a["answer"] == b["answer"]
        and a["score"] == pytest.approx(b["score"], abs=1e-4)
        and (a["mask"] is b["mask"] is None or np.array_equal(a["mask"], b["mask"]))
        for a, b in zip(one, two, strict=True)
    )


def test_every_way_to_call_gives_the_same(pipe):
    single = [pipe(item["image"], item["text"]) for item in ITEMS]
    assert any(entry["mask"] is not None for entries in single for entry in entries)
    for entries, item in zip(single, ITEMS, strict=True):
        for entry in entries:
            assert entry.keys() == {"label", "score", "mask", "answer"} and entry["label"] == item["text"]
            if entry["mask"] is not None:
                assert entry["mask"].mode == "L" and entry["mask"].size == item["image"].size
                assert set(np.unique(entry["mask"])) <= {0, 255} and 0 <= entry["score"] <= 1
    ways = [
        [pipe(item) for item in ITEMS],
        pipe(ITEMS),
        pipe(ITEMS, batch_size=2),
        pipe([i["image"] for i in ITEMS], [i["text"] for i in ITEMS], batch_size=3),
    ]
    for way in ways:
        assert all(same(a, b) for a, b in zip(way, single, strict=True))


def test_a_generator_is_streamed(pipe):
    taken = []

    def items():
        for item in ITEMS * 10:
            taken.append(item)
            yield item

    results = pipe(items(), batch_size=2)
    assert same(next(iter(results)), pipe(ITEMS[0])) and len(taken) <= 4


def test_an_answer_without_seg_is_not_lost(pipe):
    pipe.model.config.seg_token_id = 0
    (entry,) = pipe(ITEMS[0])
    assert entry["mask"] is None and entry["score"] is None and isinstance(entry["answer"], str)


def test_options_reach_the_model_and_bad_input_is_named(pipe):
    with pytest.raises(ValueError, match="`num_retained_tokens` is 99"):
        pipe(ITEMS[0], num_retained_tokens=99)
    with pytest.raises(ValueError, match="without a text"):
        pipe(ITEMS[0]["image"])
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        pipe([ITEMS[0]["image"]] * 2, ["a"])
