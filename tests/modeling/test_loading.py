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
"""Model and processor are loaded whole and together, or not at all: else masks would be wrong without a word."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, pipeline

import litelvlm
from litelvlm.commands.main import main
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.evaluation.clip import load_clip
from litelvlm.modeling.modeling_litelvlm import (
    LiteLVLMForConditionalGeneration,
    LiteLVLMForSegmentation,
    LiteLVLMModel,
)
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor


@pytest.fixture
def saved(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def with_weights(folder, saved, change):
    """A copy of a saved folder whose tensors a function has changed."""
    shutil.copytree(saved, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "part",
    [
        "seg_head.linear_2.bias",
        "sam.mask_decoder",
        "model.guide",
        "lm_head",
        "model.backbone.language_model.model.layers.0.",
    ],
)
def test_a_checkpoint_that_lacks_weights_is_refused_by_their_names(saved, tmp_path, part):
    def drop(tensors):
        for name in [name for name in tensors if name.startswith(part)]:
            del tensors[name]

    folder = with_weights(tmp_path / "changed", saved, drop)
    named = part.replace("language_model.model.", "language_model.")  # as the model calls it, not the file
    for auto_class in (LiteLVLMForSegmentation, AutoModel):
        with pytest.raises(ValueError, match=f"do not fill the model that its config.json .*missing: {named}"):
            auto_class.from_pretrained(folder)
        assert auto_class.from_pretrained(folder, ignore_incomplete_weights=True).config.model_type == "litelvlm"


def test_renamed_and_reshaped_weights_are_refused_and_a_part_of_a_model_is_not(saved, tmp_path):
    def rename(tensors):
        tensors["seg_haed.linear_1.bias"] = tensors.pop("seg_head.linear_1.bias")

    with pytest.raises(ValueError, match=r"missing: seg_head.linear_1.bias; unknown: seg_haed.linear_1.bias"):
        LiteLVLMForSegmentation.from_pretrained(with_weights(tmp_path / "renamed", saved, rename))

    def reshape(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()

    folder = with_weights(tmp_path / "reshaped", saved, reshape)
    with pytest.raises(ValueError, match=r"of another shape: lm_head.weight"):
        LiteLVLMForSegmentation.from_pretrained(folder)
    LiteLVLMForSegmentation.from_pretrained(folder, ignore_mismatched_sizes=True)
    # Text answers without masks, and the model without its head
    for part in (LiteLVLMForConditionalGeneration, LiteLVLMModel):
        assert type(part.from_pretrained(saved)) is part


def test_a_configuration_with_more_layers_than_the_file_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    config["backbone_config"]["text_config"]["num_hidden_layers"] += 1
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"missing: model.backbone.language_model.layers.\d+.* and \d+ more"):
        LiteLVLMForSegmentation.from_pretrained(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["seg_head.linear_2.bias", "model.guide.visual_projection.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(saved, tmp_path, name, value):
    folder = with_weights(tmp_path / "changed", saved, lambda tensors: tensors[name].view(-1)[:1].fill_(value))
    with pytest.raises(ValueError, match=f"not finite: {name}"):
        LiteLVLMForSegmentation.from_pretrained(folder)
    LiteLVLMForSegmentation.from_pretrained(folder, ignore_incomplete_weights=True)


def test_weights_in_half_precision_may_have_sums_beyond_it(saved, tmp_path):
    def enlarge(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"].new_full(tensors["lm_head.weight"].shape, 6e4)

    folder = with_weights(tmp_path / "changed", saved, enlarge)
    LiteLVLMForSegmentation.from_pretrained(folder, dtype=torch.float16)


@pytest.mark.parametrize(("config", "message"), [(None, "no config.json"), ({"model_type": "llava"}, "type 'llava'")])
def test_a_folder_that_describes_no_litelvlm_is_refused_before_a_model_is_built(saved, config, message):
    (saved / "config.json").unlink()
    if config:
        (saved / "config.json").write_text(json.dumps(config))
    for loader in (LiteLVLMForSegmentation, LiteLVLMForConditionalGeneration, LiteLVLMConfig):
        with pytest.raises(ValueError, match=f"has .*{message}.*; allowed is a saved or converted LiteLVLM model"):
            loader.from_pretrained(saved)


def test_without_a_generation_config_answers_end_where_the_language_model_ends_them(tiny):
    model, processor = litelvlm.load_tiny()
    inputs = processor(images=litelvlm.EXAMPLE_IMAGE, text="the red circle")
    expected = model.generate(**inputs, max_new_tokens=32)
    (tiny / "generation_config.json").unlink()
    for auto_class in (LiteLVLMForSegmentation, AutoModel):
        found = auto_class.from_pretrained(tiny).generate(**inputs, max_new_tokens=32)
        assert torch.equal(found, expected)


@pytest.fixture
def tiny(tmp_path):
    shutil.copytree(litelvlm.TINY_MODEL, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off"])
def test_the_guide_never_reads_by_the_language_models_tokenizer(tiny, damage, capsys):
    folder = tiny / "guide_tokenizer"
    if damage == "cut off":
        (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:500])
    else:
        shutil.rmtree(folder)
    if damage == "empty":
        folder.mkdir()
    for load in (LiteLVLMProcessor, AutoProcessor):
        with pytest.raises(OSError, match="guide's tokenizer cannot be loaded from `guide_tokenizer`"):
            load.from_pretrained(tiny)
    assert main(["segment", "example", "the red circle", "--model", str(tiny), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "guide's tokenizer cannot be loaded" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_image_tokens": 144}, "The visual tokens of an image is 144 in the processor, but 256"),
        ({"image_token": "<unk>"}, "The id of the image's placeholder is 0 in the processor, but"),
    ],
)
def test_a_processor_of_another_model_is_named_by_what_differs(change, message):
    model, processor = litelvlm.load_tiny()
    for name, value in change.items():
        setattr(processor, name, value)
    with pytest.raises(ValueError, match=message):
        processor.check_fits(model.config)
    with pytest.raises(ValueError, match=message):
        pipeline("referring-segmentation", model=model, processor=processor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: setattr(config, "seg_token_id", 7), r"The id of \[SEG\] is \d+ in the processor, but 7"),
        (lambda config: setattr(config.guide_config, "eos_token_id", 5), "The id of CLIP's end token is .* but 5"),
        (lambda config: setattr(config.guide_config, "vocab_size", 9), "The number of tokens of the guide's .* but 9"),
    ],
)
def test_a_model_of_another_processor_is_named_by_what_differs(change, message):
    model, processor = litelvlm.load_tiny()
    processor.check_fits(model.config)
    change(model.config)
    with pytest.raises(ValueError, match=message):
        processor.check_fits(model.config)


def test_a_clip_is_not_diagnosed_by_the_processor_of_another_model(tiny):
    config = json.loads((tiny / "config.json").read_text())
    config["seg_token_id"] = 7
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"cannot be loaded: The id of \[SEG\] is \d+ in the processor, but 7"):
        load_clip(str(tiny))


OBJECTS = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("held", ["[1]", "null", '"a"'])
@pytest.mark.parametrize("name", [*OBJECTS, "guide_tokenizer/tokenizer.json", "guide_tokenizer/tokenizer_config.json"])
def test_a_json_file_of_another_shape_is_named(tiny, name, held, capsys):
    (tiny / name).write_text(held)
    assert main(["segment", "example", "the red circle", "--model", str(tiny), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name.rpartition("/")[2] in error and "JSON" in error and "anew" in error


@pytest.mark.parametrize("name", ["tokenizer.json", "guide_tokenizer/tokenizer.json"])
def test_a_tokenizer_without_its_parts_is_named(tiny, name):
    (tiny / name).write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json' lacks added_tokens, model; download"):
        LiteLVLMProcessor.from_pretrained(tiny)


@pytest.mark.parametrize("damage", ["cut off", "empty", "pointer"])
def test_damaged_weights_are_named(tiny, damage):
    path = tiny / "model.safetensors"
    whole = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    path.write_bytes({"cut off": whole[: len(whole) // 2], "empty": b"", "pointer": pointer}[damage])
    said = "which `git lfs pull` fetches" if damage == "pointer" else "weights that are cut off or damaged"
    with pytest.raises(ValueError, match=said):
        LiteLVLMForSegmentation.from_pretrained(tiny)


def test_a_failure_that_is_no_damage_stays_as_it_is(tiny):
    with pytest.raises(TypeError, match="unexpected keyword"):
        LiteLVLMForSegmentation.from_pretrained(tiny, unknown_option=1)


@pytest.mark.parametrize("name", ["backbone_config", "guide_config", "sam_config", "custom_pipelines"])
def test_a_part_of_a_configuration_that_is_none_is_named(tiny, name):
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | {name: [2]}))
    with pytest.raises(ValueError, match=rf"`{name}` is \[2\]; allowed is a configuration"):
        LiteLVLMConfig.from_pretrained(tiny)
