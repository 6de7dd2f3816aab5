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
"""The training of the embedded model: it points at what is meant, begins as it says, and resumes to the step."""

import importlib
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from litelvlm.data.refshapes import SHAPES, RefShapes

SCRIPTS = Path(__file__).parents[2] / "scripts" / "tiny"
MODULES = ("conversations", "pointing", "recipe", "samples", "stage_clip", "stage_lvlm", "stage_sam", "untrained")


@pytest.fixture(scope="module")
def training():
    """The files of the training, by their names."""
    sys.path.insert(0, str(SCRIPTS))
    yield Namespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(SCRIPTS))
    AcceleratorState._reset_state()  # of the training's precision


@pytest.fixture(scope="module")
def options(training, tmp_path_factory):
    output = tmp_path_factory.mktemp("training")
    defaults = {"lr": 1e-3, "batch_size": 2, "warmup": 2, "seed": 0, "workers": 0, "mixed_precision": "no"}
    given = Namespace(output=output, every=2, time_limit=float("inf"), steps=4, **defaults)
    training.untrained.build_tokenizers(given)
    return given


@pytest.fixture(scope="module")
def whole(training, options):
    """The untrained model with its probes, its processor, and a batch of scenes with every kind of expression."""
    model, processor = training.untrained.untrained_lvlm(options)
    scenes = RefShapes("trainC", 100, size=128, max_expressions=6)
    batch = training.conversations.lvlm_collate(processor)([scenes[i] for i in range(6)], np.random.default_rng(0))
    return training.stage_lvlm.WithPointers(model), processor, batch


def test_mentions_are_noun_phrases_with_all_that_they_fit(training):
    scenes = RefShapes("trainC", 60)
    for sample in (scenes[i] for i in range(60)):
        for expression in sample.expressions:
            found = training.conversations.mentions(expression.text, sample.objects)
            assert found, expression.text
            # The phrase itself comes first, and fits whatever is meant
            assert set(expression.targets) <= set(found[0][1]), expression.text
            if expression.kind in ("relation", "relations"):
                assert [len(fitting) for _, fitting in found[1:]] == [1] * (len(found) - 1), expression.text
                assert len(found) == (2 if expression.kind == "relation" else 3)


def test_tokens_that_point_are_the_ends_of_phrases_and_what_follows_them(whole):
    _, processor, batch = whole

    def words(name):
        return [
            processor.tokenizer.decode(batch["input_ids"][i, j]).strip() for i, j in batch[f"{name}_tokens"].tolist()
        ]

    shapes = {*SHAPES, "object"}
    assert {word.removesuffix("s") for word in words("mention") if word != "crosses"} <= shapes | {"cros"}
    assert len(words("resolved")) < len(words("answer"))
    # Each token that predicts [SEG] is among them
    pointing = set(map(tuple, batch["answer_tokens"].tolist()))
    seg = processor.tokenizer.convert_tokens_to_ids("[SEG]")
    predicting = (batch["input_ids"][:, 1:] == seg).nonzero().tolist()
    assert predicting and set(map(tuple, predicting)) <= pointing
    assert len(predicting) == len(batch["seg_patches"])


def test_looking_loss_is_of_the_attention_that_the_model_has(whole, training):
    probed, _, batch = whole
    model = probed.lvlm.eval()
    language_model = model.model.backbone.language_model
    language_model.set_attn_implementation("eager")
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    asked = {"output_hidden_states": True, "output_attentions": True, "pruning_method": "none"}
    with torch.no_grad():
        output = model(**prompt, **asked)
        is_patch = batch["input_ids"] == model.config.image_token_id
        for name, layer in training.pointing.POINTED.items():
            tokens, patches = batch[f"{name}_tokens"], batch[f"{name}_patches"]
            hidden = output.hidden_states[layer]
            loss = training.pointing.looking_loss(language_model, layer, hidden, batch, tokens, patches, is_patch)
            is_somewhere = patches[:, -1] == 0
            sample, position = tokens[is_somewhere].T
            paid = output.attentions[layer][sample, 0, position][is_patch[sample]].view(len(sample), -1)
            torch.testing.assert_close(
                loss, -(paid.log() * patches[is_somewhere, :-1]).sum(-1).mean(), atol=1e-4, rtol=1e-4
            )
    language_model.set_attn_implementation("sdpa")


def test_with_masks_each_loss_counts_once(whole):
    probed, _, batch = whole
    probed.masks = True
    with torch.no_grad():
        losses = probed(batch)
    probed.masks = False
    config = probed.lvlm.config
    masks = config.bce_loss_weight * losses["bce_loss"] + config.dice_loss_weight * losses["dice_loss"]
    names = ("mention_loss", "resolved_loss", "answer_loss", "embedding_loss")
    names += ("mention_looking_loss", "resolved_looking_loss", "answer_looking_loss")
    expected = config.ce_loss_weight * losses["ce_loss"] + masks + 0.3 * sum(losses[name] for name in names)
    torch.testing.assert_close(losses["loss"], expected)


def test_heads_of_clip_begin_with_attention_to_near_patches(training, options):
    clip, _ = training.untrained.untrained_clip(options)
    scenes = RefShapes("trainC", 2, size=128)
    pixels = training.samples.clip_pixels([scenes[0]])
    with torch.no_grad():
        attention = clip.vision_model(pixels, output_attentions=True).attentions[0][0, :, 1:, 1:]
    side = training.recipe.IMAGE_SIZE // training.recipe.PATCH_SIZE
    inner = [row * side + column for row in range(3, side - 3) for column in range(3, side - 3)]
    best = attention[:, inner].argmax(-1)  # [heads, patches]
    own = torch.tensor(inner)
    offsets = torch.stack([best % side - own % side, best // side - own // side], dim=-1)
    near = (offsets.abs() <= 2).all(-1).float().mean(-1)
    assert (near > 0.9).all(), near
    # Each head has an offset of its own choice, the same for nearly every patch
    usual = offsets.mode(dim=1).values[:, None]
    assert ((offsets == usual).all(-1).float().mean(-1) > 0.8).all()


def test_auroc_is_high_where_similarity_finds_the_object_and_judges_no_patch_in_between(training):
    covered = torch.tensor([[1.0, 0.8, 0.3, 0.0, 0.0], [1.0, 0.8, 0.3, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0, 0.0]])
    # The third image has no patch on the object; of a patch that is covered by less than half nothing is known
    similarity = torch.tensor([[3.0, 2.0, 9.0, 1.0, 0.0], [3.0, 0.5, 0.0, 1.0, 0.0], [0.0, 9.0, 0.0, 0.0, 0.0]])
    assert training.stage_clip.aurocs(similarity, covered) == [1.0, 0.75]


def test_a_stopped_stage_goes_on_as_if_it_had_not_stopped(training, options, tmp_path):
    through = Namespace(**vars(options))
    training.stage_sam.train_sam(through)
    stopped = Namespace(**vars(options) | {"time_limit": 0.0})
    stopped.output = tmp_path
    for _ in range(3):
        with pytest.raises(SystemExit, match="run again to go on"):
            training.stage_sam.train_sam(stopped)
    training.stage_sam.train_sam(stopped)
    one, other = (
        torch.load(output / "sam" / "checkpoint.pt", weights_only=True) for output in (through.output, tmp_path)
    )
    assert one["step"] == other["step"] == 4
    for name, value in one["model"].items():
        torch.testing.assert_close(value, other["model"][name], atol=1e-6, rtol=1e-5)
