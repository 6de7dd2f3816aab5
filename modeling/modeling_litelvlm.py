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
PyTorch LiteLVLM model: any LVLM of Transformers with CLIP's or SigLIP's vision tower, whose visual tokens are pruned
before its language model runs, guided by the tower's text tower, with SAM behind [SEG] tokens.

Placeholders stay in `input_ids` as the LVLM's processor writes them; what belongs to pruned patches is dropped from
embeddings, attention mask, labels and position ids. Every image keeps the same number of tokens, so a batch stays
rectangular. B = batch, I = its images (B unless conversations have several), L = sequence length before and R after
pruning, T = texts per conversation, N = patches, K = retained tokens, D = width of the vision tower, P = width of
CLIP's joint space.
"""

import os
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    CLIPModel,
    CLIPVisionConfig,
    GenerationMixin,
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    SiglipConfig,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches
from transformers.processing_utils import Unpack
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import TransformersKwargs, auto_docstring, can_return_tuple, logging
from transformers.utils.import_utils import torch_compilable_check

from ..configuration.configuration_litelvlm import TEXTLESS_TOWERS, LiteLVLMConfig, OpenCLIPGuideConfig
from .damage_litelvlm import is_finite, naming_damage
from .generation_litelvlm import SELECTION, GenerationRecord, LiteLVLMGenerationMixin
from .guide_external_litelvlm import LiteLVLMExternalGuide, map_onto_grids
from .guide_litelvlm import LiteLVLMGuide, class_token_attention, default_guide, load_parent
from .guide_open_clip_litelvlm import LiteLVLMOpenCLIPGuide
from .guide_siglip_litelvlm import LiteLVLMSiglipGuide
from .hub_litelvlm import HUB_OPTIONS, check_is_name, export_code
from .outputs_litelvlm import (
    LiteLVLMImageState,
    LiteLVLMModelOutput,
    LiteLVLMSegmentationOutput,
    as_counts,
    check_images_per_prompt,
)
from .prefix_litelvlm import add_prefix
from .prompt_litelvlm import CachedPrompt, Prompt, check_placeholders, check_shape, count_visible, find_token
from .pruning_litelvlm import (
    KEEP_ALL,
    LayerwisePruner,
    PruningPlan,
    PruningSignals,
    RetainedTokens,
    TokenSelector,
    class_token_contribution,
    cosine_class_token_contribution,
    patch_text_similarity,
)
from .sam2_litelvlm import LiteLVLMSam2
from .sam_litelvlm import LiteLVLMSam, LiteLVLMSegHead, mask_losses
from .shared_prefix_litelvlm import SharedPrefix, can_share_prefix
from .versions_litelvlm import CACHE_NAME, cache_of, slice_logits_to_keep

logger = logging.get_logger(__name__)

# `position_mode` is the user's choice, and no checkpoint's.
# trf-ignore: TRF041 position_mode

# Options of `generate` for which `segment` has no output
_NOT_RETURNED = (
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "return_dict_in_generate",
)

# Arguments of `save_pretrained` that are for `push_to_hub`
_PUSH_OPTIONS = ("repo_id", "commit_message", "private", "revision", "create_pr", "tags")

# What Transformers' quantizers call the modules that they leave alone, and ours: with the prefix of a model with a
# head, and without
_SKIP_OPTIONS = ("modules_to_not_convert", "llm_int8_skip_modules")
_OF_BACKBONE = ("backbone.vision_tower", "backbone.visual", "backbone.multi_modal_projector", "guide")
_FULL_PRECISION = [*_OF_BACKBONE, *(f"model.{name}" for name in _OF_BACKBONE), "lm_head", "seg_head", "sam"]

# Arguments of every `forward` below
_SHARED_ARGUMENTS = r"""
    input_ids (`torch.LongTensor` of shape `(B, L)`):
        N image placeholders for each image of a sample: for one, or for as many as `batch_num_images` says.
    pixel_values (`torch.Tensor` of shape `(b, 3, S, S)` or `(b, crops, 3, S, S)`):
        Images as the vision tower takes them; in crops for LLaVA-NeXT and LLaVA-OneVision. B is a multiple of b, and
        each image serves B / b samples in a row; with `batch_num_images` b is its sum, and they stand in the order of
        their samples.
    image_sizes (`torch.LongTensor` of shape `(b, 2)`):
        For images in crops: height and width of each before it was cut.
    batch_num_images (`torch.LongTensor` of shape `(B,)` or `list[int]`):
        Images of each sample, where not every sample has one. Each is pruned by itself, to `num_retained_tokens`.
    image_grid_thw (`torch.LongTensor` of shape `(b, 3)`):
        For Qwen-VL, whose `pixel_values` are the patches of all images: frames (1), rows and columns of each.
    guide_pixel_values (`torch.Tensor` of shape `(b, 3, S, S)`):
        For Qwen-VL: the whole images as the external guide takes them.
    guide_input_ids (`torch.LongTensor` of shape `(B, T, G)` or `(B, T, sentences, G)`):
        Texts for CLIP, one sentence or several for each question about the images, padded on the right.
    guide_attention_mask (`torch.LongTensor` of the same shape):
        All 0 for an absent text.
    image_state ([`LiteLVLMImageState`]):
        From `encode_image`, in place of `pixel_values`.
    num_retained_tokens (`int`):
        Replaces the configured budget in this call.
    pruning_method (`str`):
        Replaces the configured method in this call.
    share_prefix (`bool`, defaults to `False`):
        Whether prompts about an image pass the language model as one up to the image's end, where they are the same
        until there and neither the method nor the language model stands against it; `generate` and `segment` ask for
        it unless `share_prefix=False`. What stands at padding differs then.
    token_type_ids (`torch.LongTensor` of shape `(B, L)`):
        For PaliGemma: 0 for the prompt, which its language model reads in both directions, and 1 for the answer.
"""
_LABEL_ARGUMENTS = r"""
    labels (`torch.LongTensor` of shape `(B, L)`):
        As long as `input_ids`, -100 where there is no label. `shift_labels` of the same shape, which Transformers'
        losses take in their place, hold the label of each next token.
"""
_MASK_ARGUMENTS = r"""
    sam_pixel_values (`torch.Tensor` of shape `(b, 3, S', S')`):
        Images as SAM takes them. With them, each [SEG] in `input_ids` gives a mask. The keyword `mask_labels`
        (`list[torch.Tensor]`) has, per sample, `(num_masks, H, H)` masks of 0 and 1, one for each [SEG], in the frame
        of `sam_pixel_values` at any resolution, to learn from; negative values are ignored.
    original_sizes (`torch.LongTensor` of shape `(b, 2)`):
        Not used here, so that the processor's output can be passed whole; `post_process_masks` takes it.
    reshaped_input_sizes (`torch.LongTensor` of shape `(b, 2)`):
        As `original_sizes`.
