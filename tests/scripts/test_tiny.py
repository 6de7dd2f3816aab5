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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from litelvlm.data.refshapes import SHAPES, RefShapes

SCRIPTS = Path(__file__).parents[2] / "scripts" / "tiny"
MODULES = ("conversations", "patch_dropout", "pointing", "recipe", "samples", "train", "untrained")
MODULES += tuple(f"stage_{name}" for name in ("clip", "dropout", "guide", "lvlm", "sam"))


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
    defaults |= {"optimizer": "adamw", "reversal_weight": 1.0, "whole_scenes": False}
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


@pytest.mark.parametrize("position_mode", [None, "consecutive", "original"])
def test_looking_loss_is_of_the_attention_that_the_model_has(whole, training, position_mode):
    """Un-pruned, and with patches missing, out of order and at either positions."""
    probed, _, batch = whole
    model = probed.lvlm.eval()
    language_model = model.model.backbone.language_model
    language_model.set_attn_implementation("eager")
    if position_mode is not None:
        kept = np.stack([np.random.default_rng(i).permutation(256)[:100] for i in range(6)])
        batch = batch | {"kept": torch.from_numpy(kept), "position_mode": position_mode}
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    asked = {"output_hidden_states": True, "output_attentions": True} | probed.retain(batch)
    with torch.no_grad():
        output = model(**prompt, **asked)
        seen = training.pointing.as_seen(batch, output, model.config)
        is_patch = seen["is_patch"]
        for name, layer in training.pointing.POINTED.items():
            tokens, patches = seen[f"{name}_tokens"], seen[f"{name}_patches"]
            hidden = output.hidden_states[layer]
            loss = training.pointing.looking_loss(language_model, layer, hidden, seen, tokens, patches)
            is_somewhere = patches[:, -1] == 0
            sample, position = tokens[is_somewhere].T
            paid = output.attentions[layer][sample, 0, position][is_patch[sample]].view(len(sample), -1)
            torch.testing.assert_close(
                loss, -(paid.log() * patches[is_somewhere, :-1]).sum(-1).mean(), atol=1e-4, rtol=1e-4
            )
    language_model.set_attn_implementation("sdpa")


def test_what_is_left_of_what_a_token_means_is_looked_for_where_it_now_stands(whole, training):
    probed, _, batch = whole
    kept = torch.stack(
        [torch.from_numpy(training.patch_dropout.random_patches(np.random.default_rng(i), 57)) for i in range(6)]
    )
    pruned = batch | {"kept": kept, "position_mode": "consecutive"}
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        output = probed.lvlm(**prompt, **probed.retain(pruned))
    seen = training.pointing.as_seen(pruned, output, probed.lvlm.config)
    assert torch.equal(output.retained_indices, kept)
    now = batch["input_ids"].gather(1, output.source_positions)
    left = {name: [tuple(token) for token in seen[f"{name}_tokens"].tolist()] for name in training.pointing.POINTED}
    for name, positions in left.items():
        patches, before = seen[f"{name}_patches"], batch[f"{name}_patches"]
        assert patches.shape == (len(positions), 58) and 0 < len(positions) <= len(before)
        torch.testing.assert_close(patches.sum(-1), torch.ones(len(positions)))
        # "Nowhere" stays nowhere, and what lost nearly all of its patches is not asked for
        assert (patches[:, -1] > 0).sum() == (before[:, -1] > 0).sum()
    words = {now[token].item() for token in left["mention"]}
    assert words <= {batch["input_ids"][i, j].item() for i, j in batch["mention_tokens"].tolist()}
    sample, position = seen["predicting"].T
    assert (now[sample, position + 1] == probed.lvlm.config.seg_token_id).all()


@pytest.mark.parametrize("budget", [20, 85, 255])
def test_patches_that_stay_are_drawn_at_random_each_once(training, budget):
    drawn = [training.patch_dropout.random_patches(np.random.default_rng(i), budget) for i in range(60)]
    assert all(len(set(kept.tolist())) == budget and kept.min() >= 0 and kept.max() < 256 for kept in drawn)
    in_order = [(np.diff(kept) > 0).all() for kept in drawn]
    assert any(in_order) and not all(in_order)
    counts = np.bincount(np.concatenate(drawn), minlength=256)
    assert (counts > 0).mean() > 0.95


