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
"""SAM 2 in the place of SAM: its masks are those of Transformers' `Sam2Model`, and all that SAM does goes on."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoModel,
    SamModel,
)

import litelvlm
from litelvlm.configuration.configuration_litelvlm import LiteLVLMConfig
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.pipeline_litelvlm import ReferringSegmentationPipeline
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

from ..sam2 import SAM2
from ..without_package import check_loads_without_the_package

SEG_ID, SIDE = 91, 64
GENERATE = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}


@pytest.fixture
def model(make_model):
    return with_values(make_model(sam_config=SAM2))


def with_values(model):
    """Its SAM 2 starts with weights of 0, and others so small that all masks would be nearly 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.sam.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def says_seg(model, **inputs):
    """Lets a random model say [SEG] in place of what it says first."""
    said = int(model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1])
    seg = model.config.seg_token_id
    with torch.no_grad():
        model.lm_head.weight[[said, seg]] = model.lm_head.weight[[seg, said]]


def masks_by_hand(model, prompts, images):
    """Masks and predicted IoUs of prompts `(B, M, C)` by Transformers' SAM 2 alone, with this model's weights."""
    sam2 = Sam2Model(model.config.sam_config).eval().to(model.dtype)
    sam2.load_state_dict(model.sam.model.state_dict())
    embeddings = sam2.get_image_embeddings(images)
    _, dense = sam2.prompt_encoder(None, None, None, None)
    with torch.no_grad():
        masks, iou, _, _ = sam2.mask_decoder(
            image_embeddings=embeddings[-1],
            image_positional_embeddings=sam2.get_image_wide_positional_embeddings().repeat(len(images), 1, 1, 1),
            sparse_prompt_embeddings=prompts[:, :, None],
            dense_prompt_embeddings=dense,
            multimask_output=False,
            high_resolution_features=embeddings[:-1],
        )
    return masks[:, :, 0], iou[:, :, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_are_those_of_transformers_own_sam2_bit_for_bit(model, make_batch, dtype):
    model, batch = model.to(dtype), make_batch(2)
    batch["input_ids"][:, [22, 25, -1]] = SEG_ID
    with torch.no_grad():
        output = model(**batch)
    prompts = torch.stack(output.seg_embeddings)
    assert prompts.shape == (2, 3, 16) and not torch.equal(prompts[0, 0], prompts[0, 1])
    masks, iou = masks_by_hand(model, prompts, batch["sam_pixel_values"].to(dtype))
    assert torch.equal(torch.stack(output.pred_masks), masks) and masks.shape == (2, 3, 16, 16)
    assert torch.equal(torch.stack(output.mask_scores), iou)
    assert not torch.equal(masks[0, 0], masks[0, 1]) and not torch.equal(masks[0], masks[1])


def test_an_image_that_is_encoded_once_gives_the_same_masks_to_every_question(model, make_batch):
    batch = make_batch(2)
    says_seg(model, **{name: value for name, value in batch.items() if name != "sam_pixel_values"})
    state = model.encode_image(batch.pop("pixel_values"), batch.pop("sam_pixel_values"))
    assert state.sam_image_embeddings.shape == (2, 64, 4, 4)
    # Each image is asked two questions: its own, and that of the other
    order = torch.tensor([0, 1, 1, 0])
    asked = {name: value[order] for name, value in batch.items()}
    together = model.segment(**asked, image_state=state, **GENERATE)
    assert sum(map(len, together.pred_masks)) >= 4
    for i, image in enumerate((0, 0, 1, 1)):
        one = type(state)(**{name: value[image : image + 1] for name, value in state.items()})
        alone = model.segment(**{n: v[i : i + 1] for n, v in asked.items()}, image_state=one, **GENERATE)
        assert torch.equal(alone.sequences[0], together.sequences[i])
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.mask_scores[0], together.mask_scores[i], atol=1e-5, rtol=1e-4)