"""


class LiteLVLMSegmentationKwargs(TransformersKwargs, total=False):  # type: ignore[call-arg]
    """`Trainer` finds a loss only where all labels that `forward` names are given, so `mask_labels` stand here."""

    mask_labels: list[torch.Tensor] | None


@auto_docstring
class LiteLVLMPreTrainedModel(PreTrainedModel):
    config: LiteLVLMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    # The vision tower's layers are called one by one, and the mask decoder reads weights of its parts, so each of
    # these stays on one device; the lint rule knows only layers of one file.
    _no_split_modules = [
        "CLIPVisionModel",  # trf-ignore: TRF022
        "SiglipVisionModel",  # trf-ignore: TRF022
        "LiteLVLMGuide",
        "LiteLVLMExternalGuide",
        "LiteLVLMOpenCLIPGuide",
        "LiteLVLMSiglipGuide",
        "SamMaskDecoder",  # trf-ignore: TRF022
        "LiteLVLMSam2",
    ]
    _skip_keys_device_placement = [CACHE_NAME]

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """
        As `PreTrainedModel.from_pretrained`, but a checkpoint that does not fill the model is refused: a random weight
        gives a wrong mask without a word.

        A `quantization_config` that does not say which modules it leaves alone applies to the language model only:
        what it selects and segments by stays in full precision.

        Args:
            ignore_incomplete_weights (`bool`, *optional*, defaults to `False`): load all the same, with random values
                for what is missing, as to train it.

        Raises:
            ValueError: names tensors that are missing, of another shape, not finite, or, for the class that was saved,
                unknown; or a damaged file.
        """
        ignore_incomplete_weights = kwargs.pop("ignore_incomplete_weights", False)
        with_info = kwargs.pop("output_loading_info", False)
        quantization_config = kwargs.get("quantization_config")
        if isinstance(quantization_config, dict):
            quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
        for name in _SKIP_OPTIONS:
            if getattr(quantization_config, name, ()) is None:
                quantization_config = deepcopy(quantization_config)
                setattr(quantization_config, name, _FULL_PRECISION.copy())
        if quantization_config is not None:
            kwargs["quantization_config"] = quantization_config
        may_differ = kwargs.pop("ignore_mismatched_sizes", False)
        # Of another shape too: Transformers' own error names no tensor
        with naming_damage(pretrained_model_name_or_path):
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        if not ignore_incomplete_weights:
            # A part of a model, such as its text answers without masks, may leave the rest unread
            is_whole = [cls.__name__] == model.config.architectures
            differing = {
                "missing": info["missing_keys"],
                "of another shape": [] if may_differ else [key for key, *_ in info["mismatched_keys"]],
                "unknown": info["unexpected_keys"] if is_whole else [],
            }
            differing["not finite"] = _not_finite(model)
            _check_weights(pretrained_model_name_or_path, differing)
        if model.can_generate() and model.generation_config._from_model_config:
            # Without a file of its own Transformers looks for the end token where this configuration has none
            for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
                if getattr(model.generation_config, name) is None:
                    setattr(model.generation_config, name, getattr(model.config.get_text_config(), name, None))
        return (model, info) if with_info else model

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        As `PreTrainedModel.save_pretrained`, with shards of at most 5 GB unless `max_shard_size` is given, and with
        the code that lets the folder load with `trust_remote_code`.
        """
        push_to_hub = kwargs.pop("push_to_hub", False)
        hub_options = {name: kwargs.pop(name) for name in _PUSH_OPTIONS if name in kwargs}
        kwargs.setdefault("max_shard_size", "5GB")
        super().save_pretrained(save_directory, **kwargs)
        export_code(save_directory)
        if push_to_hub:  # only now is the folder complete
            repo_id = hub_options.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, token=kwargs.get("token"), **hub_options)


