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
"""Another engine between `encode` and `decode`: Transformers' own LLaVA, loaded from what `litelvlm export` wrote."""

import subprocess
import sys

import pytest
import torch
from transformers import LlavaForConditionalGeneration, VipLlavaForConditionalGeneration

from litelvlm import EXAMPLE_IMAGE, TINY_MODEL
from litelvlm.commands.main import main
from litelvlm.conversion import convert
from litelvlm.conversion.llava_hf import export_llava
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor
from litelvlm.serving.engines import decode, encode

from ..checkpoints import write_checkpoint

# Of different lengths, so that a batch of them is padded
TEXTS = ["the red circle", "the green star on the left of the image"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The language model of the embedded model, as another engine has it."""
    folder = tmp_path_factory.mktemp("exported") / "llava"
    assert main(["export", str(TINY_MODEL), str(folder), "--format", "llava-hf"]) == 0
    return LlavaForConditionalGeneration.from_pretrained(folder)


def answer(engine, prompts, **options):
    """The engine's answers, and the hidden states that predict their tokens."""
    output = engine.generate(
        inputs_embeds=prompts.inputs_embeds,
        attention_mask=prompts.attention_mask,
        max_new_tokens=32,
        output_hidden_states=True,
        return_dict_in_generate=True,
        **options,
    )
    return output.sequences, torch.stack([layers[-1][:, -1] for layers in output.hidden_states], dim=1)


def assert_same(output, expected):
    assert torch.equal(output.sequences, expected.sequences)
    for name in ("pred_masks", "mask_scores", "seg_embeddings"):
        for got, wanted in zip(output[name], expected[name], strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chosen", [{}, {"pruning_method": "none"}, {"num_retained_tokens": 28}], ids=str)
def test_masks_of_another_engine_are_those_of_segment(embedded, engine, chosen):
    model, processor = embedded
    inputs = processor(images=EXAMPLE_IMAGE, text=TEXTS)
    expected = model.segment(**inputs, **chosen, max_new_tokens=32)
    assert not inputs["attention_mask"].all() and all(map(len, expected.pred_masks))

    prompts = encode(model, processor, EXAMPLE_IMAGE, TEXTS, **chosen)
    output = decode(model, prompts, *answer(engine, prompts))
    assert_same(output, expected)
    found = processor.post_process_instance_segmentation(output, prompts.inputs)
    assert [entry["label"] for entries in found for entry in entries] == TEXTS
    assert processor.decode_answers(output, prompts.inputs) == processor.decode_answers(expected, inputs)


def test_prompts_without_padding_give_the_same_masks_one_by_one(embedded, engine):
    """As engines take requests; each answer has a length of its own."""
    model, processor = embedded
    prompts = encode(model, processor, EXAMPLE_IMAGE, TEXTS)
    answers, states = [], []
    for embeds in prompts.prompt_embeds:
        single = prompts.__class__(embeds[None], torch.ones(1, len(embeds)), None, None, None, None)
        ids, rows = answer(engine, single)
        answers.append(ids[0].tolist())
        states.append(rows[0].tolist())
    answers[1], states[1] = answers[1][:-1], states[1][:-1]  # without its end token, as some engines give it
    output = decode(model, prompts, answers, states)
    expected = model.segment(**processor(images=EXAMPLE_IMAGE, text=TEXTS), max_new_tokens=32)
    for got, wanted in zip(output.pred_masks, expected.pred_masks, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert processor.explain_no_masks(output, prompts.inputs) == [None, None]


def test_visual_tokens_go_where_the_one_placeholder_of_the_prompt_stands(embedded):
    model, processor = embedded
    prompts = encode(model, processor, EXAMPLE_IMAGE, TEXTS)
    assert torch.stack(prompts.visual_tokens).shape == (2, 85, 192)
    image_id, embed = model.config.image_token_id, model.get_input_embeddings()
    parts = zip(prompts.prompt_ids, prompts.visual_tokens, prompts.prompt_embeds, strict=True)
    for ids, tokens, embeds in parts:
        assert ids.count(image_id) == 1
        place = ids.index(image_id)
        texts = embed(torch.tensor(ids))
        assert torch.equal(torch.cat([texts[:place], tokens, texts[place + 1 :]]), embeds)


def test_a_method_that_keeps_fewer_tokens_of_some_images_gives_an_engine_only_those(embedded, engine):
    model, processor = embedded
    method = {"pruning_method": "prumerge-adaptive", "num_retained_tokens": 200}
    prompts = encode(model, processor, EXAMPLE_IMAGE, TEXTS, **method)
    expected = model.segment(**processor(images=EXAMPLE_IMAGE, text=TEXTS), **method, max_new_tokens=32)
    assert [len(tokens) for tokens in prompts.visual_tokens] == expected.num_retained_tokens.tolist()
    assert expected.num_retained_tokens.max() < 200
    assert_same(decode(model, prompts, *answer(engine, prompts)), expected)


def test_a_host_that_answers_in_text_only_encodes_but_decodes_nothing(make_text_model, processor, tmp_path):
    model = make_text_model(sam_config=None, seg_token_id=None)
    processor.with_masks = False
    prompts = encode(model, processor, [EXAMPLE_IMAGE] * 2, TEXTS)
    export_llava(model, processor, tmp_path / "llava")
    engine = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")
    ids, states = answer(engine, prompts, min_new_tokens=32)
    inputs = processor(images=[EXAMPLE_IMAGE] * 2, text=TEXTS)
    expected = model.generate(**inputs, max_new_tokens=32, min_new_tokens=32)
    assert torch.equal(ids, expected[:, inputs["input_ids"].shape[1] :])
    with pytest.raises(ValueError, match="has no SAM"):
        decode(model, prompts, ids, states)


@pytest.mark.parametrize(
    ("settings", "chosen", "message"),
    [
        ({}, {"pruning_method": "fastv"}, "'fastv', which prunes inside the language model, but another engine"),
        ({"position_mode": "original"}, {}, "`position_mode` is 'original', but another engine numbers"),
    ],
)
def test_what_no_other_engine_can_do_is_refused(make_text_model, processor, settings, chosen, message):
    model = make_text_model(**settings)
    with pytest.raises(ValueError, match=message):
        encode(model, processor, EXAMPLE_IMAGE, "a", **chosen)
    # Original positions are consecutive where nothing is dropped
    assert encode(model, processor, EXAMPLE_IMAGE, "a", pruning_method="none").visual_tokens[0].shape == (16, 48)


def test_states_and_answers_that_do_not_belong_together_are_refused(embedded):
    model, processor = embedded
    prompts = encode(model, processor, EXAMPLE_IMAGE, TEXTS)
    with pytest.raises(ValueError, match="There are 2 prompts, 1 `answers` and 2 `hidden_states`"):
        decode(model, prompts, [[5, 6]], torch.zeros(2, 2, 192))
    with pytest.raises(ValueError, match=r"`hidden_states\[1\]` has shape \(3, 192\); .* to be \(2, 192\)"):
        decode(model, prompts, [[5], [5, 6]], [torch.zeros(1, 192), torch.zeros(3, 192)])
    prompts.image_state = prompts.image_state.without_sam()
    with pytest.raises(ValueError, match="no image embeddings of SAM"):
        decode(model, prompts, [[5], [5]], torch.zeros(2, 1, 192))


# Reads a question about the example in each exported folder, with Transformers alone
ALONE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "litelvlm":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
image, text, *folders = sys.argv[1:]
question = [{"type": "image", "image": Image.open(image)}, {"type": "text", "text": text}]
options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
for folder in folders:
    model, processor = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template([{"role": "user", "content": question}], **options)
    words = processor.tokenizer.get_vocab()
    found = {"ids": inputs["input_ids"], "first": processor.tokenizer("a").input_ids[0], "seg": words["[SEG]"]}
    with torch.no_grad():
        torch.save(found | {"logits": model(**inputs).logits}, f"{folder}/found.pt")
"""


def test_exported_folders_are_the_models_without_pruning_where_litelvlm_is_not_installed(tmp_path):
    """LISA's projector is one layer, which a plain LLaVA has not, and its tokenizer writes no first token."""
    checkpoint, clip = write_checkpoint("lisa", tmp_path)
    convert(checkpoint, tmp_path / "converted", clip=clip, dtype="float32")
    expected = {}
    for source, name in ((TINY_MODEL, "tiny"), (tmp_path / "converted", "lisa")):
        model, processor = LiteLVLMForSegmentation.from_pretrained(source), LiteLVLMProcessor.from_pretrained(source)
        export_llava(model, processor, tmp_path / name)
        inputs = processor(images=EXAMPLE_IMAGE, text="the red circle")
        with torch.no_grad():
            names = ("input_ids", "attention_mask", "pixel_values")
            logits = model(**{name: inputs[name] for name in names}, pruning_method="none").logits
        expected[name] = {"ids": inputs["input_ids"], "logits": logits, "seg": model.config.seg_token_id}
        expected[name]["first"] = processor.tokenizer.bos_token_id

    question = processor.question_template.replace("{}", "the red circle")
    arguments = [str(EXAMPLE_IMAGE), question, *(str(tmp_path / name) for name in expected)]
    done = subprocess.run([sys.executable, "-c", ALONE, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, values in expected.items():
        found = torch.load(tmp_path / name / "found.pt")
        torch.testing.assert_close(found.pop("logits"), values.pop("logits"), atol=1e-4, rtol=1e-4)
        assert torch.equal(found.pop("ids"), values.pop("ids")) and found == values


def test_another_backbone_is_exported_as_its_own_class(make_text_model, config_values, processor, tmp_path):
    model = make_text_model()
    backbone = model.config.backbone_config.to_dict() | {"model_type": "vipllava", "vision_feature_layers": [-2, 1]}
    model = make_text_model(backbone_config=backbone)
    before = model.config.to_dict()
    report = export_llava(model, processor, tmp_path / "llava")
    assert report["architecture"] == "VipLlavaForConditionalGeneration" and model.config.to_dict() == before
    engine = VipLlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")
    inputs = processor(images=EXAMPLE_IMAGE, text="a")
    names = ("input_ids", "attention_mask", "pixel_values")
    with torch.no_grad():
        expected = model(**{name: inputs[name] for name in names}, pruning_method="none").logits
        torch.testing.assert_close(engine(**{name: inputs[name] for name in names}).logits, expected)


def test_weights_that_are_tied_stay_tied(make_text_model, config_values, processor, tmp_path):
    backbone = make_text_model().config.backbone_config.to_dict() | {"tie_word_embeddings": True}
    model = make_text_model(backbone_config=backbone)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    export_llava(model, processor, tmp_path / "llava")
    engine = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")
    assert engine.lm_head.weight is engine.get_input_embeddings().weight
    assert torch.equal(engine.lm_head.weight, model.lm_head.weight)


def test_export_says_what_it_cannot_do_before_it_loads_a_model(tmp_path, capsys):
    assert main(["export", str(TINY_MODEL), str(tmp_path / "a"), "--format", "llava"]) == 2
    assert "--format is 'llava'; allowed are 'llava-hf'. Did you mean 'llava-hf'?" in capsys.readouterr().err
    assert main(["export", str(TINY_MODEL), str(tmp_path)]) == 2
    assert "exists; name a folder that does not" in capsys.readouterr().err
