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
What holds for every input: it gives a right result, or one typed error whose message says something. Each property is
checked with few examples by the tests, and with many by scripts/fuzz.py.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.data.masks import decode_segmentation, draw_labelme_shape
from litelvlm.data.samples import IGNORED, BrokenAnnotation
from litelvlm.data.tables import load_tables
from litelvlm.modeling.images_litelvlm import load_rgb

from . import strategies


def or_none(call, *arguments, error=ValueError):
    """The result, or `None` after an error of exactly the type that is promised, with a message."""
    try:
        return call(*arguments)
    except error as found:
        assert type(found) is error and str(found).strip(), repr(found)
        return None


def segmentation_is_decoded_or_refused(case):
    *given, expected = case
    mask = check_mask(*given)
    if expected is not None:
        assert np.array_equal(mask, expected)


def check_mask(segmentation, height, width):
    """The mask of a segmentation, or `None` after an error."""
    mask = or_none(decode_segmentation, segmentation, height, width)
    if mask is not None:
        assert mask.shape == (height, width) and mask.dtype == np.uint8 and mask.max() <= 1
        # Memory that nobody wrote would differ
        assert np.array_equal(mask, decode_segmentation(segmentation, height, width))
    return mask


def labelme_shape_is_drawn_or_refused(shape):
    layer = or_none(draw_labelme_shape, shape, 8, 10)
    assert layer is None or (layer.shape == (8, 10) and layer.dtype == bool)


def coco_file_is_read_or_what_is_broken_is_named(data):
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (10, 8)).save(Path(folder) / "a.png")
        path = Path(folder) / "val.json"
        path.write_text(json.dumps(data))
        check_entries(or_none(load_tables, path, "val") or [], (10, 8))


def check_entries(entries, size):
    """Images of that width and height with their expressions, and what cannot be read is broken by name."""
    for entry in entries:
        image = or_none(entry.load_image, error=BrokenAnnotation)
        assert entry.id and entry.expressions and (image is None or image.size == size)
        for expression in entry.expressions:
            mask = or_none(expression.load_mask, error=BrokenAnnotation)
            assert mask is None or set(np.unique(mask)) <= {0, 1, IGNORED}


def image_is_read_or_refused(image):
    read = or_none(load_rgb, image)
    assert read is None or (read.mode == "RGB" and min(read.size) > 0)


_CONFIG = LiteLVLMConfig()


def budget_is_taken_or_refused_by_name(budget):
    try:
        _, resolved = _CONFIG.resolve_pruning(budget)
    except ValueError as error:
        assert "num_retained_tokens" in str(error)
    else:
        assert type(resolved) is int and 1 <= resolved <= _CONFIG.num_patches
        assert budget is None or resolved == budget


PROPERTIES = {
    segmentation_is_decoded_or_refused: strategies.segmentations(),
    labelme_shape_is_drawn_or_refused: strategies.labelme_shapes(),
    coco_file_is_read_or_what_is_broken_is_named: strategies.coco_files(),
    image_is_read_or_refused: strategies.images(),
    budget_is_taken_or_refused_by_name: strategies.BUDGETS,
}
"""Each property with what it is checked on."""
