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
"""The processor: prompts token for token, user text as text, labels, padding, and masks in the image's frame."""

import base64
import copy
import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from litelvlm.modeling.chat_litelvlm import QUESTION_TEMPLATES
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))
ASK = "Can you segment {} in this image?"
# As LLaVA's own: a content that is one string is left out, and answers end with a space
LLAVA_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}"
    "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def decode(processor, ids) -> str:
    """The text of token ids, with the row of image tokens as one."""
    tokenizer = processor.tokenizer
    image = tokenizer.convert_tokens_to_ids("<image>")
    kept = [t for i, t in enumerate(ids) if t != image or ids[i - 1] != image]
    return tokenizer.decode([t for t in kept if t != tokenizer.pad_token_id])


def test_prompt_is_the_conversation_the_checkpoints_were_trained_with(processor):
    ids = processor(IMAGE, "the dog")["input_ids"][0].tolist()
    expected = f"<s>{SYSTEM} USER: <im_start><image><im_end>\n{ASK.format('the dog')} ASSISTANT:"
    assert decode(processor, ids) == expected
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<image>")) == processor.num_image_tokens
    assert ids.count(processor.tokenizer.bos_token_id) == 1

    turns = processor(IMAGE, [["the dog", "the cat"]], answers=[["It is [SEG].", "Sure, [SEG]."]])
    assert decode(processor, turns["input_ids"][0].tolist()) == (
        f"{expected} It is [SEG].</s>USER: {ASK.format('the cat')} ASSISTANT: Sure, [SEG].</s>"
    )


def test_an_open_last_turn_ends_with_the_generation_prompt(processor):
    inputs = processor(IMAGE, [["the dog", "the cat"]], answers=[["It is [SEG]."]])
    text = decode(processor, inputs["input_ids"][0].tolist())
    assert text.endswith(f"It is [SEG].</s>USER: {ASK.format('the cat')} ASSISTANT:") and "labels" not in inputs


def test_labels_are_the_answers_and_their_end_tokens(processor):
    inputs = processor(
        [IMAGE, IMAGE],
        [["the dog", "the cat"], ["a tree"]],
        answers=[["It is [SEG].", "Sure, [SEG]."], ["[SEG]."]],
    )
    labels, ids = inputs["labels"], inputs["input_ids"]
    assert labels.shape == ids.shape and (labels[labels >= 0] == ids[labels >= 0]).all()
    assert decode(processor, labels[0][labels[0] >= 0].tolist()) == " It is [SEG].</s> Sure, [SEG].</s>"
    assert decode(processor, labels[1][labels[1] >= 0].tolist()) == " [SEG].</s>"


@pytest.mark.parametrize("typed", ["<image>", "[SEG]", "</s>", "<s>", "<im_start>", "[seg]", "<pad>", "<|endoftext|>"])
def test_special_tokens_in_user_text_stay_text(processor, typed):
    plain, typed_ids = (processor(IMAGE, text)["input_ids"][0].tolist() for text in ("x", f"x {typed} y"))
    tokenizer = processor.tokenizer
    for token in tokenizer.added_tokens_decoder:
        assert typed_ids.count(token) == plain.count(token), tokenizer.decode([token])
    assert f"x {typed} y" in decode(processor, typed_ids)
    guide = processor(IMAGE, f"x {typed} y")["guide_input_ids"][0, 0].tolist()
    assert guide.count(processor.guide_tokenizer.eos_token_id) == 1 and guide[-1] == guide[guide.index(guide[-1])]
    assert typed in processor.guide_tokenizer.decode(guide[1:-1])


def test_sentinels_that_a_user_types_are_taken_out(processor):
    assert torch.equal(processor(IMAGE, "a\ue000b")["input_ids"], processor(IMAGE, "ab")["input_ids"])


def test_batches_are_padded_on_the_left(processor):
    inputs = processor([IMAGE] * 2, ["a", "a much longer text"])
    mask, ids = inputs["attention_mask"], inputs["input_ids"]
    assert mask[0, 0] == 0 and mask[0, -1] == 1 and mask[1].all()
    alone = processor(IMAGE, "a")["input_ids"][0]
    assert (
        torch.equal(ids[0][mask[0].bool()], alone) and (ids[0][mask[0] == 0] == processor.tokenizer.pad_token_id).all()
    )


def test_guide_texts_are_the_full_questions_with_absent_ones_masked(processor):
    inputs = processor([IMAGE] * 2, [["a", "b"], ["c"]], answers=[["A"], []])
    ids, mask = inputs["guide_input_ids"], inputs["guide_attention_mask"]
    guide = processor.guide_tokenizer
    assert ids.shape[:2] == (2, 2) and mask[1, 1].sum() == 0 and mask[0].sum(-1).min() > 0
    for row, column, text in [(0, 0, "a"), (0, 1, "b"), (1, 0, "c")]:
        visible = ids[row, column][mask[row, column].bool()].tolist()
        assert (visible[0], visible[-1]) == (guide.bos_token_id, guide.eos_token_id)
        assert guide.decode(visible[1:-1]) == ASK.format(text)
    other = processor(IMAGE, "a", guide_text="dog")
    assert guide.decode(other["guide_input_ids"][0, 0, 1:-1].tolist()) == "dog"


def test_long_guide_texts_keep_their_end_token(processor):
    ids = processor(IMAGE, "word " * 60)["guide_input_ids"]
    assert ids.shape == (1, 1, 77) and ids[0, 0, -1] == processor.guide_tokenizer.eos_token_id


