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
"""The pipeline: one call, many calls, batches and streams give the same entries."""

import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig, ImageTextToTextPipeline, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from litelvlm import LiteLVLMConfig
from litelvlm.modeling.pipeline_litelvlm import ReferringSegmentationPipeline

RNG = np.random.default_rng(0)
ITEMS = [
    {"image": Image.fromarray(RNG.integers(0, 255, size, dtype=np.uint8)), "text": text}
    for size, text in [((40, 30, 3), "the dog"), ((25, 50, 3), "a red, very long bus"), ((32, 32, 3), "it")]
]


@pytest.fixture
def pipe(make_text_model, processor):
    model = make_text_model()
    model.generation_config.max_new_tokens = 4
    # A random model never says [SEG]: let it say that in place of what it does say
    inputs = processor([i["image"] for i in ITEMS], [i["text"] for i in ITEMS])
    said, seg = int(model.segment(**inputs).sequences[0, inputs["input_ids"].shape[1]]), model.config.seg_token_id
    with torch.no_grad():
        model.lm_head.weight[[said, seg]] = model.lm_head.weight[[seg, said]]
    return ReferringSegmentationPipeline(model=model, processor=processor)


def same(one, two) -> bool:
    """Entries with equal answers and masks; scores to 1e-4, as a batch may round another way."""
    return len(one) == len(two) and all(
        a["label"] == b["label"]
        and a["answer"] == b["answer"]
        and a["score"] == pytest.approx(b["score"], abs=1e-4)
        and (a["mask"] is b["mask"] is None or np.array_equal(a["mask"], b["mask"]))
        for a, b in zip(one, two, strict=True)
    )


def test_every_way_to_call_gives_the_same(pipe):
    single = [pipe(item["image"], item["text"]) for item in ITEMS]
    assert any(entry["mask"] is not None for entries in single for entry in entries)
    for entries, item in zip(single, ITEMS, strict=True):
        for entry in entries:
            assert (
                entry.keys() == {"label", "score", "predicted_iou", "mask", "box", "answer", "reason"}
                and entry["label"] == item["text"]
            )
            if entry["mask"] is not None:
                assert entry["mask"].mode == "L" and entry["mask"].size == item["image"].size
                assert set(np.unique(entry["mask"])) <= {0, 255} and 0 <= entry["score"] <= 1
    ways = [
        [pipe(item) for item in ITEMS],
        pipe(ITEMS),
        pipe(ITEMS, batch_size=2),
        pipe([i["image"] for i in ITEMS], [i["text"] for i in ITEMS], batch_size=3),
    ]
    for way in ways:
        assert all(same(a, b) for a, b in zip(way, single, strict=True))


def test_a_generator_is_streamed(pipe):
    taken = []

    def items():
        for item in ITEMS * 10:
            taken.append(item)
            yield item

    results = pipe(items(), batch_size=2)
    assert same(next(iter(results)), pipe(ITEMS[0])) and len(taken) <= 4


def test_datasets_columns_and_iterators_are_streamed(pipe):
    single = pipe(ITEMS, batch_size=1)
    data = datasets.Dataset.from_list(ITEMS)
    texts = [item["text"] for item in ITEMS]
    ways = [
        pipe(data, batch_size=2),
        pipe(data.to_iterable_dataset()),
        pipe(data["image"], data["text"]),
        pipe(KeyDataset(data, "image"), texts, batch_size=3),
        pipe(map(dict, ITEMS)),
        pipe(iter(data["image"]), iter(texts)),
        pipe(np.array(ITEMS[0]["image"]), iter(texts[:1])),
    ]
    for way in ways:
        assert not isinstance(way, list)
        assert all(same(*pair) for pair in zip(way, single, strict=way is not ways[-1]))
    assert all(entry["label"] == "it" for entries in pipe(KeyDataset(data, "image"), "it") for entry in entries)
    assert pipe([]) == []
    with pytest.raises(ValueError, match="3 images and 2 texts"):
        pipe(data["image"], texts[:2])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        list(pipe(data["image"], iter(texts[:2])))


def test_each_of_several_answers_is_returned(pipe):
    options = {"do_sample": True, "num_return_sequences": 2, "threshold": 0.0}
    torch.manual_seed(0)
    results = pipe(ITEMS, batch_size=3, **options)
    assert len(results) == 3
    torch.manual_seed(0)
    inputs = pipe.processor([i["image"] for i in ITEMS], [i["text"] for i in ITEMS])
    output = pipe.model.segment(**inputs, do_sample=True, num_return_sequences=2)
    answers = pipe.processor.decode_answers(output, inputs)
    for i, (entries, item) in enumerate(zip(results, ITEMS, strict=True)):
        expected = [
            answer
            for answer, masks in list(zip(answers, output.pred_masks, strict=True))[2 * i : 2 * i + 2]
            for _ in range(max(1, len(masks)))
        ]
        assert [entry["answer"] for entry in entries] == expected
        assert all(entry["label"] == item["text"] for entry in entries)