def test_whole_images_are_in_raster_order_and_no_pruning_method_has_a_part_in_them(training):
    drawn = [training.patch_dropout.random_dropout(np.random.default_rng(i), 3) for i in range(200)]
    whole = [batch for batch in drawn if not batch]
    assert 40 < len(whole) < 100
    assert {batch["kept"].shape[1] for batch in drawn if batch} == set(training.patch_dropout.BUDGETS)
    assert max(training.patch_dropout.BUDGETS) < 256


def test_the_guide_learns_and_what_the_language_model_sees_stays_bit_for_bit(training, options, tmp_path):
    model, processor = training.untrained.untrained_lvlm(options)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "finish" / "model")
    given = Namespace(**vars(options) | {"output": tmp_path, "steps": 1, "batch_size": 4})
    training.stage_guide.train_guide(given)
    trained = type(model).from_pretrained(tmp_path / "guide" / "model")
    scenes = RefShapes("val", 2, size=128)
    pixels = training.samples.clip_pixels([scenes[0], scenes[1]])
    with torch.no_grad():
        before, after = (m.get_image_features(pixels).pooler_output for m in (model.eval(), trained))
    assert torch.equal(torch.stack(tuple(before)), torch.stack(tuple(after)))
    assert not torch.equal(trained.model.guide.visual_projection.weight, model.model.guide.visual_projection.weight)


def test_reversal_lowers_the_similarity_of_what_a_text_names(training, options):
    model, processor = training.untrained.untrained_lvlm(options)
    clip = training.stage_guide.begun_anew(model, processor.guide_tokenizer, seed=0)
    learner = training.stage_guide.ReversedClip(clip, reversal_weight=1.0)
    scenes = RefShapes("trainC", 8, size=128)
    batch = training.stage_guide.guide_collate(processor.guide_tokenizer)(
        [scenes[i] for i in range(8)], np.random.default_rng(0)
    )
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        figures = learner(batch)
        figures["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(figures["reversal_loss"].item())
    assert losses[-1] < losses[0] - 0.2
    with torch.no_grad():
        output = clip(pixel_values=batch["pixel_values"], input_ids=batch["input_ids"], output_hidden_states=True)
        similarity = training.stage_guide.patch_similarity(
            clip, output.vision_model_output.hidden_states, batch["asked"], output.text_embeds[24:]
        )
    # Of the named object's patches lower than of the image
    assert ((similarity * batch["patches"]).sum(-1) < similarity.mean(-1)).float().mean() > 0.7


def test_captions_are_made_wrong_where_every_combination_is_there(training):
    objects = RefShapes("testS", 1)[0].objects
    sizes, textures = ("small", "medium", "large"), ("plain", "striped", "dotted", "checkered")
    every = tuple(replace(objects[0], size=s, texture=t) for s in sizes for t in textures)
    described = [{"size": "small", "texture": "plain"}]
    wrong = training.stage_clip.made_wrong(np.random.default_rng(0), every, described)
    assert not any(all(getattr(thing, n) == v for n, v in wrong[0].items()) for thing in every)


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


def run_command(training, monkeypatch, *arguments):
    """What each stage is given by the command, in the order in which they run."""
    ran = []
    stages = {
        name: (lambda options, name=name: ran.append((name, options)), *settings)
        for name, (_, *settings) in training.train.STAGES.items()
    }
    monkeypatch.setattr(training.train, "STAGES", stages)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    training.train.main()
    return ran


def test_one_command_runs_all_stages_in_order_each_with_its_own_settings(training, monkeypatch, tmp_path):
    ran = run_command(training, monkeypatch, "--output", str(tmp_path / "runs"), "--steps", "7")
    assert [name for name, _ in ran] == ["see", "clip", "sam", "lvlm", "finish", "guide", "dropout"]
    by_name = dict(ran)
    assert {options.steps for options in by_name.values()} == {7}
    assert (by_name["clip"].batch_size, by_name["guide"].batch_size) == (48, 32)
    assert (by_name["see"].optimizer, by_name["dropout"].optimizer) == ("muon", "adamw")


def test_stages_that_are_named_run_alone_and_unknown_ones_not_at_all(training, monkeypatch, tmp_path, capsys):
    ran = run_command(training, monkeypatch, "guide", "dropout", "--output", str(tmp_path))
    assert [name for name, _ in ran] == ["guide", "dropout"]
    with pytest.raises(SystemExit):
        run_command(training, monkeypatch, "guide", "masks", "--output", str(tmp_path))
    assert "unknown stages masks" in capsys.readouterr().err
