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
"""Batches: each answer is that of a single call, whatever else is asked at the same time."""

import io

import pytest
import torch
from PIL import Image

from litelvlm import EXAMPLE_IMAGE, from_backbone, load_tiny
from litelvlm.data.masks import decode_segmentation
from litelvlm.serving.settings import RefusedError, Settings
from litelvlm.serving.worker import Question, Worker

from ..hosts import write_onevision
from ..paligemma import write_paligemma

TEXTS = ("the red circle", "the green star")


def file_of(image, kind="PNG"):
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images():
    example = Image.open(EXAMPLE_IMAGE)
    return [EXAMPLE_IMAGE.read_bytes(), file_of(example.resize((200, 90))), file_of(example.rotate(90), "JPEG")]


def single(embedded, question):
    """Answers and masks of each text, as one call of `segment` for each gives them."""
    model, processor = embedded
    options = dict(question.options)
    if "answer" in options:
        options["processor"] = processor
    answers = []
    for text in question.texts:
        inputs = processor(Image.open(io.BytesIO(question.image)), text)
        output = model.segment(**inputs, **options)
        (found,) = processor.post_process_instance_segmentation(output, inputs)
        answers.append((processor.decode_answers(output, inputs)[0], [entry["mask"].numpy() for entry in found]))
    return answers


def check(embedded, question, answered):
    for (answer, masks), result in zip(single(embedded, question), answered["results"], strict=True):
        assert result["answer"] == answer and len(result["masks"]) == len(masks)
        for mask, entry in zip(masks, result["masks"], strict=True):
            got = decode_segmentation(entry["segmentation"], *result["size"])
            assert (got != mask).mean() < 1e-3  # padding moves the last digits


def test_answers_of_a_batch_are_those_of_single_calls(embedded, worker, images):
    questions = [
        Question(images[0], TEXTS, options={"max_new_tokens": 12}),
        Question(images[1], TEXTS[:1], options={"max_new_tokens": 12}),
        Question(images[0], ("what is there?",), options={"max_new_tokens": 12}),
        Question(images[2], TEXTS, options={"answer": "It is [SEG]."}),
        Question(images[2], TEXTS[:1], options={"max_new_tokens": 12, "num_retained_tokens": 28}),
        Question(images[1], TEXTS[:1], options={"max_new_tokens": 12, "pruning_method": "divprune"}),
        Question(images[1], TEXTS[:1], options={"max_new_tokens": 12, "pruning_method": "none"}),
    ]
    for _ in range(2):  # the second time from the images' states
        answered = worker.answer([worker.prepare(question) for question in questions])
        for question, answer in zip(questions, answered, strict=True):
            check(embedded, question, answer)
    assert [answer["results"][0]["num_retained_tokens"] for answer in answered[-3:]] == [28, 85, 256]