def test_an_answer_without_seg_is_not_lost(pipe):
    pipe.model.config.seg_token_id = 0
    (entry,) = pipe(ITEMS[0])
    assert entry["mask"] is None and entry["score"] is None and isinstance(entry["answer"], str)
    assert entry["reason"] == "the answer holds no [SEG]"


def test_options_reach_the_model_and_bad_input_is_named(pipe):
    with pytest.raises(ValueError, match="`num_retained_tokens` is 99"):
        pipe(ITEMS[0], num_retained_tokens=99)
    with pytest.raises(ValueError, match="without a text"):
        pipe(ITEMS[0]["image"])
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        pipe([ITEMS[0]["image"]] * 2, ["a"])


def test_one_image_is_asked_each_of_many_texts(pipe):
    texts = [item["text"] for item in ITEMS]
    results = pipe(ITEMS[0]["image"], texts)
    assert len(results) == len(texts)
    for entries, text in zip(results, texts, strict=True):
        assert same(entries, pipe(ITEMS[0]["image"], text))


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 2), (2, 2), (6, 1)])
def test_an_image_with_many_texts_is_encoded_at_most_twice(pipe, batch_size, expected):
    texts = [item["text"] for item in ITEMS] * 2
    alone = [pipe(ITEMS[0]["image"], text) for text in texts]
    sizes = []
    pipe.model.sam.vision_encoder.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    results = pipe(ITEMS[0]["image"], texts, batch_size=batch_size)
    assert sizes == [1] * expected
    assert all(same(got, wanted) for got, wanted in zip(results, alone, strict=True))


def test_frames_in_the_same_memory_are_different_images(pipe):
    frames = [np.asarray(item["image"].resize((40, 30))) for item in ITEMS[:2]]
    assert not np.array_equal(*frames)
    memory = np.empty_like(frames[0])

    def video():
        for frame in (frames[0], frames[0], frames[1], frames[0]):
            memory[:] = frame
            yield {"image": memory, "text": ITEMS[0]["text"]}

    first, second = (pipe(Image.fromarray(frame), ITEMS[0]["text"]) for frame in frames)
    for got, wanted in zip(pipe(video()), (first, first, second, first), strict=True):
        assert same(got, wanted)


def test_score_is_the_mean_probability_inside_the_mask(pipe):
    inputs = pipe.processor(ITEMS[0]["image"], ITEMS[0]["text"]).to(pipe.device)
    output, sizes = pipe.model.segment(**inputs), (inputs["original_sizes"], inputs["reshaped_input_sizes"])
    (logits,) = pipe.processor.post_process_masks(output.pred_masks, *sizes, binarize=False)
    probability = logits[0].cpu().sigmoid()
    threshold = probability.median().item()  # so that both sides hold pixels
    mask, entry = probability > threshold, pipe(ITEMS[0], mask_threshold=threshold)[0]
    assert np.array_equal(np.asarray(entry["mask"]) == 255, mask)
    assert entry["score"] == pytest.approx(probability[mask].mean().item(), abs=1e-5)
    assert entry["predicted_iou"] == pytest.approx(output.mask_scores[0][0].item(), abs=1e-5)
    assert {entry["score"] for entry in pipe(ITEMS[0], mask_threshold=1.0)} == {0.0}  # not the mean of nothing


def test_masks_of_a_low_score_are_left_out(pipe):
    found = pipe(ITEMS[0], mask_threshold=0.0)
    score = found[0]["score"]
    assert 0 < score < 1 and pipe(ITEMS[0], mask_threshold=0.0, threshold=score - 0.01) == found
    # Left out, not missing: the answer did hold [SEG]
    assert pipe(ITEMS[0], mask_threshold=0.0, threshold=max(entry["score"] for entry in found) + 1e-3) == []
    with pytest.raises(ValueError, match=r"`threshold` is 1.5; allowed are probabilities"):
        pipe(ITEMS[0], threshold=1.5)


def test_options_of_the_pipeline_hold_in_its_calls(pipe):
    options = {"mask_threshold": 0.25, "num_retained_tokens": 3, "question_template": "Where is {}?"}
    configured = ReferringSegmentationPipeline(model=pipe.model, processor=pipe.processor, **options)
    expected = pipe(ITEMS[0], threshold=0.1, **options)
    assert same(configured(ITEMS[0], threshold=0.1), expected) and not same(pipe(ITEMS[0]), expected)


def test_an_answer_is_taken_as_given(make_text_model, processor):
    pipe = ReferringSegmentationPipeline(model=make_text_model(), processor=processor)
    results = pipe(ITEMS, answer="It is [SEG].", batch_size=2)
    assert [[entry["answer"] for entry in entries] for entries in results] == [["It is [SEG]."]] * 3
    for entries, item in zip(results, ITEMS, strict=True):
        inputs = processor(item["image"], item["text"], answers="It is [SEG].")
        inputs.pop("labels")
        with torch.no_grad():
            forced = pipe.model(**inputs)
        (expected,) = processor.post_process_instance_segmentation(forced, inputs)[0]
        assert entries[0]["score"] == pytest.approx(expected["score"], abs=1e-4)