def test_one_image_with_many_texts_is_prepared_once(processor):
    inputs = processor(IMAGE, ["a", "b", "c"])
    assert len(inputs["input_ids"]) == 3 and len(inputs["pixel_values"]) == len(inputs["sam_pixel_values"]) == 1


def test_images_of_different_sizes_make_one_batch(processor):
    inputs = processor([IMAGE, IMAGE.resize((64, 20))], ["a", "b"])
    assert inputs["pixel_values"].shape == (2, 3, 32, 32) and inputs["sam_pixel_values"].shape == (2, 3, 64, 64)
    assert inputs["original_sizes"].tolist() == [[40, 30], [20, 64]]
    assert inputs["reshaped_input_sizes"].tolist() == [[64, 48], [20, 64]]
    assert (inputs["sam_pixel_values"][0, :, :, 48:] == 0).all()


def test_mask_labels_are_in_sams_frame_with_padding_marked(processor):
    mask = np.zeros((1, 40, 30), dtype=bool)
    mask[0, :20, :15] = True  # the upper left quarter
    labels = processor(IMAGE, "a", answers="[SEG]", segmentation_maps=[mask])["mask_labels"][0]
    expected = np.full((16, 16), -1.0)
    expected[:, :12] = 0
    expected[:8, :6] = 1
    np.testing.assert_array_equal(labels[0].numpy(), expected)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (64, 64), (17, 100)])