def test_image_is_encoded_once_for_questions_that_come_together_and_later(embedded, images, monkeypatch):
    seen = []
    encode = type(embedded[0]).encode_image

    def counted(self, pixel_values, *args, **kwargs):
        seen.append(len(pixel_values))
        return encode(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(type(embedded[0]), "encode_image", counted)
    worker = Worker(*embedded)
    given = {"answer": "It is [SEG]."}
    for names in (images[:1] * 2, images[:2], images[:2]):
        worker.answer([worker.prepare(Question(image, TEXTS, options=given)) for image in names])
    assert seen == [1, 1]
    # A method that looks into the vision tower needs a state of its own
    worker.answer([worker.prepare(Question(images[0], TEXTS, options=given | {"pruning_method": "visionzip"}))])
    assert seen == [1, 1, 1]


def test_states_are_kept_up_to_a_number_of_bytes(embedded, images):
    one = Worker(*embedded)
    one.answer([one.prepare(Question(images[0], TEXTS[:1], options={"answer": "[SEG]"}))])
    size = int(one._kept.currsize)
    assert size > 10_000
    for limit, kept in ((size - 1, 0), (2 * size, 2), (3 * size, 3)):
        worker = Worker(*embedded, cache_bytes=limit)
        for image in images:
            worker.answer([worker.prepare(Question(image, TEXTS[:1], options={"answer": "[SEG]"}))])
        assert len(worker._kept) == kept and worker._kept.currsize <= limit


def test_what_is_evicted_after_a_question_was_prepared_is_answered_all_the_same(embedded, images):
    worker = Worker(*embedded)
    question = Question(images[0], TEXTS[:1], options={"answer": "[SEG]"})
    worker.answer([worker.prepare(question)])
    item = worker.prepare(question)
    worker._kept.clear()
    assert not item.images
    check(embedded, question, worker.answer([item])[0])


def test_one_question_does_not_fail_the_others_of_its_batch(embedded, worker, images, monkeypatch, caplog):
    questions = [Question(image, TEXTS[:1], options={"answer": "[SEG]"}) for image in images]
    items = [worker.prepare(question) for question in questions]
    items[1].prompts["input_ids"] = items[1].prompts["input_ids"][:, :-200]  # an image without its placeholders
    answered = worker.answer(items)
    assert isinstance(answered[1], RefusedError) and answered[1].status in (422, 500)
    for number in (0, 2):
        check(embedded, questions[number], answered[number])


@pytest.mark.parametrize(
    ("status", "message", "question"),
    [
        (422, "cannot identify an image", Question(b"no image", TEXTS)),
        (413, "9600 x 9600 pixels are more than the limit", Question(file_of(Image.new("1", (9600, 9600))), TEXTS)),
        (422, "one side is at most", Question(file_of(Image.new("1", (2000, 1))), TEXTS)),
        (422, "`num_retained_tokens` is 257", Question(b"", TEXTS, options={"num_retained_tokens": 257})),
        (422, "`pruning_method` is 'x'", Question(b"", TEXTS, options={"pruning_method": "x"})),
        (
            422,
            r"has \d{4} tokens, 85 of them visual, but the language model was made for 1024 positions; shorten it",
            Question(EXAMPLE_IMAGE.read_bytes(), ("the red circle", "the red circle " * 350)),
        ),
    ],
)
def test_question_that_cannot_be_answered_is_refused_before_the_model_runs(status, message, question, worker):
    with pytest.raises(RefusedError, match=message) as raised:
        worker.prepare(question)
    assert raised.value.status == status


def test_pruning_makes_room_for_a_longer_text(worker):
    question = Question(EXAMPLE_IMAGE.read_bytes(), ("the red circle " * 290,), options={"num_retained_tokens": 28})
    assert 1024 < worker.prepare(question).prompts["attention_mask"].sum() < 1024 + 256
    with pytest.raises(RefusedError, match="256 of them visual, but the language model was made for 1024 positions"):
        worker.prepare(Question(question.image, question.texts, options={"pruning_method": "none"}))


def test_conversations_of_several_turns_are_batched(embedded, worker, images):
    model, processor = embedded
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is the red circle?"}]}
    answer = {"role": "assistant", "content": "It is [SEG]."}
    further = {"role": "user", "content": "Can you segment the green star in this image?"}
    conversations = [(user,), (user, answer, further)]
    options = {"max_new_tokens": 12}
    items = [worker.prepare(Question(images[0], messages=messages, options=options)) for messages in conversations]
    for messages, answered in zip(conversations, worker.answer(items), strict=True):
        image = {"type": "image", "image": Image.open(io.BytesIO(images[0]))}
        messages = [{"role": "user", "content": [image, user["content"][1]]}, *messages[1:]]
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
        output = model.segment(**inputs, **options)
        assert answered["results"][0]["answer"] == processor.decode_answers(output, inputs)[0]
        assert answered["num_prompt_tokens"] == inputs["input_ids"].shape[1]


def test_model_without_masks_answers_conversations_as_generate_does(images):
    model, processor = load_tiny(sam_config=None)
    processor.with_masks = False
    worker = Worker(model, processor)
    texts = ("Can you segment the red circle in this image?", "Where is it?")
    parts = [[{"type": "image"}, {"type": "text", "text": text}] for text in texts]
    options = {"max_new_tokens": 6, "num_retained_tokens": 40}
    questions = [
        Question(image, messages=({"role": "user", "content": content},), options=options)
        for image, content in zip(images, parts, strict=False)
    ]
    for _ in range(2):  # the second time from the images' states
        answered = worker.answer([worker.prepare(question) for question in questions])
        for question, answer in zip(questions, answered, strict=True):
            content = [{"type": "image", "image": Image.open(io.BytesIO(question.image))}]
            content += question.messages[0]["content"][1:]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=True, return_dict=True
            )
            sequences = model.generate(**inputs, **options, do_sample=False)
            (result,) = answer["results"]
            assert result["answer"] == processor.decode_answers(sequences, inputs)[0]
            new_tokens = sequences[0, inputs["input_ids"].shape[1] :]
            assert result["num_new_tokens"] == len(new_tokens) and result["masks"] == []
            assert result["is_complete"] == (processor.tokenizer.eos_token_id in new_tokens)
    with pytest.raises(RefusedError, match="text only, without masks; ask /v1/chat/completions") as raised:
        worker.prepare(Question(images[0], TEXTS))
    assert raised.value.status == 422