def test_the_named_task_loads_without_trusting_remote_code(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = pipeline("referring-segmentation", model=str(tmp_path))
    assert type(loaded) is ReferringSegmentationPipeline
    assert same(loaded(ITEMS[0]), pipe(ITEMS[0]))


def test_a_data_set_ends_where_its_length_says(pipe):
    class Endless(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return ITEMS[index % 3]

    assert len(list(pipe(Endless(), batch_size=2))) == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 32),
        ({"max_new_tokens": 5}, 5),
        ({"generation_config": GenerationConfig(max_new_tokens=6, pad_token_id=0)}, 6),
        ({"max_length": 300}, None),
    ],
)
def test_answers_are_as_long_as_asked_for_and_else_32_tokens(pipe, monkeypatch, options, expected):
    pipe.model.generation_config.max_new_tokens = pipe.model.generation_config.eos_token_id = None
    lengths, segment = [], pipe.model.segment

    def recorded(**kwargs):
        output = segment(**kwargs)
        prompt = kwargs["input_ids"].shape[1]
        lengths.append((prompt, output.sequences.shape[1] - prompt))
        return output

    monkeypatch.setattr(pipe.model, "segment", recorded)
    pipe(ITEMS[0], **options)
    ((prompt, new),) = lengths
    assert new == (300 - prompt if expected is None else expected)


def test_saved_pipeline_loads_without_the_name_of_its_task(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = pipeline(model=str(tmp_path), trust_remote_code=True)
    assert loaded.task == "referring-segmentation"
    assert all(same(loaded(item), pipe(item)) for item in ITEMS)


def test_model_answers_in_the_image_text_to_text_pipeline_too(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    chat = pipeline("image-text-to-text", model=str(tmp_path))
    parts = [{"type": "image", "image": ITEMS[0]["image"]}, {"type": "text", "text": "What is this?"}]
    (result,) = chat([{"role": "user", "content": parts}])
    assert result["generated_text"][-1]["role"] == "assistant"


@pytest.fixture
def text_only(make_text_model, processor, tmp_path):
    """A saved model without SAM, and what it answers about the first item by itself."""
    model = make_text_model(sam_config=None)
    processor.with_masks, processor.question_template = False, "{}"
    for part in (model, processor):
        part.save_pretrained(tmp_path / "saved")
    inputs = processor(ITEMS[0]["image"], "What is this?")
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return str(tmp_path / "saved"), processor.decode_answers(tokens, inputs)[0]


def test_saved_model_without_masks_is_loaded_into_the_pipeline_for_text(text_only):
    folder, expected = text_only
    parts = [{"type": "image", "image": ITEMS[0]["image"]}, {"type": "text", "text": "What is this?"}]
    for options in ({"trust_remote_code": True}, {"task": "image-text-to-text"}, {}):
        chat = pipeline(model=folder, **options)
        assert chat.task == "image-text-to-text" and type(chat) is ImageTextToTextPipeline
        (result,) = chat([{"role": "user", "content": parts}], max_new_tokens=4, do_sample=False)
        assert result["generated_text"][-1]["content"].strip() == expected


def test_pipeline_for_masks_refuses_a_model_without_as_it_is_made(text_only):
    with pytest.raises(ValueError, match=r"makes no masks.*`pipeline\(.image-text-to-text., model=.*`"):
        pipeline("referring-segmentation", model=text_only[0])


def test_task_follows_the_masks_that_a_model_makes(make_text_model, processor, tmp_path):
    """Where SAM is left out as a model is loaded, too."""
    make_text_model().save_pretrained(tmp_path)
    for sam_config, task in ((None, "image-text-to-text"), (..., "referring-segmentation")):
        options = {} if sam_config is ... else {"sam_config": sam_config}
        config = LiteLVLMConfig.from_pretrained(tmp_path, **options)
        assert list(config.custom_pipelines) == list(config.to_dict()["custom_pipelines"]) == [task]
        again = LiteLVLMConfig.from_dict(config.to_dict())
        assert list(again.custom_pipelines) == [task]
    # Of a repository on the Hub Transformers writes its name before that of the code
    held = config.to_dict()
    held["custom_pipelines"][task]["impl"] = f"org/name--{held['custom_pipelines'][task]['impl']}"
    assert LiteLVLMConfig.from_dict(held).custom_pipelines[task]["impl"].startswith("org/name--")


def test_saved_model_without_masks_answers_in_a_pipeline_without_the_package(text_only, tmp_path):
    folder, expected = text_only
    ITEMS[0]["image"].save(tmp_path / "image.png")
    code = (
        "import sys\n"
        "sys.modules['litelvlm'] = None\n"
        "from transformers import pipeline\n"
        f"chat = pipeline(model={folder!r}, trust_remote_code=True)\n"
        "parts = [{'type': 'image', 'path': 'image.png'}, {'type': 'text', 'text': 'What is this?'}]\n"
        "(result,) = chat([{'role': 'user', 'content': parts}], max_new_tokens=4, do_sample=False)\n"
        "print(result['generated_text'][-1]['content'].strip() == "
        f"{expected!r})\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == "True", done.stderr[-2000:]