def test_masks_return_to_the_images_frame(processor, size):
    """A half-image mask drawn in SAM's frame covers that half of the image, whatever its shape."""
    height, width = size
    inputs = processor(np.zeros((height, width, 3), np.uint8), "a")
    shown = inputs["reshaped_input_sizes"][0] / 4  # SAM's square of 64 pixels has masks of 16
    logits = torch.full((1, 16, 16), -8.0)
    logits[0, :, : round(shown[1].item() / 2)] = 8.0
    empty = torch.zeros(0, 16, 16)
    sizes = (inputs["original_sizes"], inputs["reshaped_input_sizes"])
    masks = processor.post_process_masks([logits, empty], *sizes)
    assert (
        masks[0].shape == (1, height, width) and masks[0].dtype == torch.bool and masks[1].shape == (0, height, width)
    )
    share = masks[0].float().mean(dim=1)[0]  # per column
    half, soft = width / 2, max(2, width // 8)
    assert share[: int(half - soft)].min() == 1 and share[int(half + soft) :].max() == 0
    soft_masks = processor.post_process_masks([logits, empty], *sizes, binarize=False)
    assert torch.equal(soft_masks[0] > 0, masks[0])


def as_base64(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("form", ["image_url", "image_url as text", "base64"])
def test_images_of_a_conversation_come_in_every_form_that_transformers_reads(processor, form):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))
    url = f"data:image/png;base64,{as_base64(image)}"
    parts = {
        "image_url": {"type": "image_url", "image_url": {"url": url}},
        "image_url as text": {"type": "image_url", "image_url": url},
        "base64": {"type": "image", "base64": as_base64(image)},
    }

    def encode(part):
        content = [part, {"type": "text", "text": "the dog"}]
        return processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True, return_dict=True)

    expected, got = encode({"type": "image", "image": image}), encode(parts[form])
    assert torch.equal(got["input_ids"], expected["input_ids"])
    assert torch.equal(got["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("kind", ["video", "audio", "input_text", "input_image", None])
def test_a_part_that_would_vanish_is_refused_by_its_type(processor, kind):
    content = [{"type": "text", "text": "the dog"}, {"type": kind, "text": "on the left", "video": "a.mp4"}]
    for tokenize in (False, True):
        with pytest.raises(ValueError, match=f"a part of type {kind!r}; allowed are 'text', 'image' and 'image_url'"):
            processor.apply_chat_template([{"role": "user", "content": content}], tokenize=tokenize)


def test_chat_conversations_give_the_same_inputs(processor):
    conversation = [
        {
            "role": "user",
            "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "Where is <image>?"}],
        },
        {"role": "assistant", "content": "It is [SEG]."},
        {"role": "user", "content": "And the cat?"},
    ]
    direct = processor(IMAGE, [["Where is <image>?", "And the cat?"]], [["It is [SEG]."]], question_template="{}")
    chat = processor.apply_chat_template(conversation, tokenize=True, return_dict=True, return_tensors="pt")
    assert direct.keys() == chat.keys()
    for name, value in direct.items():
        assert torch.equal(chat[name], value), name
    rendered = processor.apply_chat_template(conversation, add_generation_prompt=True)
    assert rendered.startswith(SYSTEM) and rendered.endswith("USER: And the cat? ASSISTANT:")
    conversation[2]["content"] = [{"type": "image", "image": IMAGE}]
    with pytest.raises(ValueError, match="holds 2 images, but a mask is one of the only image"):
        processor.apply_chat_template(conversation, tokenize=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ""}, "not empty"),
        ({"text": "  "}, "not empty"),
        ({"text": []}, "allowed are a text"),
        ({"text": None}, "`text` is None"),
        ({"text": [[]]}, "without any text"),
        ({"text": [3]}, "'int' object is not iterable|allowed are"),
        ({"text": ["a", "b"], "images": [IMAGE]}, "1 images for 2 conversations"),
        ({"text": ["a"], "images": [[IMAGE, IMAGE]]}, "holds 2 images, but a mask"),
        ({"text": "a", "answers": ["b", "c"]}, "1 conversations in `text`, 2 in `answers`"),
        ({"text": [["a", "b"]], "answers": [[]]}, "2 questions and 0 answers"),
        ({"text": "a", "question_template": "segment"}, "it must hold {}"),
        ({"text": "a", "return_tensors": "np"}, "allowed is 'pt'"),
        (
            {"text": "a", "answers": "[SEG]", "segmentation_maps": [np.zeros((4, 4))]},
            r"allowed is \(num_masks, H, W\)",
        ),
    ],
)
def test_bad_inputs_are_named(processor, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        processor(**{"images": IMAGE} | arguments)


@pytest.mark.parametrize("with_masks", [True, False])
def test_saved_processor_gives_the_same_inputs(processor, tmp_path, with_masks):
    processor.with_masks = with_masks
    processor.question_template = "Where is {}?"
    processor.save_pretrained(tmp_path)
    loaded = LiteLVLMProcessor.from_pretrained(tmp_path)
    expected, got = (p(IMAGE, ["a", "b <image>"]) for p in (processor, loaded))
    assert expected.keys() == got.keys() and ("sam_pixel_values" in got) == with_masks
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    assert set(got.keys()) == set(loaded.model_input_names)


def test_prompt_is_bos_and_the_pieces_around_the_image_tokenised_apart(processor):
    tokenizer = processor.tokenizer
    pieces = [f"{SYSTEM} USER: <im_start>", f"<im_end>\n{ASK.format('a')} ASSISTANT:"]
    before, after = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    image = [tokenizer.convert_tokens_to_ids("<image>")] * processor.num_image_tokens
    assert processor(IMAGE, "a")["input_ids"].tolist() == [[tokenizer.bos_token_id, *before, *image, *after]]


def test_rendered_conversation_shows_user_text_as_it_was_typed(processor):
    typed = "a <image> </s> [SEG] b"
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": typed}]}]
    expected = f"{SYSTEM} USER: <im_start><image><im_end>\n{typed} ASSISTANT:"
    assert processor.apply_chat_template(conversation) == expected
    closed = processor.apply_chat_template(conversation, add_generation_prompt=False)
    assert closed == expected.removesuffix(" ASSISTANT:")


def test_special_tokens_that_overlap_in_user_text_all_stay_text(processor):
    processor.tokenizer.add_tokens(["qx", "xy"])
    ids = processor(IMAGE, "qxy")["input_ids"][0].tolist()
    assert not set(processor.tokenizer.convert_tokens_to_ids(["qx", "xy"])) & set(ids)
    assert ASK.format("qxy") in decode(processor, ids)


def test_image_token_in_an_answer_is_text_while_seg_is_a_token(processor):
    inputs = processor(IMAGE, "a", answers="no <image>, but [SEG]")
    image, seg = processor.tokenizer.convert_tokens_to_ids(["<image>", "[SEG]"])
    assert (inputs["input_ids"] == image).sum() == processor.num_image_tokens
    assert (inputs["input_ids"] == seg).sum() == (inputs["labels"] == seg).sum() == 1
    learnt = inputs["labels"][0][inputs["labels"][0] >= 0].tolist()
    assert decode(processor, learnt) == " no <image>, but [SEG]</s>"


def test_labels_cover_every_byte_of_an_answer_in_any_script(processor):
    labels = processor(IMAGE, "a", answers="狗 é 🐕")["labels"][0]
    assert decode(processor, labels[labels >= 0].tolist()) == " 狗 é 🐕</s>"


def test_training_batches_are_padded_on_the_side_of_the_tokenizer(processor):
    processor.tokenizer.padding_side = "right"
    inputs, alone = processor(text=["a", "longer"], answers=["x", "y"]), processor(text="a", answers="x")
    mask = inputs["attention_mask"][0].bool()
    assert mask[0] and not mask[-1]
    for name, padding in (("input_ids", processor.tokenizer.pad_token_id), ("labels", -100)):
        assert torch.equal(inputs[name][0][mask], alone[name][0]) and (inputs[name][0][~mask] == padding).all()


def test_prompts_are_padded_on_the_left_whatever_the_tokenizer_was_saved_with(processor, tmp_path):
    processor.tokenizer.padding_side = "right"
    processor.save_pretrained(tmp_path)
    loaded = LiteLVLMProcessor.from_pretrained(tmp_path)
    assert loaded.tokenizer.padding_side == "left"
    mask = loaded(text=["a", "longer than that"])["attention_mask"][0]
    assert mask[-1] == 1 and mask[0] == 0


def bilinear(array, height, width):
    """Bilinear resize of an `(H, W)` array with half-pixel centres, as two matrix products."""

    def weights(size, new):
        position = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        low = position.astype(int)
        matrix = np.zeros((new, size))
        np.add.at(matrix, (np.arange(new), low), 1 - (position - low))
        np.add.at(matrix, (np.arange(new), np.minimum(low + 1, size - 1)), position - low)
        return matrix

    return weights(array.shape[0], height) @ array @ weights(array.shape[1], width).T


@pytest.mark.parametrize("size", [(37, 90), (90, 37), (64, 64), (200, 133)])
def test_mask_logits_go_over_sams_square_to_the_image_without_its_padding(processor, size):
    inputs = processor(np.zeros((*size, 3), np.uint8), "a")
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    height, width = (int(edge * 64 / max(size) + 0.5) for edge in size)
    expected = [bilinear(bilinear(mask, 64, 64)[:height, :width], *size) for mask in logits.double().numpy()]
    sizes = (inputs["original_sizes"], inputs["reshaped_input_sizes"])
    (soft,) = processor.post_process_masks([logits], *sizes, binarize=False)
    np.testing.assert_allclose(soft.numpy(), np.stack(expected), atol=1e-4)
    (masks,) = processor.post_process_masks([logits], *sizes, mask_threshold=0.5)
    assert torch.equal(masks, soft > 0.5)


def test_masks_of_several_texts_take_the_size_of_their_image(processor):
    sizes = (torch.tensor([[40, 30], [20, 50]]), torch.tensor([[64, 48], [26, 64]]))
    logits = [torch.zeros(n, 16, 16, dtype=torch.bfloat16) for n in (1, 0, 2, 0)]
    masks = processor.post_process_masks(logits, *sizes)
    with pytest.raises(ValueError, match="masks of 3 conversations, 2 original and 2 reshaped sizes"):
        processor.post_process_masks(logits[:3], *sizes)
    assert [tuple(m.shape) for m in masks] == [(1, 40, 30), (0, 40, 30), (2, 20, 50), (0, 20, 50)]


def test_decoded_answers_keep_seg_and_lose_special_tokens(processor):
    ids = processor.tokenizer([" It is [SEG].</s>", " No.</s>"], add_special_tokens=False, padding=True)["input_ids"]
    inputs = processor(IMAGE, ["a", "b"])
    sequences = torch.cat([inputs["input_ids"], torch.tensor(ids)], dim=1)
    for output in (sequences, SimpleNamespace(sequences=sequences)):
        assert processor.decode_answers(output, inputs) == ["It is [SEG].", "No."]
    # As `generate` gives them with `num_return_sequences=2`
    twice = sequences.repeat_interleave(2, dim=0)
    assert processor.decode_answers(twice, inputs) == ["It is [SEG]."] * 2 + ["No."] * 2
    for wrong in (sequences[:, inputs["input_ids"].shape[1] :], sequences.flip(0), sequences[:1]):
        with pytest.raises(ValueError, match="do not begin with the prompts"):
            processor.decode_answers(wrong, inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": [None]}, "`text` holds None; allowed are texts"),
        # Neither to learn from nor to continue
        ({"images": None, "text": [["a"], ["b"]], "answers": [["x"], []]}, "1 of 2 conversations end with an answer"),
        ({"images": [IMAGE] * 2, "text": ["a", "b"], "segmentation_maps": [np.ones((1, 40, 30))]}, "1 entries in"),
        ({"text": "a", "segmentation_maps": [np.ones((1, 30, 40))]}, "its image is 40 high and 30 wide"),
    ],
)
def test_inputs_that_do_not_fit_each_other_are_named(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**{"images": IMAGE} | arguments)


