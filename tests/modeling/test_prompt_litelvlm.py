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
"""What is delicate about a pruned prompt, without any model: positions, masks, crops and gaps."""

import pytest
import torch

from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.prompt_litelvlm import Prompt, retained_positions
from litelvlm.modeling.pruning_litelvlm import RetainedTokens

IMAGE_ID = 90
TEXT, IMAGE, PADDING = "t", "i", "p"


@pytest.fixture
def config(config_values):
    """16 patches per image; the tests below use fewer where they go around `build`."""
    return LiteLVLMConfig(**config_values)


def prompt_of(*layouts, with_mask=True):
    """A prompt of one layout per sample: "t" is a token of text, "i" a placeholder, "p" padding."""
    is_image = torch.tensor([[letter == IMAGE for letter in layout] for layout in layouts])
    mask = torch.tensor([[int(letter != PADDING) for letter in layout] for layout in layouts])
    ids = torch.arange(is_image.shape[1]).expand(is_image.shape[0], -1).masked_fill(is_image, IMAGE_ID)
    is_padded = not mask.bool().all()
    return Prompt(ids, mask if with_mask else None, None, is_image, with_mask and is_padded)


def retained(*rows):
    return RetainedTokens(torch.tensor(rows))


def reference_positions(layout, kept, length):
    """One sample in plain Python: the kept patches stand in their order where the first placeholders stood."""
    placeholders = [i for i, letter in enumerate(layout) if letter == IMAGE]
    positions, turn = [], iter(kept)
    for i, letter in enumerate(layout):
        if letter != IMAGE:
            positions.append(i)
        elif (patch := next(turn, None)) is not None:
            positions.append(placeholders[max(patch, 0)])
    return positions[-length:]


@pytest.mark.parametrize(
    ("layouts", "kept"),
    [
        (["ttiiiitt", "tiiiittt"], [[3, 1], [0, 2]]),
        (["iiiitttt", "ttttiiii"], [[2], [3]]),  # an image first, and last
        (["ttiiiitt", "ppiiiitt"], [[0, 1, 2, 3], [3, 2, 1, 0]]),  # as many as there are, in another order
        (["titititi", "iittttii"], [[-1, 2], [1, -1]]),  # placeholders apart, and tokens that are no patch
    ],
)
def test_retained_positions_equal_a_walk_through_each_sample(layouts, kept):
    prompt = prompt_of(*layouts)
    source, is_image, is_padding = retained_positions(prompt.is_image, torch.tensor(kept), 4)
    length = 8 - 4 + len(kept[0])
    assert source.tolist() == [reference_positions(*pair, length) for pair in zip(layouts, kept, strict=True)]
    assert is_image.sum(dim=-1).tolist() == [len(kept[0])] * 2
    assert is_padding is None


def test_all_that_belongs_to_dropped_patches_is_dropped(config):
    prompt = prompt_of("ttiiiitt", "ptiiiitt").keep(retained([3, 0], [1, 2]), 4, config)
    assert prompt.source_positions.tolist() == [[0, 1, 5, 2, 6, 7], [0, 1, 3, 4, 6, 7]]
    assert prompt.input_ids.tolist() == [[0, 1, IMAGE_ID, IMAGE_ID, 6, 7]] * 2
    assert prompt.attention_mask.tolist() == [[1] * 6, [0, *[1] * 5]]
    assert prompt.position_ids.tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4]]


def test_original_positions_are_those_of_the_whole_prompt(config):
    config.position_mode = "original"
    whole = prompt_of("ttiiiitt", "ptiiiitt")
    prompt = whole.keep(retained([3, 0], [1, 2]), 4, config)
    assert prompt.position_ids.tolist() == [[0, 1, 5, 2, 6, 7], [0, 0, 2, 3, 5, 6]]
    whole.position_ids = torch.arange(100, 108)[None]  # given ones are kept as they are
    assert whole.keep(retained([3, 0], [1, 2]), 4, config).position_ids[0].tolist() == [100, 101, 105, 102, 106, 107]
    assert prompt.has_gaps and prompt.mask_for_language_model(uses_cache=True) is not None  # something is padded


@pytest.mark.parametrize("position_mode", ["consecutive", "original"])
def test_a_mask_that_says_nothing_is_left_out_but_for_gaps_without_a_cache(config, position_mode):
    config.position_mode = position_mode
    prompt = prompt_of("ttiiiitt", with_mask=False).keep(retained([3, 0]), 4, config)
    assert prompt.mask_for_language_model(uses_cache=True) is None
    gaps = position_mode == "original"
    assert (prompt.mask_for_language_model(uses_cache=False) is not None) == gaps
    assert (prompt.position_ids is not None) == gaps


def test_keeping_all_changes_nothing(config):
    whole = prompt_of("ttiiiitt", "ptiiiitt")
    assert whole.keep(RetainedTokens(), 4, config) is whole
    assert whole.source_positions is None and whole.position_ids is None


def test_images_of_different_lengths_end_padded_on_the_left(config):
    """As in crops: the sample with more placeholders loses more, and shorter ones are not cut."""
    whole = prompt_of("ttiiiiiitt", "pptiiiittt")
    prompt = whole.keep(retained([5, 0], [1, 2]), [6, 4], config)
    assert prompt.source_positions[0, -6:].tolist() == [0, 1, 7, 2, 8, 9]
    assert prompt.source_positions[1].tolist() == [0, 1, 2, 4, 5, 7, 8, 9]
    assert prompt.attention_mask.tolist() == [[0, 0, *[1] * 6], [0, 0, *[1] * 6]]
    assert prompt.position_ids.tolist() == [[0, 0, 0, 1, 2, 3, 4, 5]] * 2
    assert prompt.is_padded and prompt.is_image.sum(dim=-1).tolist() == [2, 2]
    with pytest.raises((ValueError, RuntimeError), match=r"must hold \[4, 6\] image placeholders"):
        whole.keep(retained([5, 0], [1, 2]), [4, 6], config)