@auto_docstring(
    custom_intro="""
    The LVLM without its language modeling head,
    and the CLIP guide that chooses its visual tokens.
    """
)
class LiteLVLMModel(LiteLVLMPreTrainedModel):
    def __init__(self, config: LiteLVLMConfig):
        super().__init__(config)
        config.check()
        self.backbone = AutoModel.from_config(config.backbone_config)
        vision_config: CLIPVisionConfig = config.vision_config
        # CODEPATH: LISA has one linear layer, GLaMM and the LLaVA family the backbone's own projector
        if config.projector_type == "linear":
            width = vision_config.hidden_size * len(config.vision_feature_layers)
            self.backbone.multi_modal_projector = nn.Linear(width, config.get_text_config().hidden_size)
        # CODEPATH: CLIP's text tower belongs to the vision tower, an OpenCLIP model has a vision tower of its own
        if isinstance(config.guide_config, OpenCLIPGuideConfig):
            self.guide: nn.Module = LiteLVLMOpenCLIPGuide(config.guide_config, config.num_patches_per_side**2)
        # CODEPATH: llava-interleave and LLaVA-OneVision have SigLIP's tower, without its head
        elif isinstance(config.guide_config, SiglipConfig):
            self.guide = LiteLVLMSiglipGuide(config.guide_config)
        # CODEPATH: Qwen-VL's tower was trained with no text tower
        elif config.has_external_guide:
            self.guide = LiteLVLMExternalGuide(config.guide_config)
        else:
            self.guide = LiteLVLMGuide(config.guide_config, vision_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    @can_return_tuple
    @auto_docstring(custom_intro="All visual tokens as the language model takes them, before any pruning.")
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        return self.backbone.get_image_features(pixel_values=pixel_values, **kwargs)

    def encode_image(
        self,
        pixel_values: torch.Tensor,
        sam_pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        pruning_method: str | None = None,
        batch_num_images: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        guide_pixel_values: torch.Tensor | None = None,
    ) -> LiteLVLMImageState:
        """
        Runs the vision tower as far as needed: of CLIP's last layer only the class token's query and the patches' keys
        and values are computed.

        Args:
            pixel_values (`torch.Tensor` of shape `(I, 3, S, S)` or `(I, crops, 3, S, S)`): images as CLIP takes them;
                in crops for LLaVA-NeXT and LLaVA-OneVision.
            sam_pixel_values (`torch.Tensor`, *optional*): for [`LiteLVLMForSegmentation`] only.
            image_sizes (`torch.LongTensor` of shape `(I, 2)`, *optional*): of images in crops, before they were cut.
            pruning_method (`str`, *optional*): whose signals to compute, by default those of the configured method;
                `"none"` leaves all of them out.
            batch_num_images (`torch.LongTensor`, *optional*): as in `forward`.
            image_grid_thw (`torch.LongTensor`, *optional*): of Qwen-VL, as in `forward`.
            guide_pixel_values (`torch.Tensor`, *optional*): likewise.

        Raises:
            ValueError: images for SAM, an unknown method, shapes that do not fit the backbone, numbers of images that
                do not add up, or a method that does not work on images in crops.
        """
        if sam_pixel_values is not None:
            raise ValueError(
                f"`sam_pixel_values` is given, but a {type(self).__name__} has no SAM; leave it out, or use "
                "LiteLVLMForSegmentation."
            )
        selector = PruningPlan.resolve(self.config, pruning_method=pruning_method).selector
        counts = as_counts(batch_num_images)
        return self._encode(pixel_values, image_sizes, counts, selector, image_grid_thw, guide_pixel_values)

    def _encode(
        self,
        pixel_values: torch.Tensor,
        image_sizes: torch.Tensor | None,
        batch_num_images: torch.Tensor | None,
        selector: TokenSelector,
        image_grid_thw: torch.Tensor | None,
        guide_pixel_values: torch.Tensor | None,
    ) -> LiteLVLMImageState:
        # CODEPATH: Qwen-VL sees an image at its own size, CLIP's and SigLIP's towers as squares
        if self.config.has_external_guide:
            if batch_num_images is not None:
                raise ValueError(
                    f"`batch_num_images` is given, but a {self.config.backbone_config.model_type!r} takes one image "
                    "per conversation here; ask about each image by itself."
                )
            return self._encode_any_size(pixel_values, image_grid_thw, guide_pixel_values, selector)
        in_crops = self.config.has_crops
        if pixel_values.ndim != 4 + in_crops or (image_sizes is None) == in_crops:
            wanted_shape = (
                "(images, crops, channels, height, width) with `image_sizes`"
                if in_crops
                else ("(images, channels, height, width) without `image_sizes`")
            )
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)} and `image_sizes` is "
                f"{None if image_sizes is None else tuple(image_sizes.shape)}; allowed is {wanted_shape}."
            )
        num_images = [1] * len(pixel_values) if batch_num_images is None else batch_num_images.tolist()
        if sum(num_images) != len(pixel_values):
            raise ValueError(
                f"`batch_num_images` is {num_images}, but `pixel_values` holds {len(pixel_values)} images; give the "
                "images of all conversations one after the other."
            )
        if selector.vision_layers and not self.config.has_class_token:
            raise ValueError(
                f"`pruning_method` is {selector.name!r}, which reads the attention of CLIP's vision tower and its "
                "class token, but this model's is SigLIP's, which has none; choose another method."
            )
        if image_sizes is None:
            state = self._encode_plain(pixel_values, selector)
        else:
            state = self._encode_crops(pixel_values, image_sizes, num_images, selector)
        state.batch_num_images = batch_num_images
        return state

    def _encode_plain(self, pixel_values: torch.Tensor, selector: TokenSelector) -> LiteLVLMImageState:
        tower = self.backbone.vision_tower
        layers = tower.encoder.layers
        # 0 is the embeddings' output
        wanted = [index % (len(layers) + 1) for index in self.config.vision_feature_layers]
        # CODEPATH: CLIP has a class token, a norm before its layers and a part in its last one; SigLIP has neither
        num_class_tokens = int(self.config.has_class_token)

        hidden_states = [tower.embeddings(pixel_values)]
        if num_class_tokens:
            hidden_states = [tower.pre_layrnorm(hidden_states[0])]
        for layer in layers[: max(*wanted, num_class_tokens * (len(layers) - 1))]:
            hidden_states.append(layer(hidden_states[-1], attention_mask=None))

        patches = [hidden_states[i][:, num_class_tokens:] for i in wanted]
        state = LiteLVLMImageState(image_features=torch.cat(patches, dim=-1))
        # CODEPATH: PaliGemma sees patches behind the tower's last norm, the LLaVA family before it
        if self.config.has_prefix:
            state.image_features = tower.post_layernorm(state.image_features)
        if selector is KEEP_ALL:
            return state
        if num_class_tokens:
            state.patch_embeds = self.guide.encode_patches(pixel_values, tower.post_layernorm(patches[0]))
            query, key, value = class_token_attention(layers[-1], hidden_states[len(layers) - 1])
            state.class_features = torch.cat([hidden_states[i][:, 0] for i in wanted], dim=-1)
        else:
            state.patch_embeds, query, key, value = self.guide.read_patches(patches[0])
        # Both rules' signals, so that a state serves whatever `selection_rule` is set when it is asked
        state.contribution = class_token_contribution(query, key, value)
        state.cosine_contribution = cosine_class_token_contribution(query, key, value)
        if selector.vision_layers:
            inputs = [hidden_states[layer % len(layers)] for layer in selector.vision_layers]
            state.layer_inputs = torch.stack(inputs, dim=1)
        return state

    def _encode_crops(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor, num_images: list[int], selector: TokenSelector
    ) -> LiteLVLMImageState:
        """Each crop as an image of its own, then its patches where the backbone puts them."""
        if selector.vision_layers:
            raise ValueError(
                f"`pruning_method` is {selector.name!r}, which looks into the vision tower at one image, but a "
                f"{self.config.backbone_config.model_type!r} cuts its images into crops; choose another method."
            )
        sizes = image_sizes.tolist()
        is_alone = [number == 1 for number in num_images for _ in range(number)]
        used = [
            # CODEPATH: LLaVA-OneVision cuts an image only where its conversation has no other, LLaVA-NeXT every image
            self._num_crops(size) if alone or not self._packs_projected else 1
            for size, alone in zip(sizes, is_alone, strict=True)
        ]
        if max(used) > pixel_values.shape[1]:
            raise ValueError(
                f"`pixel_values` holds {pixel_values.shape[1]} crops of each image, but by `image_sizes` and "
                f"`batch_num_images` they are {used}; pass the processor's output whole."
            )
        pixel_values = torch.cat([crops[:number] for crops, number in zip(pixel_values, used, strict=True)])
        # A class token belongs to its crop, not to the image
        crops = replace(self._encode_plain(pixel_values, selector), class_features=None)
        # CODEPATH: LLaVA-OneVision shrinks what is large behind the projector, LLaVA-NeXT only moves patches
        if self._packs_projected:
            crops.image_features = self.backbone.multi_modal_projector(crops.image_features)
        # On the CPU: the host has to know how many tokens there are
        kind = torch.ones(len(pixel_values), self.config.num_patches_per_side**2)
        kind = self._pack(kind.split(used), sizes, -1.0)
        packed = {name: self._pack(value.split(used), sizes) for name, value in crops.items()}
        return LiteLVLMImageState(is_patch=kind > 0, is_token=kind >= 0, **packed)

    def _num_crops(self, size: list[int]) -> int:
        """Of an image of that height and width, its whole among them."""
        pinpoints = self.config.backbone_config.image_grid_pinpoints
        return image_size_to_num_patches(size, pinpoints, self.config.vision_config.image_size)

    def _encode_any_size(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None,
        guide_pixel_values: torch.Tensor | None,
        selector: TokenSelector,
    ) -> LiteLVLMImageState:
        """Images at their own sizes by a Qwen-VL, and as squares by the external guide."""
        host, grids = self.config.backbone_config.model_type, _check_grids(image_grid_thw)
        if pixel_values.ndim != 2 or len(pixel_values) != grids.prod(-1).sum():
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)} and `image_grid_thw` is {grids.tolist()}; a "
                f"{host!r} takes the patches of all images, (patches, values), and the grid of each, whose products "
                "add up to the number of patches."
            )
        if (grids[:, 0] != 1).any():
            raise ValueError("`image_grid_thw` holds several frames; videos are not supported, ask about single ones.")
        if selector.vision_layers:
            raise ValueError(
                f"`pruning_method` is {selector.name!r}, which looks into CLIP's vision tower, but that of a {host!r} "
                "is not CLIP's; choose another method."
            )
        features = self.backbone.get_image_features(pixel_values, grids, return_dict=True).pooler_output
        image_features = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        # On the CPU: the host has to know how many tokens there are
        is_token = torch.arange(image_features.shape[1]) < torch.tensor([[len(one)] for one in features])
        state = LiteLVLMImageState(image_features, is_patch=is_token, is_token=is_token, image_grid_thw=grids)
        if selector is KEEP_ALL:
            return state
        if guide_pixel_values is None or len(guide_pixel_values) != len(grids):
            raise ValueError(
                f"`guide_pixel_values` is {None if guide_pixel_values is None else tuple(guide_pixel_values.shape)}; "
                f"the guide of a {host!r} is a CLIP that sees each image by itself. Pass the processor's output "
                "whole, or `pruning_method='none'`."
            )
        merged = (grids[:, 1:] // self.config.vision_config.spatial_merge_size).tolist()
        patch_embeds, *attention = self.guide.read_image(guide_pixel_values)
        state.patch_embeds = map_onto_grids(patch_embeds, merged)
        state.contribution = map_onto_grids(class_token_contribution(*attention), merged)
        state.cosine_contribution = map_onto_grids(cosine_class_token_contribution(*attention), merged)
        return state

    def grid_position_ids(
        self, is_image: torch.Tensor, image_grid_thw: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """
        Positions of Qwen-VL's tokens before pruning, as its own `get_rope_index` has them (M-RoPE).

        Args:
            is_image (`torch.BoolTensor` of shape `(B, L)`): the placeholders.
            image_grid_thw (`torch.LongTensor` of shape `(b, 3)`): of b images, each of which serves B / b prompts.
            attention_mask (`torch.Tensor` of shape `(B, L)`, *optional*): 0 for padding.

        Returns:
            `torch.LongTensor` of shape `(3, B, L)`: in time, by rows and by columns.

        Raises:
            ValueError: no grids or other ones, or the samples do not hold the placeholders of one image each.
        """
        own = _check_grids(image_grid_thw)
        check_images_per_prompt(f"`image_grid_thw` has {len(own)} images", len(own), len(is_image))
        grids = own.repeat_interleave(len(is_image) // len(own), 0)
        counts = grids.prod(-1) // self.config.vision_config.spatial_merge_size**2
        check_placeholders(is_image, counts.tolist(), self.config)
        # Of ids it reads only how many there are
        position_ids, _ = self.backbone.get_rope_index(
            is_image.long(), is_image.int(), image_grid_thw=grids, attention_mask=attention_mask
        )
        return position_ids

    @property
    def _packs_projected(self) -> bool:
        return self.config.backbone_config.model_type == "llava_onevision"

    @property
    def _projector(self) -> nn.Module:
        """From the `image_features` of an image state to the language model's width."""
        # CODEPATH: what Qwen-VL's tower gives, and LLaVA-OneVision packs, is projected already
        if self._packs_projected or self.config.has_external_guide:
            return nn.Identity()
        return self.backbone.multi_modal_projector

    def _pack(
        self, values: tuple[torch.Tensor, ...], image_sizes: list[list[int]], padding: float = 0.0
    ) -> torch.Tensor:
        """
        Values of the patches of images in crops, for each `(crops, n)` or `(crops, n, D)`, where the backbone itself
        puts the patches: `(I, N)` or `(I, N, D)`, 0 at the ends of lines, and padded where another image has more.
        """
        config: Any = self.config.backbone_config
        features = [image if image.ndim > 2 else image[..., None] for image in values]
        if self._packs_projected:
            options = {"vision_aspect_ratio": config.vision_aspect_ratio}
        else:
            options = {"vision_feature_select_strategy": "default"}
        newline = features[0].new_zeros(features[0].shape[-1])
        packed, _ = self.backbone.pack_image_features(features, image_sizes, image_newline=newline, **options)
        padded = nn.utils.rnn.pad_sequence(list(packed), batch_first=True, padding_value=padding)
        return padded if values[0].ndim > 2 else padded[..., 0]

    def select_tokens(
        self,
        image_state: LiteLVLMImageState,
        guide_input_ids: torch.Tensor | None,
        guide_attention_mask: torch.Tensor | None,
        plan: PruningPlan,
    ) -> tuple[RetainedTokens, PruningSignals | None]:
        """
        The retained tokens of I images, and the signals they were chosen by (`None` where all are kept).

        Args:
            image_state ([`LiteLVLMImageState`]): of the images of B samples.
            guide_input_ids, guide_attention_mask: as in `forward`.
            plan ([`PruningPlan`]): the method and the budget.

        Raises:
            ValueError: a state without the signals that the method looks at, no texts, or a method inside the language
                model for images in crops or for several images of a sample.
        """
        selector = plan.selector
        if isinstance(plan.method, LayerwisePruner):
            self._check_suits_layerwise(plan.method, image_state)
        if selector is KEEP_ALL:
            return selector.select(None, plan.num_retained_tokens, plan.config), None
        signals = self._signals(image_state, guide_input_ids, guide_attention_mask, plan)
        return selector.select(signals, plan.num_retained_tokens, plan.config), signals

    def _check_suits_layerwise(self, method: LayerwisePruner, image_state: LiteLVLMImageState) -> None:
        host = self.config.backbone_config.model_type
        if image_state.is_patch is not None:
            why = f"a {host!r} has images of different lengths"
        elif image_state.batch_num_images is not None:
            why = "`batch_num_images` is given, where it knows of one image per conversation"
        # CODEPATH: PaliGemma reads a prefix in both directions, no other LVLM does
        elif self.config.has_prefix:
            why = f"a {host!r} reads its prompt in both directions"
        else:
            return
        raise ValueError(
            f"`pruning_method` is {method.name!r}, which prunes inside the language model, but {why}; choose another "
            "method."
        )

    def _signals(
        self,
        image_state: LiteLVLMImageState,
        guide_input_ids: torch.Tensor | None,
        guide_attention_mask: torch.Tensor | None,
        plan: PruningPlan,
    ) -> PruningSignals:
        selector, patch_embeds = plan.selector, image_state.patch_embeds
        if patch_embeds is None or image_state.contribution is None or image_state.cosine_contribution is None:
            raise ValueError("`image_state` was made without pruning signals; make it with `encode_image`.")
        if selector.vision_layers and image_state.layer_inputs is None:
            raise ValueError(
                f"`image_state` was made without the layers that {selector.name!r} looks at; make it with "
                f"`encode_image(..., pruning_method={selector.name!r})`."
            )
        device = image_state.image_features.device  # that of the vision tower, into which a method may look
        patch_embeds = patch_embeds.to(device)
        if selector.needs_texts:
            if guide_input_ids is None:
                raise ValueError(
                    "`guide_input_ids` is None but pruning needs the texts; pass the processor's output whole, or "
                    "`pruning_method='none'`."
                )
            counts = image_state.batch_num_images
            number = len(patch_embeds if counts is None else counts)
            if guide_input_ids.ndim not in (3, 4) or len(guide_input_ids) != number:
                raise ValueError(
                    f"`guide_input_ids` has shape {tuple(guide_input_ids.shape)}; for these conversations it is to be "
                    f"({number}, texts, length) or, of templates, ({number}, texts, sentences, length)."
                )
            check_shape("guide_attention_mask", guide_attention_mask, guide_input_ids.shape)
            if guide_attention_mask is None:
                guide_attention_mask = torch.ones_like(guide_input_ids)
            text_embeds = image_state.for_each_image(self.guide(guide_input_ids, guide_attention_mask).to(device))
            text_mask = image_state.for_each_image(guide_attention_mask.bool().flatten(2).any(dim=-1).to(device))
        else:
            text_embeds = patch_embeds[:, :0]
            text_mask = torch.zeros(text_embeds.shape[:2], dtype=torch.bool, device=device)
        patch_mask = image_state.is_patch
        if patch_mask is not None:
            torch_compilable_check(
                (patch_mask.sum(dim=-1) >= plan.num_retained_tokens).all(),
                lambda: (
                    f"An image has fewer patches than the {plan.num_retained_tokens} tokens to retain: they have "
                    f"{patch_mask.sum(dim=-1).tolist()}; set a smaller `num_retained_tokens`, give larger images, or "
                    "keep all tokens by `pruning_method='none'`."
                ),
            )
        return PruningSignals(
            similarity=patch_text_similarity(patch_embeds, text_embeds),
            contribution=image_state.contribution.to(device),
            cosine_contribution=image_state.cosine_contribution.to(device),
            text_mask=text_mask,
            patch_mask=None if patch_mask is None else patch_mask.to(device),
            patch_embeds=patch_embeds,
            text_embeds=text_embeds,
            image_features=image_state.image_features,
            class_features=image_state.class_features,
            layer_inputs=image_state.layer_inputs,
            vision_tower=getattr(self.backbone, "vision_tower", None),
            projector=self._projector,
            guide=self.guide,
        )

    def project(self, image_state: LiteLVLMImageState, tokens: RetainedTokens) -> torch.Tensor:
        """Visual tokens for the language model, `(I, K, hidden_size)`, or `(tokens, hidden_size)` of crops."""
        visual_tokens = self._projector(tokens.take(image_state.image_features))
        if tokens.indices is None and image_state.is_patch is not None and image_state.is_token is not None:
            # CODEPATH: each line of patches in crops ends with the backbone's own embedding, no line of Qwen-VL does
            if self.config.has_crops:
                is_patch = image_state.is_patch[..., None].to(visual_tokens.device)
                visual_tokens = visual_tokens.where(is_patch, self.backbone.image_newline.to(visual_tokens.dtype))
            visual_tokens = visual_tokens[image_state.is_token.to(visual_tokens.device)]
        return visual_tokens

    @can_return_tuple
    @auto_docstring(custom_args=_SHARED_ARGUMENTS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        guide_pixel_values: torch.Tensor | None = None,
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        num_retained_tokens: int | None = None,
        pruning_method: str | None = None,
        token_type_ids: torch.LongTensor | None = None,
        share_prefix: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LiteLVLMModelOutput:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of `input_ids` and `inputs_embeds`.")
        _check_given_once(image_state, pixel_values=pixel_values, batch_num_images=batch_num_images)
        if kwargs.get("pixel_values_videos") is not None:
            raise ValueError("`pixel_values_videos` is given, but videos are not supported; ask about single frames.")
        plan = PruningPlan.resolve(self.config, num_retained_tokens, pruning_method)
        batch_num_images = as_counts(batch_num_images)
        is_image, embed = None, self.get_input_embeddings()
        if pixel_values is not None or image_state is not None:
            is_image = find_token(self.config.image_token_id, input_ids, inputs_embeds, embed)
            if image_state is not None:
                num_prompts = image_state.prompts_of_each(len(is_image))
                image_state = image_state.without_sam().repeat_for(len(is_image))
                batch_num_images, image_grid_thw = image_state.batch_num_images, image_state.image_grid_thw
            # CODEPATH: Qwen-VL has M-RoPE, the others count their tokens
            if self.config.has_external_guide and position_ids is None:
                position_ids = self.grid_position_ids(is_image, image_grid_thw, attention_mask)
        prompt = Prompt.build(input_ids, attention_mask, position_ids, is_image, self.config, batch_num_images)
        prompt = replace(prompt, token_type_ids=token_type_ids)
        cache = cache_of(kwargs)
        cached: CachedPrompt | None = getattr(cache, "pruned_prompt", None)
        if is_image is None:
            embeds = embed(input_ids) if inputs_embeds is None else inputs_embeds
            if cached is not None:
                prompt = cached.continued_by(prompt, cache, *embeds.shape[:2])
                plan = replace(plan, method=cached.method)
            outputs, _ = self._run_language_model(embeds, prompt, plan, **kwargs)
            return LiteLVLMModelOutput(**outputs, attention_mask=attention_mask, position_ids=position_ids)

        if cache is not None and (plan.drops_tokens or cached is not None):
            torch_compilable_check(
                cache.get_seq_length() == 0,
                f"`{CACHE_NAME}` is filled already; a prompt with an image is pruned as a whole, so pass the whole "
                "conversation with its image and without a cache.",
            )
        if image_state is None:
            image_state = self._encode(
                pixel_values, image_sizes, batch_num_images, plan.selector, image_grid_thw, guide_pixel_values
            )
            num_prompts = image_state.prompts_of_each(len(is_image))
            image_state = image_state.repeat_for(len(is_image))
        tokens, signals = self.select_tokens(image_state, guide_input_ids, guide_attention_mask, plan)
        prompt = prompt.keep(tokens, image_state.num_tokens(), self.config)
        visual_tokens = self.project(image_state, tokens)
        embeds = embed(prompt.input_ids) if inputs_embeds is None else _at(inputs_embeds, prompt.source_positions)
        embeds = prompt.scatter(embeds, visual_tokens)
        num_sharing = num_prompts if share_prefix else 1
        outputs, source_positions = self._run_language_model(embeds, prompt, plan, num_sharing, **kwargs)
        if source_positions is not prompt.source_positions:  # tokens were dropped on the way
            tokens = RetainedTokens(prompt.patches_at(source_positions, image_state.image_features.shape[1]))
        # CODEPATH: the positions behind Qwen-VL's image cannot be told from the number of tokens, pruned or not
        if (plan.drops_tokens or self.config.has_external_guide) and outputs.get(CACHE_NAME) is not None:
            outputs[CACHE_NAME].pruned_prompt = CachedPrompt(prompt, plan.method)
        # A flat list of tokens is that of images whose numbers of tokens differ
        per_image = visual_tokens if visual_tokens.ndim == 3 else visual_tokens.split(image_state.num_tokens())
        return LiteLVLMModelOutput(
            **outputs,
            image_outputs=BaseModelOutputWithPooling(pooler_output=list(per_image)),
            retained_indices=None if tokens.indices is None else tokens.indices.to(is_image.device),
            num_retained_tokens=tokens.count(),
            similarity=None if signals is None else signals.similarity,
            contribution=None if signals is None else signals.contribution_by(self.config.selection_rule),
            source_positions=source_positions,
            attention_mask=prompt.attention_mask,
            position_ids=prompt.position_ids,
        )

    def _run_language_model(
        self, inputs_embeds: torch.Tensor, prompt: Prompt, plan: PruningPlan, num_sharing: int = 1, **kwargs: Any
    ) -> tuple[Any, torch.Tensor | None]:
        """
        The language model's output, and the positions in the prompt, `(B, R)`, of what its last state holds. So many
        prompts in a row are about the same images, and may share what they have in common.
        """
        num_positions = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        if num_positions is not None and inputs_embeds.shape[1] > num_positions:
            logger.warning_once(
                f"The language model reads {inputs_embeds.shape[1]} tokens, but it was made for {num_positions} "
                "positions, so its answers may be wrong; shorten the conversation, or retain fewer visual tokens."
            )
        inputs: dict[str, Any] = {"inputs_embeds": inputs_embeds, "position_ids": prompt.position_ids}
        language_model = self.backbone.language_model
        if isinstance(plan.method, LayerwisePruner):
            return plan.method.run(
                language_model,
                prompt.is_image,
                plan.num_retained_tokens,
                plan.config,
                attention_mask=prompt.attention_mask,
                **inputs,
                **kwargs,
            )
        # A prefix's masks are made before the language model makes its cache
        uses_cache = kwargs.get("use_cache", self.config.get_text_config().use_cache)
        uses_cache = uses_cache and not self.training and not self.config.has_prefix
        # A method that reads the text keeps patches of its own for each prompt
        shares = num_sharing > 1 and uses_cache and not plan.selector.needs_texts
        if shares and can_share_prefix(language_model.config, **kwargs):
            shared = SharedPrefix.find(prompt, num_sharing)
            if shared is not None:
                return shared.run(language_model, inputs_embeds, **kwargs), prompt.source_positions
        inputs["attention_mask"] = prompt.mask_for_language_model(bool(uses_cache))
        # CODEPATH: PaliGemma's language model reads its prompt in both directions, all others in one
        if self.config.has_prefix:
            inputs = add_prefix(inputs, prompt, cache_of(kwargs), self.config.first_position, language_model.config)
        return language_model(**inputs, **kwargs), prompt.source_positions


@auto_docstring(custom_intro="An LVLM with pruned visual tokens that answers in text.")
class LiteLVLMForConditionalGeneration(LiteLVLMPreTrainedModel, LiteLVLMGenerationMixin, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.backbone.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    # Assisted decoding counts cache entries by the prompt's tokens, of which a pruned prompt caches fewer;
    # Transformers refuses it for stateful models
    _is_stateful = True

    def __init__(self, config: LiteLVLMConfig):
        super().__init__(config)
        self.model = LiteLVLMModel(config)
        text_config = config.get_text_config()
        self.lm_head = nn.Linear(text_config.hidden_size, text_config.vocab_size, bias=False)
        # Transformers picks the loss by the class name, which ends like those of panoptic segmentation models
        self.loss_type = "ForCausalLM"
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedModel,
        guide: str | os.PathLike | None = None,
        *,
        dtype: Any = "auto",
        **kwargs: Any,
    ) -> "LiteLVLMForConditionalGeneration":
        """
        Wraps an LVLM in Transformers' format without any conversion.

        Args:
            backbone (`str` or [`PreTrainedModel`]): Hub id or folder of an LVLM with CLIP's or SigLIP's tower, such as
                `"llava-hf/llava-1.5-7b-hf"`, or of a Qwen2-VL or Qwen2.5-VL; or such a model that is loaded already.
            guide (`str`, *optional*): Hub id or folder of the CLIP or SigLIP checkpoint that the LVLM's vision tower
                comes from, or of any CLIP for Qwen-VL's; by default the OpenAI CLIP of the vision tower's sizes, see
                [`default_guide`].
            dtype: as in `from_pretrained`.
            kwargs: fields of [`LiteLVLMConfig`], such as `num_retained_tokens=64`; all others, such as `revision` or
                `device_map`, are handed to the backbone's `from_pretrained`. Those that say how to reach the Hub, such
                as `token` and `cache_dir`, are the guide's too.

        Raises:
            ValueError: the guide does not belong to the backbone's vision tower, none is known for it, or options for
                loading a model that is loaded already.
        """
        own_fields = set(LiteLVLMConfig.__annotations__) - {"backbone_config", "guide_config"}
        config_fields = {name: kwargs.pop(name) for name in own_fields & kwargs.keys()}
        reaching = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        if not isinstance(backbone, PreTrainedModel):
            lvlm = AutoModelForImageTextToText.from_pretrained(backbone, dtype=dtype, **kwargs)
        elif not_used := kwargs.keys() - reaching.keys():
            raise ValueError(
                f"{', '.join(sorted(not_used))}: no fields of LiteLVLMConfig, and `backbone` is loaded already; give "
                "options for loading together with a name, or leave them out."
            )
        else:
            lvlm = backbone
        seg_token_id, vocab_size = config_fields.get("seg_token_id"), lvlm.config.get_text_config().vocab_size
        if "sam_config" in config_fields and isinstance(seg_token_id, int) and seg_token_id >= vocab_size:
            lvlm.resize_token_embeddings(seg_token_id + 1)
        vision_config = lvlm.config.vision_config
        if guide is None:
            guide = default_guide(vision_config)
        parent = load_parent(guide, vision_config, dtype=lvlm.dtype, **reaching)
        guide_config: Any = parent.config
        # CODEPATH: a text tower belongs to CLIP's vision tower; beside Qwen-VL's stands a whole CLIP
        is_external = vision_config.model_type in TEXTLESS_TOWERS
        if is_external:
            config_fields.setdefault("position_mode", "original")
        elif isinstance(parent, CLIPModel):
            guide_config = parent.config.text_config
            vision_config.projection_dim = guide_config.projection_dim = parent.config.projection_dim
        config = cls.config_class(
            backbone_config=lvlm.config, guide_config=guide_config, dtype=lvlm.dtype, **config_fields
        )
        with torch.device("meta"):
            model = cls(config)
        # The modules themselves are handed over, with the hooks of a `device_map`: no second copy of the weights
        model.model.backbone, model.lm_head = lvlm.model, lvlm.lm_head
        model.model.guide.take_from(parent)
        tower = lvlm.model.visual if is_external else lvlm.model.vision_tower
        hook = getattr(tower.patch_embed if is_external else tower.embeddings, "_hf_hook", None)
        model.model.guide.to(tower.device if hook is None else hook.execution_device)
        model.generation_config = lvlm.generation_config
        model.tie_weights()
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @can_return_tuple
    @auto_docstring(custom_intro="All visual tokens as the language model takes them, before any pruning.")
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        return self.model.get_image_features(pixel_values, **kwargs)

    def encode_image(
        self,
        pixel_values: torch.Tensor,
        sam_pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        pruning_method: str | None = None,
        batch_num_images: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        guide_pixel_values: torch.Tensor | None = None,
    ) -> LiteLVLMImageState:
        """
        Encodes images once, for any number of questions: pass the result as `image_state` in their place.

        Args:
            pixel_values (`torch.Tensor` of shape `(I, 3, S, S)`): images as CLIP takes them.
            sam_pixel_values (`torch.Tensor` of shape `(I, 3, S', S')`, *optional*): images as SAM takes them, for
                [`LiteLVLMForSegmentation`] only.
            image_sizes (`torch.LongTensor` of shape `(I, 2)`, *optional*): of images in crops, as in `forward`.
            pruning_method (`str`, *optional*): the method that is to be used with the result, if not the configured.
            batch_num_images (`torch.LongTensor`, *optional*): images of each conversation, as in `forward`.
            image_grid_thw (`torch.LongTensor`, *optional*): of Qwen-VL, as in `forward`.
            guide_pixel_values (`torch.Tensor`, *optional*): likewise.

        Raises:
            ValueError: as [`LiteLVLMModel.encode_image`], and images for SAM where the model has none, or for several
                images of a conversation.
        """
        return self.model.encode_image(
            pixel_values,
            sam_pixel_values,
            image_sizes,
            pruning_method,
            batch_num_images,
            image_grid_thw,
            guide_pixel_values,
        )

    @can_return_tuple
    @auto_docstring(custom_args=_SHARED_ARGUMENTS + _LABEL_ARGUMENTS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        guide_pixel_values: torch.Tensor | None = None,
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_retained_tokens: int | None = None,
        pruning_method: str | None = None,
        token_type_ids: torch.LongTensor | None = None,
        share_prefix: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LiteLVLMSegmentationOutput:
        tokens = inputs_embeds if input_ids is None else input_ids
        if tokens is not None:
            check_shape("labels", labels, tokens.shape[:2])
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            batch_num_images=batch_num_images,
            image_grid_thw=image_grid_thw,
            guide_pixel_values=guide_pixel_values,
            guide_input_ids=guide_input_ids,
            guide_attention_mask=guide_attention_mask,
            image_state=image_state,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            num_retained_tokens=num_retained_tokens,
            pruning_method=pruning_method,
            token_type_ids=token_type_ids,
            share_prefix=share_prefix,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        softcap = getattr(self.config.get_text_config(), "final_logit_softcapping", None)
        # CODEPATH: PaliGemma 2 bounds its logits as Gemma 2 does; no other LVLM has its language model's bound
        if self.config.has_prefix and softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap

        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            kwargs["shift_labels"] = _next_at(kwargs.get("shift_labels"), outputs.source_positions)
            loss = self.loss_function(
                logits=logits,
                labels=None if labels is None else _at(labels, outputs.source_positions),
                vocab_size=self.config.get_text_config().vocab_size,
                **kwargs,
            )
        return LiteLVLMSegmentationOutput(loss=loss, logits=logits, **outputs)


@auto_docstring(
    custom_intro="""
    An LVLM with pruned visual tokens that answers in text and, for each [SEG] in the answer, with a mask. Without SAM
    in its configuration it answers in text only.
    """
)
class LiteLVLMForSegmentation(LiteLVLMForConditionalGeneration, GenerationMixin):
    def __init__(self, config: LiteLVLMConfig):
        super().__init__(config)
        # CODEPATH: LISA and GLaMM have a SAM, the LLaVA family has none
        if config.sam_config is not None:
            self.seg_head = LiteLVLMSegHead(config.get_text_config().hidden_size, config.mask_embedding_size)
            self.sam: LiteLVLMSam | LiteLVLMSam2
            # CODEPATH: LISA and GLaMM have SAM, the likes of Sa2VA have SAM 2
            if config.sam_config.model_type == "sam2":
                self.sam = LiteLVLMSam2(Sam2Model(config.sam_config))
            else:
                self.sam = LiteLVLMSam(config.sam_config)
        else:  # a checkpoint with masks may be loaded for its text answers
            self._keys_to_ignore_on_load_unexpected = [r"^sam\.", r"^seg_head\."]
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedModel,
        guide: str | os.PathLike | None = None,
        *,
        sam: str | os.PathLike | None = None,
        dtype: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """
        As [`LiteLVLMForConditionalGeneration.from_backbone`], with a SAM for masks that are yet to be learned: the
        head between both, and what the LVLM makes of [SEG], are random.

        Args:
            sam (`str`, *optional*): Hub id or folder of a SAM or SAM 2, also of one for videos, such as
                `"facebook/sam2.1-hiera-tiny"`; without it the model answers in text only.
            kwargs: with a SAM `seg_token_id` too, for which the embeddings are resized where it is beyond them.

        Raises:
            ValueError: as there, a `sam_config` in the place of `sam`, or a `sam` of another kind.
        """
        if kwargs.get("sam_config") is not None:
            raise ValueError("`sam_config` is given, but it has no weights; name a SAM as `sam`.")
        if sam is None:
            return super().from_backbone(backbone, guide, dtype=dtype, **kwargs)
        check_is_name("sam", sam)
        reaching = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        sam_config: Any = AutoConfig.from_pretrained(sam, **reaching)
        if sam_config.model_type == "sam2_video":  # a SAM 2 with more parts
            whole = Sam2Config.from_pretrained(sam, **reaching)
            sam_config = Sam2Config(**{name: getattr(whole, name) for name in Sam2Config.sub_configs})
        if sam_config.model_type not in ("sam", "sam2"):
            raise ValueError(
                f"`sam` {str(sam)!r} is a {sam_config.model_type!r} model; allowed are 'sam', 'sam2' and 'sam2_video'."
            )
        width = sam_config.prompt_encoder_config.hidden_size
        model: Any = super().from_backbone(
            backbone, guide, dtype=dtype, sam_config=sam_config, mask_embedding_size=width, **kwargs
        )
        options = {"config": sam_config, "dtype": model.dtype, **reaching}
        if sam_config.model_type == "sam2":
            model.sam = LiteLVLMSam2(Sam2Model.from_pretrained(sam, **options))
        else:
            model.sam = LiteLVLMSam.from_pretrained(sam, **options)
        model.seg_head = LiteLVLMSegHead(model.config.get_text_config().hidden_size, width).to(model.dtype)
        device = next(model.model.guide.parameters()).device
        for part in (model.sam, model.seg_head):
            part.to(device)
        return model.eval()

    def encode_image(
        self,
        pixel_values: torch.Tensor,
        sam_pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        pruning_method: str | None = None,
        batch_num_images: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        guide_pixel_values: torch.Tensor | None = None,
    ) -> LiteLVLMImageState:
        if sam_pixel_values is not None:
            self._check_makes_masks(batch_num_images)
        image_state = super().encode_image(
            pixel_values, None, image_sizes, pruning_method, batch_num_images, image_grid_thw, guide_pixel_values
        )
        if sam_pixel_values is not None:
            image_state.sam_image_embeddings = self.sam.encode_image(sam_pixel_values)
        return image_state

    @can_return_tuple
    @auto_docstring(custom_args=_SHARED_ARGUMENTS + _LABEL_ARGUMENTS + _MASK_ARGUMENTS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        guide_pixel_values: torch.Tensor | None = None,
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        sam_pixel_values: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_retained_tokens: int | None = None,
        pruning_method: str | None = None,
        original_sizes: torch.Tensor | None = None,
        reshaped_input_sizes: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        share_prefix: bool = False,
        **kwargs: Unpack[LiteLVLMSegmentationKwargs],
    ) -> LiteLVLMSegmentationOutput:
        mask_labels = kwargs.pop("mask_labels", None)
        if sam_pixel_values is not None:
            self._check_makes_masks(batch_num_images if image_state is None else image_state.batch_num_images)
            self._check_prepared(original_sizes, reshaped_input_sizes)
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            batch_num_images=batch_num_images,
            image_grid_thw=image_grid_thw,
            guide_pixel_values=guide_pixel_values,
            guide_input_ids=guide_input_ids,
            guide_attention_mask=guide_attention_mask,
            image_state=image_state,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            num_retained_tokens=num_retained_tokens,
            pruning_method=pruning_method,
            token_type_ids=token_type_ids,
            share_prefix=share_prefix,
            return_dict=True,
            **kwargs,
        )
        image_embeddings = None if image_state is None else image_state.sam_image_embeddings
        if image_embeddings is None and sam_pixel_values is not None:
            image_embeddings = self.sam.encode_image(sam_pixel_values)
        if image_embeddings is not None:
            seg_token_id: Any = self.config.seg_token_id  # which a configuration with SAM has
            is_seg = find_token(seg_token_id, input_ids, inputs_embeds, self.get_input_embeddings())
            # The hidden state before a token predicts it, so the last one predicts no token of the prompt
            is_seg = nn.functional.pad(_at(is_seg, outputs.source_positions)[:, 1:], (0, 1))
            masks = self.decode_masks(outputs.last_hidden_state, is_seg, image_embeddings)
            outputs = replace(outputs, **masks)
        if self.training and labels is not None and mask_labels is None and outputs.pred_masks is not None:
            logger.warning_once(
                "Masks are made in training, but there are no `mask_labels` to learn them from. Pass them (`Trainer` "
                "drops them from a dataset without `remove_unused_columns=False`), or leave `sam_pixel_values` out."
            )
        if mask_labels is not None:
            if outputs.pred_masks is None:
                raise ValueError("`mask_labels` are given without `sam_pixel_values`; pass the images for SAM too.")
            weights = _shares_of_step(labels, kwargs.get("num_items_in_batch"))
            outputs.bce_loss, outputs.dice_loss = mask_losses(outputs.pred_masks, mask_labels, weights)
        outputs.ce_loss = outputs.loss
        weights = {"ce": self.config.ce_loss_weight, "bce": self.config.bce_loss_weight}
        weights["dice"] = self.config.dice_loss_weight
        losses = [weight * outputs[f"{name}_loss"] for name, weight in weights.items() if f"{name}_loss" in outputs]
        outputs.loss = sum(losses) if losses else None
        return outputs

    @torch.no_grad()
    def segment(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        batch_num_images: torch.LongTensor | None = None,
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        sam_pixel_values: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        original_sizes: torch.Tensor | None = None,
        reshaped_input_sizes: torch.Tensor | None = None,
        answer: str | torch.Tensor | None = None,
        processor: Any = None,
        **generate_kwargs: Any,
    ) -> LiteLVLMSegmentationOutput:
        r"""
        Generates answers, or takes one as given, and makes a mask for each [SEG] in them. Turns that are already in
        the prompt give no masks.

        Args:
            answer (`str` or `torch.LongTensor` of shape `(A,)`, *optional*): the answer to every prompt, such as
                `"It is [SEG]."`, in place of generating one: a single forward pass, and always a mask.
            processor ([`LiteLVLMProcessor`], *optional*): tokenises `answer` if it is a text.
            generate_kwargs: those of `generate` (greedy and sampling; no beams), `num_retained_tokens`,
                `pruning_method` and `share_prefix`; with `answer` the last three only. All others as in `forward`.

        Returns:
            [`LiteLVLMSegmentationOutput`] with `sequences` (prompt and answer, as `generate` gives them),
            `pred_masks`, `mask_scores`, `seg_embeddings`, `retained_indices`, `similarity` and `contribution`.

        Raises:
            ValueError: no images, several images in a conversation, beam search, a model without SAM, prompts that
                hold their answers already, or an `answer` without [SEG] or without a processor to read it.
        """
        self._check_makes_masks(batch_num_images)
        self._check_prepared(original_sizes, reshaped_input_sizes)
        if "labels" in generate_kwargs:
            raise ValueError(
                "`labels` are given: these prompts hold their answers already. Call the model itself for the masks of "
                "a whole conversation, or leave the last answer open."
            )
        _check_given_once(image_state, pixel_values=pixel_values, sam_pixel_values=sam_pixel_values)
        if image_state is None:
            if pixel_values is None or sam_pixel_values is None:
                raise ValueError("`segment` needs `pixel_values` and `sam_pixel_values`, or an `image_state`.")
        elif image_state.sam_image_embeddings is None:
            raise ValueError("`image_state` holds no image embeddings of SAM; give `encode_image` both images.")
        prompts = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "pixel_values": pixel_values,
            "image_sizes": image_sizes,
            "batch_num_images": batch_num_images,
            "guide_input_ids": guide_input_ids,
            "guide_attention_mask": guide_attention_mask,
            "image_state": None if image_state is None else image_state.without_sam(),
        }
        if answer is None:
            sequences, hidden_states, selection = self._generate_with_states(prompts, generate_kwargs)
        else:
            sequences, hidden_states, selection = self._read_with_states(prompts, answer, processor, generate_kwargs)
        is_seg = sequences[:, input_ids.shape[1] :] == self.config.seg_token_id
        if image_state is not None:
            image_embeddings = image_state.sam_image_embeddings
        else:  # SAM is half of the work, and answers without [SEG] have no mask
            image_embeddings = self.sam.encode_image(sam_pixel_values) if is_seg.any() else None
        masks = self.decode_masks(hidden_states, is_seg, image_embeddings)
        return LiteLVLMSegmentationOutput(sequences=sequences, **masks, **selection)

    def _generate_with_states(
        self, prompts: dict[str, Any], generate_kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Sequences `(B, L + A)`, the hidden states `(B, A, hidden_size)` that predict the A new tokens, and more."""
        if generate_kwargs.get("num_beams", self.generation_config.num_beams) not in (None, 1):
            raise ValueError(
                "`num_beams` must be 1 in `segment`: beams change their order, and hidden states with them."
            )
        if forgotten := sorted(name for name in _NOT_RETURNED if generate_kwargs.get(name)):
            raise ValueError(
                f"`segment` does not return what {', '.join(forgotten)} asks for; `generate` does, without masks."
            )
        record = GenerationRecord()
        options = {**generate_kwargs, "return_dict_in_generate": False}
        sequences = self.generate(**prompts, generation_record=record, **options)
        # A generation that is stopped one step late has recorded one state more than it returns tokens
        num_new = sequences.shape[1] - prompts["input_ids"].shape[1]
        return sequences, torch.stack(record.hidden_states, dim=1)[:, :num_new], record.selection

    def _read_with_states(
        self, prompts: dict[str, Any], answer: str | torch.Tensor, processor: Any, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """As `_generate_with_states`, of an answer that is given."""
        if unknown := sorted(options.keys() - {"num_retained_tokens", "pruning_method", "share_prefix"}):
            raise ValueError(f"`answer` is given, so that nothing is generated; leave out {', '.join(unknown)}.")
        if isinstance(answer, str):
            if processor is None:
                raise ValueError("`answer` is a text; pass `processor` too, which tokenises it, or give token ids.")
            answer = processor.encode_answer(answer)
        if not (answer == self.config.seg_token_id).any():
            raise ValueError(f"`answer` holds no [SEG] (id {self.config.seg_token_id}), so it has no mask.")
        input_ids, attention_mask = prompts["input_ids"], prompts["attention_mask"]
        if attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError("The prompts are padded on the right, where `answer` goes; pad them on the left.")
        new_tokens = answer.to(input_ids.device).expand(len(input_ids), -1)
        sequences = torch.cat([input_ids, new_tokens], dim=1)
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask, torch.ones_like(new_tokens)], dim=1)
        prompts = prompts | {"input_ids": sequences, "attention_mask": attention_mask}
        # CODEPATH: the positions of Qwen-VL's tokens are rows and columns, the others count as in `generate`
        if not self.config.has_external_guide:
            prompts["position_ids"] = count_visible(attention_mask, self.config.first_position)
        options = {"share_prefix": True} | options
        outputs = super().forward(**prompts, **options, logits_to_keep=1, return_dict=True)
        selection = {name: outputs.get(name) for name in SELECTION}
        return sequences, outputs.last_hidden_state[:, -new_tokens.shape[1] - 1 : -1], selection

    def compile_for_inference(self, **compile_kwargs: Any) -> None:
        """
        Trades a slow first call for faster ones: SAM's image encoder, whose shapes never change, is compiled.

        Args:
            compile_kwargs: those of `torch.compile`.

        Raises:
            ValueError: a model without SAM.
        """
        self._check_makes_masks()
        self.sam.vision_encoder.compile(**compile_kwargs)

    def _check_makes_masks(self, batch_num_images: torch.Tensor | None = None) -> None:
        if self.config.sam_config is None:
            raise ValueError(
                "This model has no SAM (`sam_config` is None), so it makes no masks; use `generate` for text answers "
                "and leave `sam_pixel_values` out."
            )
        counts = as_counts(batch_num_images)
        if counts is not None and not (counts == 1).all():
            raise ValueError(
                f"`batch_num_images` is {counts.tolist()}, but a mask is one of the only image of its "
                "conversation; give one image, or use `generate` for text answers and leave `sam_pixel_values` out."
            )

    def _check_prepared(self, original_sizes: Any, reshaped_input_sizes: Any) -> None:
        """SAM pads images to a square and SAM 2 stretches them; of those of the other one masks would be wrong."""
        if original_sizes is None or reshaped_input_sizes is None:
            return
        sizes, shown = torch.as_tensor(original_sizes).float().cpu(), torch.as_tensor(reshaped_input_sizes).cpu()
        is_sam2, square = self.config.sam_config.model_type == "sam2", self.config.sam_square_config
        wanted = torch.ones_like(sizes) if is_sam2 else sizes / sizes.amax(-1, keepdim=True)
        if ((shown - wanted * square.image_size).abs() > 1).any():
            raise ValueError(
                f"`reshaped_input_sizes` is {shown.tolist()} for images of {sizes.int().tolist()} pixels, but "
                f"{'SAM 2' if is_sam2 else 'SAM'} sees them {'stretched' if is_sam2 else 'padded'} to a square of "
                f"{square.image_size}; pass the output of this model's own processor."
            )

    def decode_masks(
        self, hidden_states: torch.Tensor, is_seg: torch.Tensor, image_embeddings: torch.Tensor | None
    ) -> dict[str, list[torch.Tensor]]:
        """
        A mask for each hidden state that predicts [SEG].

        Args:
            hidden_states (`torch.Tensor` of shape `(B, R, hidden_size)`): last hidden states.
            is_seg (`torch.BoolTensor` of shape `(B, R)`): those that predict [SEG].
            image_embeddings (`torch.Tensor`, *optional*): those of an image state, of b images for B samples; not
                needed without [SEG].

        Returns:
            Per sample `seg_embeddings` `(num_masks, C)`, low-resolution mask logits `pred_masks` `(num_masks, h, h)`,
            and `mask_scores` `(num_masks,)`.

        Raises:
            ValueError: other numbers of images than of samples.
        """
        counts = is_seg.sum(dim=-1).tolist()
        if image_embeddings is not None:
            number = len(image_embeddings)
            check_images_per_prompt(f"SAM has {number} images", number, len(counts))
        embeddings = self.seg_head(hidden_states[is_seg.to(hidden_states.device)]).split(counts)
        padded = nn.utils.rnn.pad_sequence(list(embeddings), batch_first=True)  # [B, M, C]
        if padded.shape[1] == 0 or image_embeddings is None:
            square: Any = self.config.sam_square_config
            side = 4 * (square.image_size // square.patch_size)
            masks, scores = padded.new_zeros((len(counts), 0, side, side)), padded.new_zeros((len(counts), 0))
        else:
            image_embeddings = image_embeddings.repeat_interleave(len(counts) // image_embeddings.shape[0], 0)
            masks, scores = self.sam.decode_masks(padded, image_embeddings)
        return {
            "seg_embeddings": list(embeddings),
            "pred_masks": [mask[:count] for mask, count in zip(masks, counts, strict=True)],
            "mask_scores": [score[:count] for score, count in zip(scores, counts, strict=True)],
        }


def _check_weights(name: str | os.PathLike, differing: dict[str, Collection[str]]) -> None:
    """Raises a `ValueError` that names the tensors, by kind, in which a checkpoint and its configuration differ."""
    found = []
    for kind, tensors in differing.items():
        if tensors:
            more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
            found.append(f"{kind}: {', '.join(sorted(tensors)[:3])}{more}")
    if found:
        raise ValueError(
            f"The weights of {str(name)!r} do not fill the model that its config.json describes ({'; '.join(found)}). "
            "Download or convert it anew; `ignore_incomplete_weights=True` loads it with random values for the rest."
        )


def _not_finite(model: nn.Module) -> list[str]:
    """Names of the weights that hold NaN or infinity; of those in plain tensors, not in quantised or sharded ones."""
    return [
        name
        for name, weight in model.named_parameters()
        if type(weight.data) is torch.Tensor and not weight.is_meta and not is_finite(weight.data)
    ]


def _check_grids(image_grid_thw: Any) -> torch.Tensor:
    """The grids of Qwen-VL's images, or a `ValueError` that says what is wrong with them."""
    mend = "frames, rows and columns of each image's patches; pass the processor's output whole."
    if image_grid_thw is None:
        raise ValueError(f"`image_grid_thw` is None; a Qwen-VL needs a tensor of shape (images, 3), {mend}")
    if not isinstance(image_grid_thw, torch.Tensor) or image_grid_thw.is_floating_point():
        kind = getattr(image_grid_thw, "dtype", type(image_grid_thw).__name__)
        raise ValueError(f"`image_grid_thw` is a {kind}; allowed is a tensor of whole numbers, {mend}")
    if image_grid_thw.ndim != 2 or image_grid_thw.shape[1] != 3:
        raise ValueError(f"`image_grid_thw` has shape {tuple(image_grid_thw.shape)}; allowed is (images, 3), {mend}")
    return image_grid_thw


def _check_given_once(image_state: LiteLVLMImageState | None, **images: torch.Tensor | None) -> None:
    """Raises a `ValueError` where an image is described twice: by its state, and by pixels that would be ignored."""
    given = [name for name, pixels in images.items() if pixels is not None]
    if image_state is not None and given:
        raise ValueError(f"`{given[0]}` and `image_state` are both given; an image is described by one of them.")


def _at(values: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """The entries of `values`, `(B, L)` or `(B, L, D)`, at the positions that the language model saw, `(B, R)`."""
    if positions is None:
        return values
    return values.take_along_dim(positions.to(values.device)[(...,) + (None,) * (values.ndim - 2)], dim=1)


def _shares_of_step(labels: torch.Tensor | None, num_items_in_batch: int | torch.Tensor | None) -> torch.Tensor | None:
    """
    The share `(B,)` of each sample in the labels of an optimizer step, which `Trainer` counts over all batches and
    processes of it. Transformers weighs the tokens of its text loss alike, so that splitting a step changes nothing.
    """
    if labels is None or num_items_in_batch is None:
        return None
    return (labels != -100).sum(dim=-1) / torch.as_tensor(num_items_in_batch, device=labels.device)


def _next_at(shift_labels: torch.Tensor | None, positions: torch.Tensor | None) -> torch.Tensor | None:
    """As [`_at`], of labels that stand where they are predicted: each is that of the next token that was kept."""
    if shift_labels is None or positions is None:
        return shift_labels
    following = nn.functional.pad(positions[:, 1:], (0, 1), value=shift_labels.shape[1])
    return _at(nn.functional.pad(shift_labels, (1, 0), value=-100), following)


__all__ = [
    "LiteLVLMForConditionalGeneration",
    "LiteLVLMForSegmentation",
    "LiteLVLMModel",
    "LiteLVLMPreTrainedModel",
]