@pytest.mark.parametrize("conversation", [[], [[]], [{"role": "assistant", "content": "a"}]])
def test_conversations_without_a_user_are_named(processor, conversation):
    with pytest.raises(ValueError, match="no message of the user"):
        processor.apply_chat_template(conversation, tokenize=True)


def test_options_of_chat_templates_may_be_named_to_be_off_and_are_never_ignored(processor):
    conversation = [{"role": "user", "content": "a"}]
    processor.apply_chat_template(conversation, tokenize=True, continue_final_message=False, processor_kwargs={})
    with pytest.raises(ValueError, match="`add_system_prompt` is no option"):
        processor.apply_chat_template(conversation, tokenize=True, add_system_prompt=True)


def test_processor_of_a_hub_repository_is_saved_with_its_own_code(processor, tmp_path):
    processor.save_pretrained(tmp_path / "first")
    path = tmp_path / "first" / "processor_config.json"
    values = json.loads(path.read_text())
    local = values["auto_map"]["AutoProcessor"]
    path.write_text(json.dumps(values | {"auto_map": {"AutoProcessor": f"org/repo--{local}"}}))
    LiteLVLMProcessor.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    saved = json.loads((tmp_path / "second" / "processor_config.json").read_text())
    assert saved["auto_map"] == {"AutoProcessor": local} == {"AutoProcessor": "processing_litelvlm.LiteLVLMProcessor"}


def test_the_guide_reads_the_question_the_expression_or_templates(processor, tmp_path):
    turns = [["the dog", "the cat"], ["a hat"]]
    assert processor.guide_form == "question"

    def read(sentence_ids, mask):
        return processor.guide_tokenizer.decode(sentence_ids[mask.bool()], skip_special_tokens=True)

    for form, wanted in {"question": ASK, "expression": "{}"}.items():
        processor.guide_form = form
        inputs = processor(text=turns, answers=[["[SEG]", "[SEG]"], ["[SEG]"]])
        ids, mask = inputs["guide_input_ids"], inputs["guide_attention_mask"]
        assert ids.ndim == 3 and read(ids[0, 1], mask[0, 1]) == wanted.format("the cat")
        assert read(ids[1, 0], mask[1, 0]) == wanted.format("a hat") and not mask[1, 1].any()

    processor.guide_form = "templates"
    inputs = processor(text=turns, answers=[["[SEG]", "[SEG]"], ["[SEG]"]])
    ids, mask = inputs["guide_input_ids"], inputs["guide_attention_mask"]
    sentences = [read(*row) for row in zip(ids[0, 1], mask[0, 1], strict=True)]
    assert sentences == [template.format("the cat") for template in QUESTION_TEMPLATES] and not mask[1, 1].any()
    assert processor(text=turns[1], guide_text="hats")["guide_input_ids"].ndim == 3

    processor.save_pretrained(tmp_path)
    assert LiteLVLMProcessor.from_pretrained(tmp_path).guide_form == "templates"
    processor.guide_form = "words"
    with pytest.raises(ValueError, match="`guide_form` is 'words'; allowed are"):
        processor(text="the dog")