def test_each_of_several_images_keeps_its_first_positions_and_prompts_with_fewer_images_lose_none(config):
    whole = prompt_of("tiiiitiiiit", "pppptiiiitt")
    whole.num_images = [2, 1]
    prompt = whole.keep(retained([3, 0], [1, 2], [2, -1]), 4, config)
    # Two images drop four placeholders, one drops two: the first prompt is padded by two
    assert prompt.source_positions[0, 2:].tolist() == [0, 4, 1, 5, 7, 8, 10]
    assert prompt.source_positions[1].tolist() == [0, 1, 2, 3, 4, 7, 5, 9, 10]
    assert prompt.attention_mask.tolist() == [[0, 0, *[1] * 7], [0, 0, 0, 0, *[1] * 5]]
    assert prompt.position_ids.tolist() == [[0, 0, 0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 1, 2, 3, 4]]
    assert prompt.is_image[0].tolist() == [False] * 3 + [True] * 2 + [False] + [True] * 2 + [False]
    assert prompt.num_images == [2, 1]
    embeds = prompt.scatter(torch.zeros(2, 9, 1), torch.arange(1.0, 7.0).view(3, 2, 1))
    assert embeds[..., 0].tolist() == [[0, 0, 0, 1, 2, 0, 3, 4, 0], [0, 0, 0, 0, 0, 5, 6, 0, 0]]


def test_several_images_in_crops_may_all_have_other_lengths(config):
    whole = prompt_of("iiiitiii", "ttiiiiii")
    whole.num_images = [2, 1]
    prompt = whole.keep(retained([3, 0], [2, 0], [5, 4]), [4, 3, 6], config)
    assert prompt.source_positions[0].tolist() == [3, 0, 4, 7, 5]
    assert prompt.source_positions[1, 1:].tolist() == [0, 1, 7, 6]
    assert prompt.attention_mask.tolist() == [[1] * 5, [0, 1, 1, 1, 1]]
    with pytest.raises((ValueError, RuntimeError), match=r"must hold \[10, 3\] image placeholders .* for all of its"):
        whole.keep(retained([3, 0], [2, 0], [1, 2]), [4, 6, 3], config)


def test_tokens_that_an_image_does_not_have_are_masked(config):
    tokens = RetainedTokens(torch.tensor([[1, 2, -1], [0, -1, -1]]), is_valid=torch.tensor([[1, 1, 0], [1, 0, 0]]) > 0)
    prompt = prompt_of("tiiiitt", "tiiiitt", with_mask=False).keep(tokens, 4, config)
    assert prompt.attention_mask.tolist() == [[1, 1, 1, 0, 1, 1], [1, 1, 0, 0, 1, 1]]
    assert prompt.position_ids.tolist() == [[0, 1, 2, 2, 3, 4], [0, 1, 1, 1, 2, 3]]
    assert prompt.mask_for_language_model(uses_cache=True) is not None


def test_visual_tokens_go_where_their_placeholders_stand(config):
    prompt = prompt_of("tiiiit", "iiiitt").keep(retained([3, 0], [1, 2]), 4, config)
    embeds = prompt.scatter(torch.zeros(2, 4, 3), torch.arange(1.0, 13.0).view(2, 2, 3).double())
    assert embeds[0, :, 0].tolist() == [0, 1, 4, 0]
    assert embeds[1, :, 0].tolist() == [7, 10, 0, 0]
    assert embeds.dtype == torch.float32


def test_patches_are_found_among_tokens_dropped_inside_the_language_model():
    prompt = prompt_of("tiiiitt", "iiiittt")
    source = torch.tensor([[0, 2, 4, 5, 6], [1, 2, 4, 5, 6]])
    assert prompt.patches_at(source, num_patches=4).tolist() == [[1, 3], [1, 2]]


def test_a_prompt_must_hold_exactly_one_image_or_as_many_as_it_says(config):
    ids = torch.randint(3, IMAGE_ID, (2, 30))
    ids[:, 4:20] = IMAGE_ID
    prompt = Prompt.build(ids, torch.ones_like(ids), None, ids == IMAGE_ID, config)
    assert prompt.is_image.sum() == 32 and not prompt.is_padded
    assert Prompt.build(ids, (ids != ids[0, 0]).long(), None, ids == IMAGE_ID, config).is_padded
    for change in (ids[:, 1:5], torch.cat([ids, ids], dim=1)):
        with pytest.raises(ValueError, match="must hold 16 image placeholders"):
            Prompt.build(change, None, None, change == IMAGE_ID, config)
    several = torch.cat([ids, ids], dim=1)
    counts = torch.tensor([2, 2])
    assert Prompt.build(several, None, None, several == IMAGE_ID, config, counts).num_images == [2, 2]
    with pytest.raises(ValueError, match=r"must hold 16 image placeholders .* for each of its images"):
        Prompt.build(several, None, None, several == IMAGE_ID, config, torch.tensor([2, 1]))
    text = Prompt.build(ids[:, 20:], torch.ones(2, 10), None, None, config)
    assert text.is_image is None and text.is_padded