def test_answers_without_a_mask_hold_none_of_the_right_size(model, make_batch):
    output = model.segment(**make_batch(1), **GENERATE)
    assert SEG_ID not in output.sequences[0, 30:]
    assert output.pred_masks[0].shape == (0, 16, 16) and output.mask_scores[0].shape == (0,)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_losses_reach_the_head_and_every_part_of_sam2_that_makes_masks(model, make_batch, is_checkpointed):
    batch = make_batch(2)
    batch["input_ids"][:, -2] = SEG_ID
    labels = [(torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2)) > 0.5).float()] * 2
    model.train()
    if is_checkpointed:
        model.gradient_checkpointing_enable()
    output = model(**batch, mask_labels=labels)
    (output.bce_loss + output.dice_loss).backward()
    sam2 = model.sam.model
    weights = [model.seg_head.linear_1.weight, model.seg_head.linear_2.weight, sam2.no_memory_embedding]
    weights += [sam2.mask_decoder.conv_s0.weight, sam2.vision_encoder.backbone.patch_embed.projection.weight]
    weights += [sam2.vision_encoder.neck.convs[0].weight, sam2.prompt_encoder.no_mask_embed.weight]
    weights += [model.get_input_embeddings().weight]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_a_frozen_sam2_lets_the_gradient_through_to_the_head(model, make_batch):
    batch = make_batch(1)
    batch["input_ids"][:, -2] = SEG_ID
    model.sam.requires_grad_(False)
    model.train()(**batch, mask_labels=[torch.ones(1, 16, 16)]).loss.backward()
    assert model.seg_head.linear_1.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.sam.parameters())


def test_layers_on_disk_give_the_same_masks(model, make_batch, tmp_path):
    batch = make_batch()
    batch["input_ids"][:, -2] = SEG_ID
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        expected = model(**batch)
    device_map = {"model": "cpu", "lm_head": "cpu", "seg_head": "disk", "sam": "disk"}
    offloaded = LiteLVLMForSegmentation.from_pretrained(
        tmp_path / "saved", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert {p.device.type for p in offloaded.sam.parameters()} == {"meta"}
    with torch.no_grad():
        got = offloaded(**batch)
    for mask, other in zip(got.pred_masks, expected.pred_masks, strict=True):
        torch.testing.assert_close(mask, other)


def test_sam2_stays_on_one_device(model):
    assert "LiteLVLMSam2" in model._no_split_modules and type(model.sam).__name__ == "LiteLVLMSam2"


def test_images_of_another_size_are_refused_by_name(model, make_batch):
    batch = make_batch(2) | {"sam_pixel_values": torch.zeros(2, 3, 32, 32)}
    with pytest.raises(ValueError, match=r"`sam_pixel_values` has shape \(2, 3, 32, 32\).*takes \(images, 3, 64, 64"):
        model(**batch)


def test_compiling_and_eager_attention_change_no_mask(model, make_batch):
    batch = make_batch(1)
    batch["input_ids"][:, -2] = SEG_ID
    with torch.no_grad():
        expected = model(**batch).pred_masks[0]
        model.set_attn_implementation("eager")
        assert model.sam.model.config._attn_implementation == "eager"
        torch.testing.assert_close(model(**batch).pred_masks[0], expected, atol=1e-4, rtol=1e-4)
        model.compile_for_inference(backend="eager")
        torch.testing.assert_close(model(**batch).pred_masks[0], expected, atol=1e-4, rtol=1e-4)


# --- configuration ---------------------------------------------------------------------------------------------------


def test_the_model_type_of_its_configuration_chooses_the_decoder(config_values):
    for given in (SAM2, Sam2Config(**SAM2)):
        config = LiteLVLMConfig(**config_values | {"sam_config": given})
        assert type(config.sam_config) is Sam2Config
        again = LiteLVLMConfig.from_dict(config.to_dict())
        assert type(again.sam_config) is Sam2Config and again.to_dict() == config.to_dict()
    assert LiteLVLMConfig(**config_values).sam_config.model_type == "sam"


def test_a_sam_of_another_kind_is_refused_by_name(config_values):
    for given in ({"model_type": "sam_hq"}, Sam2VideoConfig()):
        with pytest.raises(ValueError, match=r"`sam_config.model_type` is '.*'; allowed are 'sam', 'sam2'"):
            LiteLVLMConfig(**config_values | {"sam_config": given})


def test_sizes_of_sam2_that_differ_are_refused_by_name(config_values):
    with pytest.raises(ValueError, match="`mask_embedding_size` is 8 but SAM's prompts have 16"):
        LiteLVLMConfig(**config_values | {"sam_config": SAM2, "mask_embedding_size": 8})
    other = SAM2 | {"prompt_encoder_config": SAM2["prompt_encoder_config"] | {"image_size": 128}}
    with pytest.raises(ValueError, match=r"`sam_config.vision_config.backbone_feature_sizes` ends in \[4, 4\].*\[8, "):
        LiteLVLMConfig(**config_values | {"sam_config": other})


# --- images and masks ------------------------------------------------------------------------------------------------


def sam2_images():
    return Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16})