@pytest.mark.parametrize("answer", ["It is [SEG].", "[SEG]", "Sure, [SEG] and [SEG].", "狗 [SEG]"])
@pytest.mark.parametrize("text", ["the dog", "x: ASSISTANT", "[SEG]"])
def test_an_encoded_answer_completes_an_open_prompt(processor, text, answer):
    """Token for token what the answered conversation has, whatever the tokenizer does at the seam."""
    metaspace = copy.deepcopy(processor)
    metaspace.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    llava = copy.deepcopy(metaspace)
    llava.chat_template = LLAVA_CHAT_TEMPLATE
    for own in (processor, metaspace, llava):
        asked, answered = own(IMAGE, text)["input_ids"][0], own(IMAGE, text, answers=answer)["input_ids"][0]
        assert torch.equal(torch.cat([asked, own.encode_answer(answer)]), answered)
        shown = own.tokenizer.decode(own.encode_answer(answer)).replace("▁", " ")
        assert answer.replace(" ", "") in shown.replace(" ", "")


def test_an_answer_that_cannot_be_told_from_its_prompt_is_refused(processor):
    processor.chat_template = (
        "{% for m in messages %}{{ m['role'] }}{% endfor %}{% if add_generation_prompt %}{{ ' now' }}{% endif %}"
    )
    with pytest.raises(ValueError, match="cannot be told from those of the prompt"):
        processor.encode_answer("It is [SEG].")
    processor.chat_template = "{{ messages[0]['role'] }}"  # without the answer
    with pytest.raises(ValueError, match="cannot be told from those of the prompt"):
        processor.encode_answer("It is [SEG].")
    with pytest.raises(ValueError, match="texts that are not empty"):
        processor.encode_answer(" ")


def test_a_message_of_one_string_is_that_text_in_every_template(processor):
    processor.chat_template = LLAVA_CHAT_TEMPLATE
    conversation = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "It is [SEG]."}]
    assert processor.apply_chat_template(conversation) == "USER: hello ASSISTANT: It is [SEG]. "
    input_ids = processor.apply_chat_template(conversation, tokenize=True)
    assert torch.equal(input_ids, processor(text="hello", answers="It is [SEG].", question_template="{}")["input_ids"])


def test_answers_that_the_template_does_not_mark_give_no_labels_but_an_error(processor):
    processor.chat_template = LLAVA_CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    with pytest.raises(ValueError, match="does not say which tokens are the answer"):
        processor(IMAGE, "a", answers="It is [SEG].")
    history = processor(IMAGE, [["a", "b"]], answers=[["It is [SEG]."]])  # nothing to learn: nothing to mark
    assert "ASSISTANT: It is [SEG]." in decode(processor, history["input_ids"][0].tolist())
    assert decode(processor, processor.encode_answer("It is [SEG].").tolist()) == " It is [SEG]. "


def test_one_answer_serves_every_turn_of_every_conversation(processor):
    turns = [["a", "b"], ["c"]]
    inputs = processor([IMAGE, IMAGE], turns, answers="It is [SEG].")
    expected = processor([IMAGE, IMAGE], turns, answers=[["It is [SEG]."] * 2, ["It is [SEG]."]])
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["labels"], expected["labels"])


def test_conversations_are_padded_as_transformers_says(processor):
    long, short = (len(processor(IMAGE, text)["input_ids"][0]) for text in ("a much longer text", "a"))
    texts, images = ["a", "a much longer text"], [IMAGE] * 2
    assert processor(images, texts, padding="longest")["input_ids"].shape == (2, long)
    padded = processor(images, texts, padding="max_length", max_length=long + 5, padding_side="right")
    assert padded["attention_mask"].sum(-1).tolist() == [short, long]
    assert padded["input_ids"].shape == (2, long + 5) and padded["attention_mask"][:, 0].all()
    nested = processor(images, texts, text_kwargs={"padding": "max_length", "max_length": long + 5})
    assert nested["input_ids"].shape == (2, long + 5) and not nested["attention_mask"][:, 0].any()
    assert processor(images, ["a", "b"], padding=False)["input_ids"].shape == (2, short)
    with pytest.raises(ValueError, match="`padding` is False, but the conversations have"):
        processor(images, texts, padding=False)
    with pytest.raises(ValueError, match="`max_length` is not given"):
        processor(images, texts, padding="max_length")
    with pytest.raises(ValueError, match=f"has {long} tokens, but `max_length` is {long - 1}"):
        processor(images, texts, padding="max_length", max_length=long - 1)
    for name, value in {"padding": "most", "truncation": "some", "padding_side": "top", "max_length": 0}.items():
        with pytest.raises(ValueError, match=f"`{name}` is {value!r}; allowed are"):
            processor(images, texts, **{name: value})
    processor.tokenizer.model_max_length = long + 3
    assert processor(images, texts, padding="max_length")["input_ids"].shape == (2, long + 3)


def test_labels_are_padded_with_their_tokens(processor):
    texts, answers = ["a", "longer"], ["x", "y"]
    inputs = processor(text=texts, answers=answers, padding="max_length", max_length=300, padding_side="right")
    alone = processor(text="a", answers="x")
    length = alone["labels"].shape[1]
    assert torch.equal(inputs["labels"][0, :length], alone["labels"][0]) and inputs["labels"].shape == (2, 300)
    assert (inputs["labels"][0, length:] == -100).all()


