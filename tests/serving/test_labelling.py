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
"""Labelling tools: predictions as Label Studio's own SDK reads them, and as X-AnyLabeling's server documents them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from litelvlm import EXAMPLE_IMAGE
from litelvlm.data.masks import draw_labelme_shape
from litelvlm.serving import x_anylabeling

TEXTS = ["the red circle", "the green star"]
CONFIG = """
<View>
  <Image name="photo" value="$image"/>
  <BrushLabels name="brush" toName="photo">
    <Label value="Circle" predicted_values="the red circle"/>
    <Label value="the green star"/>
  </BrushLabels>
  <PolygonLabels name="polygon" toName="photo">
    <Label value="Shape" predicted_values="the red circle, the green star"/>
  </PolygonLabels>
  <Choices name="quality" toName="photo"><Choice value="good"/></Choices>
</View>
"""
TASK = {"id": 7, "data": {"image": "/data/upload/1/example.png"}}


@pytest.fixture(scope="module")
def expected(embedded):
    """The mask of each text, as the package finds it."""
    model, processor = embedded
    inputs = processor(images=EXAMPLE_IMAGE, text=TEXTS)
    output = model.segment(**inputs, max_new_tokens=32)
    found = processor.post_process_instance_segmentation(output, inputs)
    return dict(zip(TEXTS, (entries[0]["mask"].numpy() for entries in found), strict=True))


@pytest.fixture
def label_studio():
    """The SDK's parts that read what we write."""
    pytest.importorskip("label_studio_sdk")
    from label_studio_sdk.converter.brush import decode_from_annotation
    from label_studio_sdk.label_interface import LabelInterface

    from litelvlm.serving import label_studio

    return label_studio.predict, LabelInterface, decode_from_annotation


def locate(task, url):
    assert task["id"] == TASK["id"] and url == TASK["data"]["image"]
    return EXAMPLE_IMAGE


def draw(points, size):
    """A polygon in percent, filled as a canvas does: a pixel is inside if its centre is."""
    scale = 8  # centres of pixels, and no rounding
    image = Image.new("1", (size[1] * scale, size[0] * scale))
    corners = [(x * size[1] * scale / 100, y * size[0] * scale / 100) for x, y in points]
    ImageDraw.Draw(image).polygon(corners, fill=1)
    return np.asarray(image)[scale // 2 :: scale, scale // 2 :: scale]


def test_label_studio_reads_the_masks_that_the_package_finds(embedded, expected, label_studio):
    predict, interface_of, decode_from_annotation = label_studio
    interface = interface_of(CONFIG)
    (prediction,) = predict(*embedded, interface, [TASK], locate, max_new_tokens=32)
    assert interface.validate_prediction(prediction.model_dump(), return_errors=True) == []
    regions = prediction.result
    assert len({region["id"] for region in regions}) == len(regions) == 4
    assert prediction.score == min(region["score"] for region in regions) > 0.5
    exported = [{**region, **region["value"]} for region in regions]  # as the SDK's converter has them
    brushes = decode_from_annotation("brush", exported)
    assert set(brushes) == {"brush-Circle-0", "brush-the green star-0"}
    assert np.array_equal(brushes["brush-Circle-0"] == 255, expected["the red circle"])
    assert np.array_equal(brushes["brush-the green star-0"] == 255, expected["the green star"])
    polygons = [region for region in regions if region["type"] == "polygonlabels"]
    for region, mask in zip(polygons, expected.values(), strict=True):
        assert region["value"]["polygonlabels"] == ["Shape"] and region["value"]["closed"]
        drawn = draw(region["value"]["points"], mask.shape)
        assert np.mean(drawn != mask) < 1e-4


def test_masks_of_a_photo_lie_as_label_studio_shows_it(embedded, label_studio):
    """Upright by its EXIF data, as a browser does."""
    predict, interface_of, _ = label_studio
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = io.BytesIO()
    Image.open(EXAMPLE_IMAGE).convert("RGB").crop((0, 0, 500, 400)).save(photo, "JPEG", exif=exif)
    turned = Image.open(photo)
    (prediction,) = predict(*embedded, interface_of(CONFIG), [TASK], lambda *_: turned, answer="It is [SEG].")
    assert prediction.result
    assert {(region["original_width"], region["original_height"]) for region in prediction.result} == {(400, 500)}


def test_a_task_without_a_mask_is_an_empty_prediction(embedded, label_studio):
    predict, interface_of, _ = label_studio
    found = predict(*embedded, interface_of(CONFIG), [TASK, TASK], locate, max_new_tokens=1)
    assert [(prediction.result, prediction.score) for prediction in found] == [([], 0.0)] * 2


def test_what_label_studio_cannot_be_answered_is_named(embedded, label_studio):
    predict, interface_of, _ = label_studio
    boxes = CONFIG.replace("BrushLabels", "RectangleLabels").replace("PolygonLabels", "EllipseLabels")
    with pytest.raises(ValueError, match="no BrushLabels or PolygonLabels for an Image"):
        predict(*embedded, interface_of(boxes), [TASK], locate)
    with pytest.raises(ValueError, match="Task 8 has no 'image' in its data"):
        predict(*embedded, interface_of(CONFIG), [{"id": 8, "data": {"text": "a"}}], locate)


def test_x_anylabeling_gets_the_masks_as_polygons(embedded, expected):
    """By the table of fields in its server's user guide; what it draws is the mask."""
    image = np.asarray(Image.open(EXAMPLE_IMAGE).convert("RGB"))[..., ::-1]  # blue first
    prompt = {"text_prompt": "the red circle, the green star. the red circle", "conf_threshold": 0.2}
    answer = x_anylabeling.predict(*embedded, image, prompt, max_new_tokens=32)
    assert answer.keys() == {"shapes", "description"} and answer["description"] == ""
    fields = {"label", "shape_type", "points", "score", "description", "flags", "group_id"}
    drawn = {text: np.zeros(image.shape[:2], bool) for text in TEXTS}
    for shape in answer["shapes"]:
        assert shape.keys() == fields and shape["shape_type"] == "polygon"
        assert 0.5 < shape["score"] <= 1 and shape["group_id"] > 0 and shape["flags"] == {}
        assert len(shape["points"]) >= 3 and all(len(point) == 2 for point in shape["points"])
        drawn[shape["label"]] |= draw_labelme_shape(shape, *image.shape[:2]).astype(bool)
    for text, mask in expected.items():
        assert np.array_equal(drawn[text], mask)
    assert len({(shape["label"], shape["group_id"]) for shape in answer["shapes"]}) == 2


@pytest.mark.parametrize("params", [{}, {"text_prompt": None}, {"text_prompt": " ,. "}])
def test_x_anylabeling_without_a_text_gets_no_shapes(embedded, params):
    image = np.zeros((8, 8, 3), np.uint8)
    assert x_anylabeling.predict(*embedded, image, params) == {"shapes": [], "description": ""}