@pytest.fixture
def sam2_processor(processor):
    processor.sam_image_processor = sam2_images()
    return processor


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_images_are_stretched_and_masks_come_back_as_sam2s_own_processor_has_them(sam2_processor, image):
    own = sam2_processor.sam_image_processor
    inputs = sam2_processor([image, image.resize((25, 50))], ["a dog", "a cat"])
    assert torch.equal(inputs["sam_pixel_values"][:1], own(image, return_tensors="pt")["pixel_values"])
    assert inputs["original_sizes"].tolist() == [[40, 30], [50, 25]]
    assert inputs["reshaped_input_sizes"].tolist() == [[SIDE, SIDE]] * 2
    logits = [torch.randn(2, 16, 16), torch.randn(0, 16, 16)]
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    masks = sam2_processor.post_process_masks(logits, *sizes)
    assert torch.equal(masks[0], own.post_process_masks([logits[0][:, None]], [[40, 30]])[0][:, 0])
    assert masks[0].dtype == torch.bool and masks[1].shape == (0, 50, 25)


def test_labels_of_masks_fill_the_whole_square(sam2_processor, image):
    drawn = np.zeros((1, 40, 30), dtype=np.uint8)
    drawn[:, 20:, :15] = 1
    inputs = sam2_processor(image, "a dog", answers="It is [SEG].", segmentation_maps=[drawn])
    expected = torch.zeros(1, 16, 16)
    expected[:, 8:, :8] = 1
    assert torch.equal(inputs["mask_labels"][0], expected)
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    (mask,) = sam2_processor.post_process_masks([expected - 0.5], *sizes)
    assert torch.equal(mask, torch.from_numpy(drawn).bool())


def test_a_processor_for_another_sam_is_refused_by_name(make_text_model, processor, sam2_processor):
    sam2_processor.check_fits(make_text_model(sam_config=SAM2).config)
    with pytest.raises(ValueError, match="kind of SAM that images are prepared for is sam2 in the processor, but sam"):
        sam2_processor.check_fits(make_text_model().config)


def test_a_saved_folder_loads_without_the_package(make_text_model, sam2_processor, image, tmp_path):
    model = with_values(make_text_model(sam_config=SAM2))
    check_loads_without_the_package(tmp_path, model, sam2_processor, [image], ["a dog"], GENERATE)
    again = LiteLVLMForSegmentation.from_pretrained(tmp_path / "saved")
    loaded = LiteLVLMProcessor.from_pretrained(tmp_path / "saved")
    assert type(loaded.sam_image_processor) is Sam2ImageProcessor
    inputs, answer = loaded(image, "a dog"), {"answer": "It is [SEG].", "processor": loaded}
    got, expected = (one.segment(**inputs, **answer).pred_masks[0] for one in (again, model))
    assert expected.abs().mean() > 0.01
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_pipeline_gives_masks_of_the_image(make_text_model, sam2_processor, image):
    pipe = ReferringSegmentationPipeline(model=make_text_model(sam_config=SAM2), processor=sam2_processor)
    (entry,) = pipe(image, "a dog", answer="It is [SEG].")
    assert entry["mask"].size == image.size and 0 <= entry["predicted_iou"] <= 1
    assert pipe([{"image": image, "text": "a dog"}] * 3, answer="It is [SEG].", batch_size=2)[2][0]["label"] == "a dog"


# --- an LVLM that is to learn masks ----------------------------------------------------------------------------------


@pytest.fixture
def parts(make_text_model, processor, tmp_path):
    """
    Folders of a tiny LLaVA without an embedding of [SEG], and of its CLIP; and `write_sam(kind)`, which gives those of
    a SAM.
    """
    tokenizer, guide = processor.tokenizer, processor.guide_tokenizer
    config = make_text_model().config
    backbone, vision = config.backbone_config, config.vision_config.to_dict()
    backbone.text_config.vocab_size = len(tokenizer) - 1
    LlavaForConditionalGeneration(backbone).save_pretrained(tmp_path / "lvlm")
    LlavaProcessor(
        processor.image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=processor.chat_template,
        num_additional_image_tokens=1,
    ).save_pretrained(tmp_path / "lvlm")
    clip = CLIPConfig(text_config=config.guide_config.to_dict(), vision_config=vision, projection_dim=16)
    CLIPModel(clip).save_pretrained(tmp_path / "clip")
    guide.save_pretrained(tmp_path / "clip")

    def write_sam(kind):
        values = {name: value for name, value in SAM2.items() if name != "model_type"}
        if kind == "sam":
            sam, image_processor = SamModel(config.sam_config), processor.sam_image_processor
        else:
            sam = Sam2Model(Sam2Config(**values)) if kind == "sam2" else Sam2VideoModel(video_config(**values))
            image_processor = sam2_images()
        sam.save_pretrained(tmp_path / kind)
        image_processor.save_pretrained(tmp_path / kind)
        return tmp_path / kind, sam

    return tmp_path / "lvlm", tmp_path / "clip", write_sam