def test_a_tokenizer_without_a_token_for_padding_reads_one_conversation_at_a_time(processor):
    expected = processor(IMAGE, "a")["input_ids"]
    processor.tokenizer.pad_token = None
    assert torch.equal(processor(IMAGE, "a")["input_ids"], expected)
    with pytest.raises(ValueError, match="does not have a padding token"):
        processor([IMAGE] * 2, ["a", "longer"])


def test_truncation_never_cuts_an_image(processor):
    whole = processor(IMAGE, "a much longer text")["input_ids"]
    cut = processor(IMAGE, "a much longer text", truncation=True, max_length=whole.shape[1] - 4)["input_ids"]
    assert torch.equal(cut, whole[:, :-4])
    assert torch.equal(processor(IMAGE, "a much longer text", max_length=9)["input_ids"], whole)  # not asked for
    with pytest.raises(ValueError, match="`max_length` is 40, but the image's tokens end at"):
        processor(IMAGE, "a", truncation=True, max_length=40)
    with pytest.raises(ValueError, match="`max_length` is not given"):
        processor(IMAGE, "a", truncation=True)
    processor.tokenizer.model_max_length = whole.shape[1] - 4
    assert torch.equal(processor(IMAGE, "a much longer text", truncation="longest_first")["input_ids"], cut)
    processor.tokenizer.truncation_side = "left"
    from_left = processor(IMAGE, "a much longer text", truncation=True)["input_ids"]
    assert torch.equal(from_left, whole[:, 4:])
    with pytest.raises(ValueError, match=r"the image's tokens end at \d+ and begin at"):
        processor(IMAGE, "a", truncation=True, max_length=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paddin": True}, "`paddin` is no option of this processor. Did you mean `padding`"),
        ({"text_kwargs": {"max_lenght": 5}}, "`max_lenght` is no option of this processor. Did you mean `max_length`"),
        ({"answer": "[SEG]"}, "`answer` is no option of this processor. Did you mean `answers`"),
        ({"image": IMAGE}, "`image` is no option of this processor. Did you mean `images`"),
        ({"add_special_tokens": False}, "`add_special_tokens` is no option"),
        ({"return_tensors": "np"}, "`return_tensors` is 'np'; allowed is 'pt'"),
        ({"text_kwargs": {"return_tensors": "tf"}}, "`return_tensors` is 'tf'; allowed is 'pt'"),
        ({"padding": True, "text_kwargs": {"padding": "longest"}}, "`padding` is given twice"),
        ({"text_kwargs": {"do_resize": False}}, "`do_resize` is no option"),
        ({"video_kwargs": {}}, "`video_kwargs` is no option"),
    ],
)
def test_options_that_are_not_heeded_are_refused(processor, options, message):
    with pytest.raises(ValueError, match=message):
        processor(IMAGE, "a", **options)


def test_options_for_the_processor_reach_it_from_a_chat_too(processor):
    conversation = [{"role": "user", "content": "a"}]
    options = {"padding": "max_length", "max_length": 250}
    for given in ({"processor_kwargs": options}, {"processor_kwargs": {"text_kwargs": options}}, options):
        assert processor.apply_chat_template(conversation, tokenize=True, **given).shape == (1, 250)
    with pytest.raises(ValueError, match="`paddin` is no option"):
        processor.apply_chat_template(conversation, tokenize=True, processor_kwargs={"paddin": True})


def test_options_come_flat_in_groups_and_from_the_tokenizer(processor):
    options = {"padding": "max_length", "max_length": 250}
    assert processor(IMAGE, "a", common_kwargs=options | {"return_tensors": "pt"})["input_ids"].shape == (1, 250)
    with pytest.raises(ValueError, match="`paddin` is no option of this processor"):
        processor(IMAGE, "a", common_kwargs={"paddin": True})
    processor.tokenizer.init_kwargs |= options
    assert processor(IMAGE, "a")["input_ids"].shape == (1, 250)
    assert processor(IMAGE, "a", max_length=260)["input_ids"].shape == (1, 260)
    assert processor(IMAGE, "a", padding=False)["input_ids"].shape[1] < 250


def test_images_may_come_in_a_list_for_each_conversation(processor):
    plain, nested = processor([IMAGE] * 2, ["a", "b"]), processor([[IMAGE]] * 2, ["a", "b"])
    assert all(torch.equal(nested[name], value) for name, value in plain.items())
    text, nothing = processor(text=["a", "b"]), processor([[], []], ["a", "b"])
    assert text.keys() == nothing.keys() and torch.equal(text["input_ids"], nothing["input_ids"])
    with pytest.raises(ValueError, match="1 of 2 conversations have an image"):
        processor([[IMAGE], []], ["a", "b"])
    chats = [[{"role": "user", "content": "a"}]] * 2
    chats[1] = [{"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "a"}]}]
    with pytest.raises(ValueError, match="1 of 2 conversations have an image"):
        processor.apply_chat_template(chats, tokenize=True)


def test_answers_are_marked_in_a_mask(processor):
    answer = {"role": "assistant", "content": "It is [SEG]."}
    chats = [[{"role": "user", "content": "a"}, answer], [{"role": "user", "content": "a longer one"}, answer]]
    inputs = processor.apply_chat_template(chats, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert torch.equal(inputs["assistant_masks"].bool(), inputs["labels"] != -100)
    inputs = processor.apply_chat_template(
        [[*chat, {"role": "user", "content": "b"}] for chat in chats],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert "labels" not in inputs
    marked = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["assistant_masks"], strict=True)]
    assert [processor.tokenizer.decode(ids) for ids in marked] == [" It is [SEG].</s>"] * 2


def test_system_messages_take_the_place_of_the_models_own(processor):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    assert processor.apply_chat_template(chat) == "Be brief. USER: a ASSISTANT:"
    assert processor.apply_chat_template(chat[1:]).startswith(SYSTEM)
    with pytest.raises(ValueError, match=r"roles user, system: .*system in the first message.*; write what"):
        processor.apply_chat_template(chat[::-1])


@pytest.mark.parametrize(
    "start, reason",
    [
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('Only user roles') }}{% endif %}",
            "Only user roles",
        ),
        ("{{ messages[0].name.first }}", "has no attribute"),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content[0].text }}{% endfor %}",
            "it leaves out 'Be brief.'",
        ),
    ],
)
def test_a_template_that_does_not_take_a_system_message_is_named_with_the_roles(processor, start, reason):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    for tokenize in (False, True):
        with pytest.raises(ValueError, match=f"does not take .* roles system, user: .*{reason}"):
            processor.apply_chat_template(chat, chat_template=start, tokenize=tokenize)


