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
"""Plots draw into the axes that they are given, or into new ones, and return them."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from litelvlm.visualization import CONTEXT_COLOUR, SIMILARITY_COLOUR, plot_masks, plot_similarity, plot_tokens

matplotlib.use("agg")


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def asked(make_text_model, processor):
    """Image, model, processor, inputs, output and results."""
    model, image = make_text_model(), Image.new("RGB", (96, 64), (30, 60, 90))
    inputs = processor(image, "a dog")
    with torch.no_grad():
        output = model.segment(**inputs, answer="It is [SEG].", processor=processor)
    return image, model, processor, inputs, output, processor.post_process_instance_segmentation(output, inputs)[0]


def drawn(ax, i=0):
    return np.asarray(ax.images[i].get_array())


def test_masks_are_named_in_the_legend(asked, ax):
    image, *_, results = asked
    results = [results[0], results[0] | {"label": "a cat", "mask": torch.ones(64, 96).bool(), "score": 0.25}]
    assert plot_masks(image, results, ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()][1] == "a cat (0.25)"
    assert drawn(ax).shape == (64, 96, 3)


@pytest.mark.parametrize("kind", ["16 bits", "turned", "file"])
def test_images_of_any_kind_are_drawn_as_the_model_sees_them(asked, ax, tmp_path, kind):
    """A gradient, so that one that is cut or lies on its side differs."""
    _, model, processor, inputs, output, _ = asked
    grey = np.linspace(0, 255, 96 * 64).astype(np.uint8).reshape(64, 96)
    given = expected = Image.fromarray(np.stack([grey] * 3, axis=2))
    if kind == "16 bits":
        given = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        given.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
        given = tmp_path / "a.png" if kind == "file" else Image.open(tmp_path / "a.png")
    plots = (
        lambda one: plot_masks(one, [], ax=ax),
        lambda one: plot_tokens(one, model, processor, inputs, output, ax=ax),
        lambda one: plot_similarity(one, output.similarity[0, 0], processor, ax),
    )
    for plot in plots:
        shown = []
        for one in (given, expected):
            ax.clear()
            plot(one)
            shown.append((drawn(ax), ax.get_xlim(), ax.get_ylim()))
        np.testing.assert_array_equal(shown[0][0], shown[1][0])
        assert shown[0][1:] == shown[1][1:]


def test_no_mask_is_said(asked, ax):
    image = asked[0]
    plot_masks(image, [], ax=ax)
    assert ax.get_title() == "no mask" and (drawn(ax) == np.asarray(image)).all()


@pytest.mark.parametrize(("method", "colours"), [("litelvlm", (SIMILARITY_COLOUR, CONTEXT_COLOUR)), ("none", ())])
def test_tokens_are_blue_by_similarity_and_yellow_by_context(asked, ax, method, colours):
    image, model, processor, inputs, output, _ = asked
    if method == "none":
        with torch.no_grad():
            output = model.segment(**inputs, answer="[SEG]", processor=processor, pruning_method=method)
    assert plot_tokens(image, model, processor, inputs, output, method, ax) is ax
    assert ax.get_title() == f"{16 if method == 'none' else 6} of 16 tokens"
    # Outlines: 220 of 255 parts of the colour, the rest of the image
    edges = [np.array(c) * 220 / 255 + np.array((30, 60, 90)) * 35 / 255 for c in (SIMILARITY_COLOUR, CONTEXT_COLOUR)]
    seen = [(np.abs(drawn(ax) - edge).max(axis=-1) < 2).any() for edge in edges]
    assert seen == ([True, True] if colours else [False, True])


def test_similarity_lies_over_what_the_vision_tower_sees(asked, ax):
    image, _, processor, _, output, _ = asked
    similarity = output.similarity[0, 0]
    assert plot_similarity(image, similarity, processor, ax) is ax
    np.testing.assert_array_equal(drawn(ax, 1), similarity.view(4, 4).numpy())
    whole = processor.image_processor
    assert ax.images[1].get_extent() == ([16, 80, 64, 0] if whole.do_center_crop else [0, 96, 64, 0])
    whole.do_center_crop = not whole.do_center_crop
    plot_similarity(image, similarity, processor, ax)
    assert ax.images[3].get_extent() == ([16, 80, 64, 0] if whole.do_center_crop else [0, 96, 64, 0])


@pytest.mark.parametrize("shape", [(1, 16), (15,), ()])
def test_similarity_that_is_no_square_is_refused(asked, ax, shape):
    with pytest.raises(ValueError, match=r"allowed is one text's, \(N,\)"):
        plot_similarity(asked[0], torch.zeros(shape), asked[2], ax)


def test_axes_are_new_unless_given(asked):
    image, *_, results = asked
    first, second = plot_masks(image, results), plot_masks(image, results)
    assert first is not second and first.figure is not second.figure
    matplotlib.pyplot.close("all")