def video_config(**values):
    widths = ("attention_hidden_size", "attention_feed_forward_hidden_size", "encoder_hidden_size")
    widths += ("fuser_embed_dim", "fuser_intermediate_dim")
    # Transformers 5.17 takes a `dict` for the configuration of a prompt encoder
    values["mask_decoder_config"] = Sam2VideoMaskDecoderConfig(**values["mask_decoder_config"])
    return Sam2VideoConfig(
        **values,
        **{f"memory_{name}": 16 for name in widths},
        image_size=SIDE,
        memory_attention_num_layers=1,
        memory_attention_rope_feat_sizes=[4, 4],
        mask_downsampler_embed_dim=16,
    )


@pytest.mark.parametrize("kind", ["sam", "sam2", "sam2_video"])
def test_an_lvlm_is_wrapped_with_a_sam_to_learn_masks_by(parts, image, kind, tmp_path):
    lvlm, clip, write_sam = parts
    folder, sam = write_sam(kind)
    model, own = litelvlm.from_backbone(lvlm, clip, sam=folder, num_retained_tokens=6)
    own.check_fits(model.config)
    assert type(model) is LiteLVLMForSegmentation
    assert not hasattr(model.config.sam_config, "memory_encoder_hidden_size")  # of no use without the rest
    assert model.config.seg_token_id == len(own.tokenizer) - 1 == model.config.get_text_config().vocab_size - 1
    trained = sam.state_dict()
    found = {name.removeprefix("model."): weight for name, weight in model.sam.state_dict().items()}
    assert len(found) > 100 and all(torch.equal(weight, trained[name]) for name, weight in found.items())
    inputs = own(image, "a dog", answers="It is [SEG].", segmentation_maps=[np.ones((1, 40, 30), np.uint8)])
    output = model(**inputs)
    output.loss.backward()
    assert output.bce_loss > 0 and model.seg_head.linear_1.weight.grad.abs().sum() > 0
    for part in (model, own):
        part.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        again = LiteLVLMForSegmentation.from_pretrained(tmp_path / "saved")(**inputs)
    torch.testing.assert_close(again.pred_masks[0], output.pred_masks[0].detach(), atol=1e-6, rtol=1e-4)


def test_what_is_no_sam_for_an_lvlm_is_refused_by_name(parts, tmp_path):
    lvlm, clip, _ = parts
    from_backbone = LiteLVLMForSegmentation.from_backbone
    with pytest.raises(ValueError, match="clip' is a 'clip' model; allowed are 'sam', 'sam2' and 'sam2_video'"):
        from_backbone(lvlm, clip, sam=clip, seg_token_id=7)
    with pytest.raises(ValueError, match="`sam_config` is given, but it has no weights; name a SAM as `sam`"):
        from_backbone(lvlm, clip, sam_config=SAM2, seg_token_id=7)
    loaded = Sam2Model(LiteLVLMConfig(sam_config=SAM2, seg_token_id=7, mask_embedding_size=16).sam_config)
    for build in (litelvlm.from_backbone, from_backbone, litelvlm.LiteLVLMProcessor.from_backbone):
        with pytest.raises(ValueError, match="`sam` is a Sam2Model; allowed is a Hub id or a folder, by name"):
            build(lvlm, clip, sam=loaded)
    Qwen2VLConfig().save_pretrained(tmp_path / "qwen")
    with pytest.raises(ValueError, match="`sam` is given, but a 'qwen2_vl' answers in text only"):
        litelvlm.from_backbone(tmp_path / "qwen", sam=clip)


@pytest.mark.parametrize("shown", [[[64, 64]], [[64, 48]]], ids=["stretched", "padded"])
@pytest.mark.parametrize("decoder", ["sam", "sam2"])
def test_images_prepared_for_the_other_sam_are_refused(make_model, make_batch, decoder, shown):
    """The sizes tell it, also where both SAMs see squares of as many pixels."""
    model = make_model(**({"sam_config": SAM2} if decoder == "sam2" else {}))
    batch = make_batch(1)
    side = model.config.sam_square_config.image_size
    sizes = {"original_sizes": torch.tensor([[400, 300]]), "reshaped_input_sizes": torch.tensor(shown) * side // 64}
    fits = (decoder == "sam2") == (shown == [[64, 64]])
    with nullcontext() if fits else pytest.raises(ValueError, match="this model's own processor"):
        model.segment(**batch, **sizes, **GENERATE)
    with nullcontext() if fits else pytest.raises(ValueError, match="this model's own processor"):
        model(**batch, **sizes)