def test_the_last_answer_may_be_continued(processor):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "It is"}]
    assert processor.apply_chat_template(chat, continue_final_message=True).endswith("ASSISTANT: It is")
    inputs = processor.apply_chat_template(chat, continue_final_message=True, tokenize=True, return_dict=True)
    assert "labels" not in inputs and processor.tokenizer.decode(inputs["input_ids"][0]).endswith("ASSISTANT: It is")


def test_templates_read_variables_and_message_objects_whose_text_stays_text(processor):
    @dataclasses.dataclass
    class Message:
        role: str
        content: list
        name: str | None = None

    message = Message("user", [{"type": "text", "text": "the [SEG]"}], name="<image>")
    template = "{{ bos_token }}{{ image_token }}{{ mood }}"
    template += "{% for m in messages %}{{ m.name }}: {{ m.content[0].text }}{% endfor %}"
    options = {"chat_template": template, "mood": "happy ", "image_token": "an "}
    assert processor.apply_chat_template([message], **options) == "<s>an happy <image>: the [SEG]"
    ids = processor.apply_chat_template([message], **options, tokenize=True, add_generation_prompt=False)[0].tolist()
    special = processor.tokenizer.convert_tokens_to_ids(["<image>", "[SEG]"])
    assert not set(special) & set(ids)
    with pytest.raises(ValueError, match="A message, or a part of one, is a int"):
        processor.apply_chat_template([3], **options)


