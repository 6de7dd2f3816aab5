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
Each kind of checkpoint in LISA's layout, converted on a tiny random one, against plain parts put together by hand:
Transformers' CLIP and Llama, which read the official keys as they are, and segment-anything's decoder in float64.
"""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from litelvlm import LiteLVLMForSegmentation, LiteLVLMProcessor
from litelvlm.commands.main import main
from litelvlm.conversion import convert
from litelvlm.conversion.key_mappings import KEY_MAPPINGS, detect_layout
from litelvlm.conversion.presets import PRESETS
from litelvlm.conversion.weights import CheckpointReader
from litelvlm.hub_cards import TARGETS
from litelvlm.modeling.pipeline_litelvlm import ReferringSegmentationPipeline

from ..checkpoints import GOLDEN, LAYOUTS, SYSTEM, reference_ids, write_checkpoint
from . import reference_sam

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
# What each was trained to be asked, written out here once more
QUESTIONS = {
    "sesame": "Can you spot the dog in this image? If it's there, please provide the segmentation map. If not, deny "
    "and, if you see fit, mention any similar items.",
    "gsva": "Can you segment the dog in this image?",
    "lisa-plus": "Can you segment the dog separately in this image? Generate instance segmentation masks. Each "
    "countable object within the same category should have a separate mask. Ignore uncountable categories for "
    "individual masking.",
    "read": "What is the dog in this image? Please output segmentation mask.",
}
ANSWERS = {
    "sesame": "Yes, the dog is right here. Segmentation: [SEG].",
    "gsva": "Sure, they are the dog:[SEG], the cat:[REJ].",
    "lisa-plus": "Sure, they are [SEG], [SEG] and [SEG].",
    "read": "Sure, the segmentation result is [SEG].",
}


class Composition:
    """The parts of a checkpoint in its official layout, each filled by the official keys."""

    def __init__(self, source, clip):
        reader = CheckpointReader(source)
        self.weights = {key: reader.read(key).float() for key in reader.meta}
        config = json.loads((source / "config.json").read_text())
        self.vision = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32)
        self.language = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config.items() if k != "torch_dtype"})).eval()
        parts = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")
        own = {k: v for k, v in self.weights.items() if k.startswith(parts) and not k.endswith("inv_freq")}
        self.language.load_state_dict(own)
        width, hidden = self.vision.config.hidden_size, config["hidden_size"]
        self.projector = nn.Linear(width, hidden)
        if config["mm_projector_type"] == "mlp2x_gelu":
            self.projector = nn.Sequential(self.projector, nn.GELU(), nn.Linear(hidden, hidden))
        self.projector.load_state_dict(self.named("model.mm_projector."))
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, config["out_dim"]))
        self.head.load_state_dict(self.named("model.text_hidden_fcs.0."))

    def named(self, prefix):
        return {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}

    def embed(self, input_ids, pixel_values):
        """The prompt of one sample with the image in the place of its ids, all of the largest id."""
        features = self.vision(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]
        is_image = input_ids[0] == self.language.config.vocab_size
        embeds = self.language.model.embed_tokens(input_ids.masked_fill(is_image, 0))
        embeds[:, is_image] = self.projector(features)
        return embeds


class Case:
    def __init__(self, kind, folder):
        self.kind = kind
        self.source, self.clip = write_checkpoint(kind, folder)
        self.report = convert(self.source, folder / "converted", clip=self.clip, dtype="float32")
        self.folder = folder / "converted"
        self.model = LiteLVLMForSegmentation.from_pretrained(self.folder)
        self.processor = LiteLVLMProcessor.from_pretrained(self.folder)


@pytest.fixture(scope="module", params=LAYOUTS)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def relative_error(actual, expected):
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


def test_kind_is_found_out_and_every_key_mapped(case):
    assert case.report["kind"] == case.kind and KEY_MAPPINGS[case.kind].name == case.kind
    assert {entry["reason"] for entry in case.report["dropped"] if entry["key"].startswith("model.")} <= {
        "computed from the configuration"
    }
    mapped = {entry["source"] for entry in case.report["tensors"]}
    assert set(CheckpointReader(case.source).meta) <= mapped | {entry["key"] for entry in case.report["dropped"]}


@torch.no_grad()
def test_unpruned_it_is_the_plain_composition(case):
    inputs = case.processor(IMAGE, [["the dog"]], answers=[[ANSWERS[case.kind]]])
    output = case.model(**inputs, pruning_method="none")
    plain = Composition(case.source, case.clip)
    expected = plain.language.model(inputs_embeds=plain.embed(inputs["input_ids"], inputs["pixel_values"]))[0]
    assert relative_error(output.last_hidden_state, expected) < 1e-5
    # The word that conversion adds, <image>, is the last
    assert relative_error(output.logits[..., :-1], plain.language.lm_head(expected)) < 1e-5

    before = (inputs["input_ids"][0, 1:] == case.model.config.seg_token_id).nonzero()[:, 0]
    assert len(before) == ANSWERS[case.kind].count("[SEG]") == len(output.pred_masks[0])
    embeddings = plain.head(expected[0, before])
    assert relative_error(output.seg_embeddings[0], embeddings) < 1e-5
    weights = {key: value.double() for key, value in plain.named("model.visual_model.").items()}
    image = case.model.sam.encode_image(inputs["sam_pixel_values"]).double()
    decoded = copy.deepcopy(case.model.sam).double().decode_masks(embeddings.double()[None], image)[0][0]
    assert relative_error(decoded, reference_sam.decode_masks(weights, embeddings.double(), image)) < 1e-9


@torch.no_grad()
def test_unpruned_its_answer_is_that_of_the_plain_composition(case):
    inputs = case.processor(IMAGE, "the dog")
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    output = case.model.segment(**inputs, pruning_method="none", **options)
    plain = Composition(case.source, case.clip)
    embeds = plain.embed(inputs["input_ids"], inputs["pixel_values"])
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    expected = plain.language.generate(inputs_embeds=embeds, attention_mask=mask, pad_token_id=0, **options)
    assert output.sequences[:, inputs["input_ids"].shape[1] :].tolist() == expected.tolist()


def test_prompt_is_the_trained_one_token_for_token(case):
    inputs = case.processor(IMAGE, [["the dog"]], answers=[[ANSWERS[case.kind]]])
    question = QUESTIONS[case.kind]
    prompt = f"{SYSTEM} USER: <im_start><image><im_end>\n{question} ASSISTANT: {ANSWERS[case.kind]}</s>"
    expected = reference_ids(case.source, prompt, LAYOUTS[case.kind].added)
    image_token_id = case.model.config.image_token_id
    position = expected.index(image_token_id)
    expected[position : position + 1] = [image_token_id] * case.processor.num_image_tokens
    assert inputs["input_ids"][0].tolist() == expected
    assert case.processor.num_image_tokens == {"lisa": 256, "glamm": 576}[LAYOUTS[case.kind].clip]


@torch.no_grad()
def test_pruned_it_keeps_a_third_and_makes_its_masks(case):
    case.processor.check_fits(case.model.config)
    inputs = case.processor(IMAGE, "the dog")
    output = case.model.segment(**inputs, answer=ANSWERS[case.kind], processor=case.processor)
    assert output.retained_indices.shape == (1, case.processor.num_image_tokens // 3)
    (found,) = case.processor.post_process_instance_segmentation(output, inputs)
    assert [entry["mask"].shape for entry in found] == [(40, 60)] * ANSWERS[case.kind].count("[SEG]")
    assert {entry["label"] for entry in found} == {"the dog"}


def test_marks_around_an_image_follow_the_configuration(case, tmp_path):
    """A checkpoint may have been trained without them; then its tokenizer need not have them."""
    source, clip = write_checkpoint(case.kind, tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"mm_use_im_start_end": False}))
    convert(source, tmp_path / "converted", clip=clip)
    processor = LiteLVLMProcessor.from_pretrained(tmp_path / "converted")
    rendered = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    assert "USER: <image>\n" in rendered and "<im_start>" not in rendered


@pytest.mark.parametrize("token", ["<im_end>", "[SEG]", "[REJ]"])
def test_tokenizer_that_lacks_a_token_of_the_prompts_is_refused(tmp_path, token):
    source, clip = write_checkpoint("gsva", tmp_path)
    added = json.loads((source / "added_tokens.json").read_text())
    added.pop(token)
    (source / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(ValueError, match=rf"has no {token.replace('[', '.').replace(']', '.')}; name the"):
        convert(source, tmp_path / "converted", clip=clip)


@pytest.mark.parametrize("path", ["../dataset/clip-vit-large-patch14-336", "./weight/clip"])
def test_a_clip_on_another_machine_is_asked_for_by_a_relative_path_too(tmp_path, capsys, path):
    source, _ = write_checkpoint("sesame", tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vision_tower": path}))
    assert main(["convert", str(source), str(tmp_path / "converted")]) == 2
    error = capsys.readouterr().err
    assert path in error and "a folder of another machine" in error and "--clip" in error


def say(case, token):
    """Lets the model say this token first, in place of what it does say."""
    inputs = case.processor(IMAGE, "the dog")
    said = int(case.model.segment(**inputs, max_new_tokens=1).sequences[0, -1])
    token_id = case.processor.tokenizer.convert_tokens_to_ids(token)
    with torch.no_grad():
        case.model.lm_head.weight[[said, token_id]] = case.model.lm_head.weight[[token_id, said]]


@pytest.mark.parametrize("case", ["gsva"], indirect=True)
def test_rejection_is_no_mask_and_its_reason_stands_in_the_results(case, tmp_path, capsys):
    pipe = ReferringSegmentationPipeline(model=case.model, processor=case.processor)
    for token, reason in (
        ("[SEG]", None),
        ("[REJ]", "the answer rejects it, by [REJ]"),
        ("</s>", "the answer holds no [SEG]"),
    ):
        say(case, token)
        (entry,) = pipe(IMAGE, "the dog", max_new_tokens=1)
        assert entry["reason"] == reason and (entry["mask"] is None) == (reason is not None)
        assert entry["answer"] == ("" if token == "</s>" else token)
    say(case, "[REJ]")
    for part in (case.model, case.processor):
        part.save_pretrained(tmp_path / "saved")
    IMAGE.save(tmp_path / "image.png")
    asking = ["segment", str(tmp_path / "image.png"), "the dog", "--model", str(tmp_path / "saved")]
    assert main([*asking, "--max-new-tokens", "1"]) == 0
    assert "mask:   none (the answer rejects it, by [REJ])" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["gsva"], indirect=True)
@torch.no_grad()
def test_answer_with_both_has_a_mask_for_each_seg_alone(case):
    inputs = case.processor(IMAGE, "the dog, the cat, the bird")
    answer = "Sure, they are the dog:[SEG], the cat:[REJ], the bird:[SEG]."
    output = case.model.segment(**inputs, answer=answer, processor=case.processor)
    assert len(output.pred_masks[0]) == 2 and case.processor.explain_no_masks(output, inputs) == [None]
    assert "[REJ]" in case.processor.decode_answers(output, inputs)[0]


def test_what_is_left_out_of_read_is_said_as_it_is_converted(tmp_path, capsys):
    source, clip = write_checkpoint("read", tmp_path)
    assert main(["convert", str(source), str(tmp_path / "converted"), "--clip", str(clip)]) == 0
    assert "left out:     READ prompts SAM with points" in capsys.readouterr().out
    report = json.loads((tmp_path / "converted" / "conversion_report.json").read_text())
    assert "points of a similarity map" in report["left_out"]
    assert [name for name, preset in PRESETS.items() if preset.left_out is not None] == ["read"]


@pytest.mark.parametrize(
    ("name", "architecture", "kind"),
    [
        ("LISA_Plus_7b", "LISAForCausalLM", "lisa-plus"),
        ("lisa++", "LISAForCausalLM", "lisa-plus"),
        ("LISA-7B-v1", "LISAForCausalLM", "lisa"),
        ("LISA_Plus_7b/of-mine", "LISAForCausalLM", "lisa"),
        ("LISA_Plus_7b", "SESAMEForCausalLM", "sesame"),
    ],
)
def test_lisa_plus_is_told_by_its_name_where_no_class_tells(name, architecture, kind):
    keys = ["model.visual_model.image_encoder.pos_embed"]
    assert detect_layout({"architectures": [architecture]}, keys, [f"/data/lisa_plus/{name}"]).name == kind


def test_every_kind_and_every_card_is_tested_on_a_tiny_checkpoint():
    golden = {path.name.removesuffix("_tiny") for path in GOLDEN.glob("*_tiny")}
    tested = {*LAYOUTS, *golden, "llava"}  # LLaVA's in test_convert.py, as Transformers saves it
    assert set(KEY_MAPPINGS) == tested
    assert {target["kind"] for target in TARGETS.values() if target["base_model"]} == tested


def test_the_page_about_conversion_names_every_preset():
    page = (Path(__file__).parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")
    assert {kind for kind in PRESETS if f"`{kind}`" not in page} == {"lisa", "glamm"}  # in the text above its table