@pytest.fixture(params=["tiny", "llava_onevision"])
def text_model(request, tmp_path):
    """A model that answers in text about several images: whole ones, or in crops where an image is alone."""
    model, processor = load_tiny(sam_config=None)
    processor.with_masks = False
    if request.param == "llava_onevision":
        write_onevision(tmp_path, processor)
        model, processor = from_backbone(tmp_path / "lvlm", tmp_path / "siglip", num_retained_tokens=5)
    return model, processor


def test_conversations_about_several_images_are_answered_as_generate_does(text_model, images):
    model, processor = text_model
    worker, options = Worker(model, processor), {"max_new_tokens": 6}
    image, text = {"type": "image"}, {"type": "text", "text": "Where is it?"}
    turns = ({"role": "user", "content": [text, image]}, {"role": "assistant", "content": [text | {"text": "There."}]})
    conversations = [
        ([images[0], images[1]], ({"role": "user", "content": [image, image, text]},)),
        ([images[1], images[0]], ({"role": "user", "content": [image, image, text]},)),
        (images[:1], ({"role": "user", "content": [image, text]},)),
        (images, (*turns, {"role": "user", "content": [image, text, image]})),
    ]
    questions = [
        Question(files[0], messages=messages, options=options, further_images=tuple(files[1:]))
        for files, messages in conversations
    ]
    expected = []
    for files, messages in conversations:
        opened = iter([Image.open(io.BytesIO(file)) for file in files])
        asked = [
            message | {"content": [p | {"image": next(opened)} if p is image else p for p in message["content"]]}
            for message in messages
        ]
        inputs = processor.apply_chat_template(asked, tokenize=True, return_dict=True)
        sequences = model.generate(**inputs, **options, do_sample=False)
        expected.append((processor.decode_answers(sequences, inputs)[0], inputs["input_ids"].shape[1]))
    for _ in range(2):  # the second time from the images' states
        answered = worker.answer([worker.prepare(question) for question in questions])
        assert [(a["results"][0]["answer"], a["num_prompt_tokens"]) for a in answered] == expected
    assert len(worker._kept) == len(conversations)  # an order of its own is a state of its own


def test_service_reads_paligemmas_prompts_in_both_directions(tmp_path, images):
    """Whose answers change with the marks of prompt and answer."""
    write_paligemma("gemma2", tmp_path)
    model, processor = from_backbone(tmp_path / "lvlm", tmp_path / "siglip", num_retained_tokens=6)
    worker, options = Worker(model, processor), {"max_new_tokens": 6}
    texts = ("segment two cats", "what is there?")
    messages = [({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]},) for text in texts]
    questions = [
        Question(image, messages=message, options=options) for image, message in zip(images, messages, strict=False)
    ]
    answered = worker.answer([worker.prepare(question) for question in questions])
    one_way = []
    for file, text, answer in zip(images, texts, answered, strict=False):
        inputs = processor(Image.open(io.BytesIO(file)), text)
        sequences = model.generate(**inputs, **options, do_sample=False)
        assert answer["results"][0]["answer"] == processor.decode_answers(sequences, inputs)[0]
        del inputs["token_type_ids"]
        one_way.append(not torch.equal(sequences, model.generate(**inputs, **options, do_sample=False)))
    assert any(one_way)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batchsize": 3}, "Unknown settings batchsize; allowed are model, dtype"),
        ({"batch_size": 0}, "`batch_size` is 0; allowed are numbers of at least 1"),
        ({"max_seconds": 0}, "`max_seconds` is 0"),
        ({"replicas": 3, "max_replicas": 2}, "`max_replicas` is 2, but `replicas` is 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings.read(arguments)


def test_states_do_not_keep_the_batch_that_they_were_part_of(embedded, images):
    worker = Worker(*embedded)
    items = [worker.prepare(Question(image, TEXTS[:1], options={"answer": "[SEG]"})) for image in images]
    worker.answer(items)
    for encoded in worker._kept.values():
        for value in encoded.state.values():
            assert value.untyped_storage().nbytes() == value.nbytes and isinstance(value, torch.Tensor)