def test_a_slip_in_a_loading_option_is_named(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    for slip, meant in (("num_image_token", "num_image_tokens"), ("revison", "revision")):
        with pytest.raises(ValueError, match=f"`{slip}` is no option of this processor. Did you mean `{meant}`"):
            LiteLVLMProcessor.from_pretrained(tmp_path, **{slip: 5})
    assert LiteLVLMProcessor.from_pretrained(tmp_path, num_image_tokens=5).num_image_tokens == 5


def test_options_of_images_reach_the_vision_towers_images_only(processor):
    plain, raw = processor(IMAGE, "a"), processor(IMAGE, "a", images_kwargs={"do_normalize": False})
    assert raw["pixel_values"].min() >= 0 > plain["pixel_values"].min()
    assert torch.equal(raw["sam_pixel_values"], plain["sam_pixel_values"])
    assert torch.equal(processor(IMAGE, "a", do_normalize=False)["pixel_values"], raw["pixel_values"])


def outputs_with(*masks):
    """Outputs whose masks have the given logits in the upper half of SAM's square, and -9 in the lower."""
    logits = []
    for values in masks:
        logits.append(torch.full((len(values), 16, 16), -9.0))
        for mask, value in zip(logits[-1], values, strict=True):
            mask[:8] = value
    scores = [torch.arange(len(values)) / 10 for values in masks]
    return SimpleNamespace(pred_masks=logits, mask_scores=scores)


def test_instances_have_mask_score_label_and_box(processor):
    square = IMAGE.resize((64, 64))
    inputs = processor(square, ["the dog", "the cat"]).to("cpu")
    results = processor.post_process_instance_segmentation(outputs_with([2.0, -9.0], []), inputs)
    assert [len(entries) for entries in results] == [2, 0]
    first, empty = results[0]
    assert first["mask"].shape == (64, 64) and first["mask"].dtype == torch.bool
    assert first["label"] == empty["label"] == "the dog"
    assert first["box"][:3] == [0, 0, 64] and abs(first["box"][3] - 32) <= 4
    inside = first["mask"][:28].all() and not first["mask"][36:].any()
    assert inside and 0.8 < first["score"] <= torch.tensor(2.0).sigmoid()
    assert empty["box"] is None and empty["score"] == 0 and empty["predicted_iou"] == pytest.approx(0.1)
    kept = processor.post_process_instance_segmentation(outputs_with([2.0, -9.0], []), inputs, threshold=0.5)
    assert [len(entries) for entries in kept] == [1, 0]
    none = processor.post_process_instance_segmentation(outputs_with([2.0], []), inputs, mask_threshold=0.95)
    assert none[0][0]["score"] == 0 and not none[0][0]["mask"].any()


def test_each_turn_of_a_conversation_labels_its_own_mask(processor):
    turns = [["the dog", "the cat"], ["a hat"]]
    inputs = processor([IMAGE, IMAGE], turns, answers="[SEG]")
    results = processor.post_process_instance_segmentation(outputs_with([1.0, 1.0], [1.0, 1.0]), inputs)
    assert [[entry["label"] for entry in entries] for entries in results] == [["the dog", "the cat"], ["a hat"] * 2]


def test_instances_need_texts_and_probabilities(processor):
    inputs = processor(IMAGE, "a")
    with pytest.raises(ValueError, match="`inputs` do not say what was asked"):
        processor.post_process_instance_segmentation(outputs_with([1.0]), dict(inputs))
    for texts in ("the dog", ["the dog"], [["the dog"]]):
        given = processor.post_process_instance_segmentation(outputs_with([1.0]), dict(inputs), text_labels=texts)
        assert given[0][0]["label"] == "the dog"
    with pytest.raises(ValueError, match="texts of 2 conversations in `text_labels` and masks of 1"):
        processor.post_process_instance_segmentation(outputs_with([1.0]), inputs, text_labels=["a", "b"])
    for name in ("threshold", "mask_threshold"):
        with pytest.raises(ValueError, match=f"`{name}` is 2; allowed are probabilities"):
            processor.post_process_instance_segmentation(outputs_with([1.0]), inputs, **{name: 2})


@pytest.fixture
def llava(processor, config_values, tmp_path):
    """LLaVA's own processor; it and a configuration are saved in `lvlm`, and the guide's tokenizer in `clip`."""
    tokenizer = processor.tokenizer
    values = config_values["backbone_config"] | {"image_token_index": tokenizer.convert_tokens_to_ids("<image>")}
    LlavaConfig(**{name: value for name, value in values.items() if name != "model_type"}).save_pretrained(
        tmp_path / "lvlm"
    )
    own = LlavaProcessor(
        processor.image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    own.save_pretrained(tmp_path / "lvlm")
    processor.guide_tokenizer.save_pretrained(tmp_path / "clip")
    return own


def test_processor_of_a_backbone_writes_what_the_backbones_own_writes(llava, tmp_path):
    wrapped = LiteLVLMProcessor.from_backbone(tmp_path / "lvlm", tmp_path / "clip")
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    prompt = llava.apply_chat_template(conversation, add_generation_prompt=True)
    expected = llava(images=IMAGE, text=prompt, return_tensors="pt")
    inputs = wrapped(IMAGE, "What is this?")
    assert inputs["input_ids"][0].tolist() == [wrapped.tokenizer.bos_token_id, *expected["input_ids"][0].tolist()]
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"]) and "sam_pixel_values" not in inputs
    guide = wrapped.guide_tokenizer
    assert guide.decode(inputs["guide_input_ids"][0, 0], skip_special_tokens=True) == "What is this?"


def test_processor_of_a_loaded_backbone_is_that_of_its_name(llava, tmp_path):
    config = LlavaConfig.from_pretrained(tmp_path / "lvlm")
    model = LlavaForConditionalGeneration(config)
    with pytest.raises(ValueError, match="does not know where it was loaded from"):
        LiteLVLMProcessor.from_backbone(model, tmp_path / "clip")
    model.save_pretrained(tmp_path / "lvlm")
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "lvlm")
    named, wrapped = (LiteLVLMProcessor.from_backbone(b, tmp_path / "clip") for b in (tmp_path / "lvlm", loaded))
    assert torch.equal(wrapped(IMAGE, "a")["input_ids"], named(IMAGE, "a")["input_ids"])


def test_options_of_loading_reach_the_backbone_and_those_of_the_hub_the_guide(llava, tmp_path, monkeypatch):
    given = {"revision": "main", "token": "secret", "cache_dir": str(tmp_path)}
    seen = {}
    for auto_class in (AutoConfig, AutoProcessor, AutoTokenizer):
        load = auto_class.from_pretrained

        def recorded(name, load=load, **kwargs):
            seen.setdefault(Path(name).name, []).append(kwargs)
            return load(name, **kwargs)

        monkeypatch.setattr(auto_class, "from_pretrained", recorded)
    LiteLVLMProcessor.from_backbone(tmp_path / "lvlm", tmp_path / "clip", **given)
    assert all(given.items() <= kwargs.items() for kwargs in seen["lvlm"][:2])
    assert seen["clip"][0] == {name: given[name] for name in ("token", "cache_dir")}


def test_backbones_without_what_a_processor_needs_are_refused(llava, tmp_path):
    with pytest.raises(ValueError, match=r"`revison` is no option of this processor\. Did you mean `revision`"):
        LiteLVLMProcessor.from_backbone(tmp_path / "lvlm", tmp_path / "clip", revison="main")
    with pytest.raises(ValueError, match="No CLIP is known for a vision tower of width 32"):
        LiteLVLMProcessor.from_backbone(tmp_path / "lvlm")
    LlamaConfig().save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="is a 'llama' model without CLIP's or SigLIP's vision tower"):
        LiteLVLMProcessor.from_backbone(tmp_path / "llama")
    (tmp_path / "lvlm" / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template; give one as `chat_template`"):
        LiteLVLMProcessor.from_backbone(tmp_path / "lvlm", tmp_path / "clip")
    given = LiteLVLMProcessor.from_backbone(tmp_path / "lvlm", tmp_path / "clip", chat_template=LLAVA_CHAT_TEMPLATE)
    assert given.apply_chat_template([{"role": "user", "content": "a"}]) == "USER: a ASSISTANT:"
