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
PyTorch LiteLVLM model: any CLIP-based LVLM of Transformers whose visual tokens are pruned before its language model
runs, guided by the CLIP text tower, with a SAM mask decoder behind [SEG] tokens.

Placeholders stay in `input_ids` as the LVLM's processor writes them; the rows of pruned patches are dropped from
embeddings, attention mask, labels and position ids. Every sample keeps the same number of tokens, so a batch stays
rectangular. B = batch, L = sequence length before and R after pruning, T = texts per image, N = patches,
K = retained tokens, D = width of the vision tower, P = width of CLIP's joint space.
"""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Cache,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches
from transformers.processing_utils import Unpack
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring, can_return_tuple
from transformers.utils.import_utils import is_tracing, torch_compilable_check

from ..configuration.configuration_litelvlm import LiteLVLMConfig, OpenCLIPGuideConfig
from .guide_open_clip_litelvlm import LiteLVLMOpenCLIPGuide
from .hub_litelvlm import export_code
from .pruning_litelvlm import (
    PruningMethod,
    PruningSignals,
    RetainedTokens,
    class_token_contribution,
    get_pruning_method,
    patch_text_similarity,
    select_patches,
)
from .sam_litelvlm import LiteLVLMSam, LiteLVLMSegHead, mask_losses

# `position_mode` is the user's choice, and no checkpoint's.
# trf-ignore: TRF041 position_mode

# What the key-value cache is called in calls and outputs: Transformers 5.24 named it anew
CACHE_NAME = "cache" if hasattr(CausalLMOutputWithPast(), "cache") else "past_key_values"

# Arguments of `save_pretrained` that are for `push_to_hub`
_HUB_OPTIONS = ("repo_id", "commit_message", "private", "revision", "create_pr", "tags")

# What Transformers' quantizers call the modules that they leave alone, and ours: with the prefix of a model with a
# head, and without
_SKIP_OPTIONS = ("modules_to_not_convert", "llm_int8_skip_modules")
_OF_BACKBONE = ("backbone.vision_tower", "backbone.multi_modal_projector", "guide")
_FULL_PRECISION = [*_OF_BACKBONE, *(f"model.{name}" for name in _OF_BACKBONE), "lm_head", "seg_head", "sam"]

# Arguments of every `forward` below
_SHARED_ARGUMENTS = r"""
    input_ids (`torch.LongTensor` of shape `(B, L)`):
        N image placeholders per sample with an image, those of exactly one image.
    pixel_values (`torch.Tensor` of shape `(b, 3, S, S)` or `(b, crops, 3, S, S)`):
        Images as CLIP takes them; in crops for LLaVA-NeXT. B is a multiple of b, and each image serves B / b samples
        in a row.
    image_sizes (`torch.LongTensor` of shape `(b, 2)`):
        For LLaVA-NeXT: height and width of each image before it was cut.
    guide_input_ids (`torch.LongTensor` of shape `(B, T, G)` or `(B, T, sentences, G)`):
        Texts for CLIP, one row, or several sentences, for each question about the image, padded on the right.
    guide_attention_mask (`torch.LongTensor` of the same shape):
        All 0 for an absent text.
    image_state ([`LiteLVLMImageState`]):
        From `encode_image`, in the place of `pixel_values`.
    num_retained_tokens (`int`):
        Replaces the configured budget in this call.
    pruning_method (`str`):
        Replaces the configured method in this call.
"""
_LABEL_ARGUMENTS = r"""
    labels (`torch.LongTensor` of shape `(B, L)`):
        As long as `input_ids`, -100 where there is no label.
"""
_MASK_ARGUMENTS = r"""
    sam_pixel_values (`torch.Tensor` of shape `(b, 3, S', S')`):
        Images as SAM takes them. With them, each [SEG] in `input_ids` gives a mask.
    mask_labels (`list[torch.Tensor]`):
        Per sample `(num_masks, H, H)` masks of 0 and 1, one for each [SEG], in the frame of `sam_pixel_values` at any
        resolution; negative values are ignored.
    original_sizes (`torch.LongTensor` of shape `(b, 2)`):
        Not used here, so that the processor's output can be passed whole; `post_process_masks` takes it.
    reshaped_input_sizes (`torch.LongTensor` of shape `(b, 2)`):
        As `original_sizes`.
"""


@auto_docstring
@dataclass
class LiteLVLMImageState(ModelOutput):
    """
    What is computed of images alone, to be asked any number of questions.

    Args:
        image_features (`torch.Tensor` of shape `(B, N, D)`): the vision tower's patches, before the projector.
        patch_embeds (`torch.Tensor` of shape `(B, N, P)`): the patches in CLIP's joint space; `None` if not pruned.
        contribution (`torch.Tensor` of shape `(B, N)`): contribution to the class token; `None` if not pruned.
        class_features (`torch.Tensor` of shape `(B, D)`): the class token at the layers of `image_features`; `None`
            if not pruned, or in crops.
        layer_inputs (`torch.Tensor` of shape `(B, n, 1 + N, D)`): what enters the n layers of the vision tower that
            the pruning method looks at; `None` if it looks at none.
        is_patch (`torch.BoolTensor` of shape `(B, N)`): for an image in crops, which of its placeholders are patches;
            the others are ends of rows, or there is none: images have different numbers. `None` where all are patches.
        is_token (`torch.BoolTensor` of shape `(B, N)`): patches and ends of rows; `None` likewise.
        sam_image_embeddings (`torch.Tensor` of shape `(B, C, h, h)`): SAM's image embeddings, where asked for.
    """

    image_features: torch.Tensor = None  # type: ignore[assignment]
    patch_embeds: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    class_features: torch.Tensor | None = None
    layer_inputs: torch.Tensor | None = None
    is_patch: torch.Tensor | None = None
    is_token: torch.Tensor | None = None
    sam_image_embeddings: torch.Tensor | None = None


@auto_docstring
@dataclass
class LiteLVLMModelOutput(BaseModelOutputWithPast):
    """
    What the language model gives, of the R rows that pruning leaves: so many entries has each layer of its cache, too.

    Args:
        retained_indices (`torch.LongTensor` of shape `(B, K)`): patches in the order for the language model; -1 for a
            token that is no patch's own.
        similarity (`torch.Tensor` of shape `(B, T, N)`): of each patch to each text.
        contribution (`torch.Tensor` of shape `(B, N)`): of each patch to the class token.
        source_rows (`torch.LongTensor` of shape `(B, R)`): for each row of the language model the place in
            `input_ids` it comes from; `None` where nothing was pruned.
        attention_mask (`torch.Tensor` of shape `(B, R)`): as the language model got it.
        position_ids (`torch.LongTensor` of shape `(B, R)`): as the language model got them.
    """

    retained_indices: torch.Tensor | None = None
    similarity: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    source_rows: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None


@auto_docstring
@dataclass
class LiteLVLMSegmentationOutput(CausalLMOutputWithPast):
    """
    What the language model gives, of the R rows that pruning leaves: so many entries has each layer of its cache, too.

    Args:
        loss (`torch.Tensor` of shape `()`): weighted sum of the losses below, with `labels` or `mask_labels`.
        ce_loss (`torch.Tensor` of shape `()`): of the answers' tokens, before weighting.
        bce_loss (`torch.Tensor` of shape `()`): of the masks' pixels, before weighting.
        dice_loss (`torch.Tensor` of shape `()`): of the masks, before weighting.
        logits (`torch.Tensor` of shape `(B, R, vocab_size)`): of the rows that `logits_to_keep` names.
        pred_masks (`list[torch.Tensor]`): per sample `(num_masks, h, h)` low-resolution mask logits in the frame of
            SAM's square input, one mask per [SEG]; `(0, h, h)` for an answer without any.
        seg_embeddings (`list[torch.Tensor]`): per sample `(num_masks, mask_embedding_size)`.
        sequences (`torch.LongTensor` of shape `(B, new_tokens)`): generated tokens (`segment` only).
        last_hidden_state (`torch.Tensor` of shape `(B, R, hidden_size)`): after the language model's final norm.
        retained_indices (`torch.LongTensor` of shape `(B, K)`): patches in the order for the language model; -1 for a
            token that is no patch's own.
        similarity (`torch.Tensor` of shape `(B, T, N)`): of each patch to each text.
        contribution (`torch.Tensor` of shape `(B, N)`): of each patch to the class token.
        source_rows (`torch.LongTensor` of shape `(B, R)`): see [`LiteLVLMModelOutput`].
        attention_mask (`torch.Tensor` of shape `(B, R)`): as the language model got it.
        position_ids (`torch.LongTensor` of shape `(B, R)`): as the language model got them.
    """

    ce_loss: torch.Tensor | None = None
    bce_loss: torch.Tensor | None = None
    dice_loss: torch.Tensor | None = None
    pred_masks: list[torch.Tensor] | None = None
    seg_embeddings: list[torch.Tensor] | None = None
    sequences: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    retained_indices: torch.Tensor | None = None
    similarity: torch.Tensor | None = None
    contribution: torch.Tensor | None = None
    source_rows: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None


class _GenerationRecord:
    """What `segment` keeps of a generation: per step the one row that predicts the next token, and the selection."""

    def __init__(self) -> None:
        self.hidden_states: list[torch.Tensor] = []
        self.selection: dict[str, torch.Tensor | None] = {}

    def add(self, outputs: ModelOutput) -> None:
        if not self.hidden_states:
            self.selection = {key: outputs.get(key) for key in ("retained_indices", "similarity", "contribution")}
        # A copy: a compiled step writes the next one's output into the same memory
        self.hidden_states.append(outputs.last_hidden_state[:, -1].clone())


class LiteLVLMGuide(nn.Module):
    """The part of CLIP that an LVLM leaves out: the text tower and the vision side's projection."""

    def __init__(self, text_config: CLIPTextConfig, vision_config: CLIPVisionConfig):
        super().__init__()
        self.text_model = CLIPTextModelWithProjection._from_config(text_config)
        self.visual_projection = nn.Linear(vision_config.hidden_size, vision_config.projection_dim, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T, G)` or `(B, T, sentences, G)`): ids of CLIP's tokenizer,
                padded on the right.
            attention_mask (`torch.Tensor` of the same shape): not looked at here.

        Returns:
            `torch.Tensor` of shape `(B, T, P)`: projected [EOS] outputs, not normalised, or the mean of the sentences'
            normalised ones, as CLIP's prompt ensembles are made; arbitrary for absent texts.
        """
        # The tower is causal and reads its output at [EOS], so no padding on the right is ever seen; a mask would be
        # looked through for padding, which waits for the device
        text_embeds = self.text_model(input_ids=input_ids.flatten(0, -2)).text_embeds
        text_embeds = text_embeds.unflatten(0, input_ids.shape[:-1])
        return text_embeds if input_ids.ndim == 3 else nn.functional.normalize(text_embeds, dim=-1).mean(dim=2)

    def encode_patches(self, pixel_values: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): not looked at here.
            patches (`torch.Tensor` of shape `(B, N, D)`): after the vision tower's last norm.

        Returns:
            `torch.Tensor` of shape `(B, N, P)`: the patches in CLIP's joint space.
        """
        return self.visual_projection(patches)


@auto_docstring
class LiteLVLMPreTrainedModel(PreTrainedModel):
    config: LiteLVLMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    # The vision tower's layers are called one by one, and SAM reads weights of its mask decoder's parts, so each of
    # these stays together; the lint rule knows only layers of one file.  trf-ignore: TRF022
    _no_split_modules = ["CLIPVisionModel", "LiteLVLMGuide", "LiteLVLMOpenCLIPGuide", "SamMaskDecoder"]
    _skip_keys_device_placement = [CACHE_NAME]

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """
        As `PreTrainedModel.from_pretrained`. A `quantization_config` that does not say which modules it leaves alone
        applies to the language model only: what it selects and segments by stays in full precision.
        """
        quantization_config = kwargs.get("quantization_config")
        if isinstance(quantization_config, dict):
            quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
        for name in _SKIP_OPTIONS:
            if getattr(quantization_config, name, ()) is None:
                quantization_config = deepcopy(quantization_config)
                setattr(quantization_config, name, _FULL_PRECISION.copy())
        if quantization_config is not None:
            kwargs["quantization_config"] = quantization_config
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        As `PreTrainedModel.save_pretrained`, with shards of at most 5 GB unless `max_shard_size` is given, and with
        the code that lets the folder load with `trust_remote_code`.
        """
        push_to_hub = kwargs.pop("push_to_hub", False)
        hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
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
        # CODEPATH: LISA has one linear layer, GLaMM and the LLaVA family the backbone's own projector
        if config.projector_type == "linear":
            vision_config: CLIPVisionConfig = config.backbone_config.vision_config
            width = vision_config.hidden_size * len(config.vision_feature_layers)
            self.backbone.multi_modal_projector = nn.Linear(width, config.get_text_config().hidden_size)
        # CODEPATH: CLIP's text tower belongs to the vision tower, an OpenCLIP model has a vision tower of its own
        if isinstance(config.guide_config, OpenCLIPGuideConfig):
            vision_config = config.backbone_config.vision_config
            self.guide: nn.Module = LiteLVLMOpenCLIPGuide(
                config.guide_config, (vision_config.image_size // vision_config.patch_size) ** 2
            )
        else:
            self.guide = LiteLVLMGuide(config.guide_config, config.backbone_config.vision_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def encode_image(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor | None = None, pruning_method: str | None = None
    ) -> LiteLVLMImageState:
        """
        Runs the vision tower as far as needed: of the last layer only the class token's query and the patches' keys
        and values are computed.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)` or `(B, crops, 3, S, S)`): one image per sample, as
                CLIP takes it; in crops for LLaVA-NeXT.
            image_sizes (`torch.LongTensor` of shape `(B, 2)`): of images in crops, before they were cut.
            pruning_method (`str`, *optional*): whose signals to compute, by default those of the configured method;
                `"none"` leaves all of them out.
        """
        in_crops = hasattr(self.config.backbone_config, "image_grid_pinpoints")
        if pixel_values.ndim != 4 + in_crops or (image_sizes is None) == in_crops:
            wanted_shape = (
                "(batch, crops, channels, height, width) with `image_sizes`"
                if in_crops
                else ("(batch, channels, height, width) without `image_sizes`")
            )
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)} and `image_sizes` is "
                f"{None if image_sizes is None else tuple(image_sizes.shape)}; allowed is {wanted_shape}, one image "
                "per prompt."
            )
        method = get_pruning_method(self.config.pruning_method if pruning_method is None else pruning_method)
        if in_crops:
            return self._encode_crops(pixel_values, image_sizes, method)
        return self._encode_plain(pixel_values, method)

    def _encode_plain(self, pixel_values: torch.Tensor, method: PruningMethod | None) -> LiteLVLMImageState:
        tower = self.backbone.vision_tower
        layers = tower.encoder.layers
        # 0 is the embeddings' output
        wanted = [index % (len(layers) + 1) for index in self.config.vision_feature_layers]

        hidden_states = [tower.pre_layrnorm(tower.embeddings(pixel_values))]
        for layer in layers[: max(*wanted, len(layers) - 1)]:
            hidden_states.append(layer(hidden_states[-1], attention_mask=None))

        state = LiteLVLMImageState(image_features=torch.cat([hidden_states[i][:, 1:] for i in wanted], dim=-1))
        if method is not None and not method.inside_language_model:
            feature_patches = hidden_states[wanted[0]][:, 1:]
            state.patch_embeds = self.guide.encode_patches(pixel_values, tower.post_layernorm(feature_patches))
            last_input = layers[-1].layer_norm1(hidden_states[len(layers) - 1])
            attention = layers[-1].self_attn
            state.contribution = class_token_contribution(
                attention.q_proj(last_input[:, 0]),
                attention.k_proj(last_input[:, 1:]),
                attention.v_proj(last_input[:, 1:]),
            )
            state.class_features = torch.cat([hidden_states[i][:, 0] for i in wanted], dim=-1)
            if method.vision_layers:
                inputs = [hidden_states[layer % len(layers)] for layer in method.vision_layers]
                state.layer_inputs = torch.stack(inputs, dim=1)
        return state

    def _encode_crops(
        self, pixel_values: torch.Tensor, image_sizes: torch.Tensor, method: PruningMethod | None
    ) -> LiteLVLMImageState:
        """Each crop as an image of its own, then its patches where LLaVA-NeXT places them."""
        if method is not None and method.vision_layers:
            raise ValueError(
                f"`pruning_method` is {method.name!r}, which looks into the vision tower at one picture, but a "
                f"{self.config.backbone_config.model_type!r} cuts its images into crops; choose another method."
            )
        batch_size, num_crops = pixel_values.shape[:2]
        # A class token belongs to its crop, not to the image
        crops = replace(self._encode_plain(pixel_values.flatten(0, 1), method), class_features=None)
        # The backbone itself says where a patch goes, by moving the patches' numbers in the place of their features
        num_patches = crops.image_features.shape[1]
        numbers = torch.arange(num_crops * num_patches, dtype=torch.float32, device=pixel_values.device)
        numbers = numbers.view(num_crops, num_patches, 1)
        pinpoints = self.config.backbone_config.image_grid_pinpoints
        used = [image_size_to_num_patches(size, pinpoints, pixel_values.shape[-1]) for size in image_sizes.tolist()]
        places, _ = self.backbone.pack_image_features(
            [numbers[:count] for count in used],
            image_sizes,
            vision_feature_select_strategy="default",
            image_newline=numbers.new_tensor([-1.0]),
        )
        places = [place[:, 0].long() for place in places]
        layout = nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-2)  # [B, N]
        state = LiteLVLMImageState(is_patch=layout >= 0, is_token=layout > -2)
        samples = torch.arange(batch_size, device=layout.device)[:, None]
        for name, value in crops.items():
            per_image = value.reshape(batch_size, num_crops * num_patches, *value.shape[2:])
            state[name] = per_image[samples, layout.clamp(min=0)]
        return state

    def select_tokens(
        self,
        image_state: LiteLVLMImageState,
        guide_input_ids: torch.Tensor | None,
        guide_attention_mask: torch.Tensor | None,
        num_retained_tokens: int,
        pruning_method: str,
    ) -> tuple[RetainedTokens, torch.Tensor]:
        """The K retained tokens and the similarity `(B, T, N)` for B samples; see `forward` for arguments."""
        method = get_pruning_method(pruning_method)
        if method is None or image_state.patch_embeds is None or image_state.contribution is None:
            raise ValueError("`image_state` was made without pruning signals; make it with `encode_image`.")
        if method.vision_layers and image_state.layer_inputs is None:
            raise ValueError(
                f"`image_state` was made without the layers that {pruning_method!r} looks at; make it with "
                f"`encode_image(..., pruning_method={pruning_method!r})`."
            )
        device = image_state.image_features.device  # that of the vision tower, into which a method may look
        patch_embeds = image_state.patch_embeds.to(device)
        if method.needs_texts:
            if guide_input_ids is None:
                raise ValueError(
                    "`guide_input_ids` is None but pruning needs the texts; pass the processor's output whole, or "
                    "`pruning_method='none'`."
                )
            if guide_attention_mask is None:
                guide_attention_mask = torch.ones_like(guide_input_ids)
            text_embeds = self.guide(guide_input_ids, guide_attention_mask).to(device)
            text_mask = guide_attention_mask.bool().flatten(2).any(dim=-1).to(device)
        else:
            text_embeds = patch_embeds[:, :0]
            text_mask = torch.zeros(text_embeds.shape[:2], dtype=torch.bool, device=device)
        patch_mask = None if image_state.is_patch is None else image_state.is_patch.to(device)
        if patch_mask is not None:
            torch_compilable_check(
                (patch_mask.sum(dim=-1) >= num_retained_tokens).all(),
                f"An image has fewer patches than the {num_retained_tokens} tokens to retain; ask for fewer.",
            )
        signals = PruningSignals(
            similarity=patch_text_similarity(patch_embeds, text_embeds),
            contribution=image_state.contribution.to(device),
            text_mask=text_mask,
            patch_mask=patch_mask,
            patch_embeds=patch_embeds,
            text_embeds=text_embeds,
            image_features=image_state.image_features,
            class_features=image_state.class_features,
            layer_inputs=image_state.layer_inputs,
            vision_tower=self.backbone.vision_tower,
            projector=self.backbone.multi_modal_projector,
        )
        return select_patches(method, signals, num_retained_tokens, self.config), signals.similarity

    @can_return_tuple
    @auto_docstring(custom_args=_SHARED_ARGUMENTS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        num_retained_tokens: int | None = None,
        pruning_method: str | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LiteLVLMModelOutput:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of `input_ids` and `inputs_embeds`.")
        if pixel_values is not None and image_state is not None:
            raise ValueError("`pixel_values` and `image_state` are both given; an image is described by one of them.")
        budget = self.config.resolve_budget(num_retained_tokens, pruning_method)
        pruning_method = self.config.pruning_method if pruning_method is None else pruning_method
        method = None if budget is None else get_pruning_method(pruning_method)
        is_inside = method is not None and method.inside_language_model
        selection: dict[str, torch.Tensor | None] = {}
        is_padded = attention_mask is not None
        if input_ids is not None and (pixel_values is not None or image_state is not None):
            # Before the device has anything to do: nothing behind this waits for it
            is_padded = self._check_prompt(input_ids, attention_mask)
        is_image = None
        if pixel_values is not None:
            image_state = self.encode_image(pixel_values, image_sizes, "none" if method is None else pruning_method)
        if image_state is not None:
            if input_ids is None:
                raise ValueError("An image needs `input_ids`: its placeholders cannot be found in `inputs_embeds`.")
            image_state = self._per_sample(image_state, input_ids.shape[0])
            image_features = image_state.image_features
            is_image = input_ids == self.config.image_token_id
            num_tokens = self._tokens_per_image(image_state)
            if isinstance(num_tokens, list):
                torch_compilable_check(
                    (is_image.sum(dim=-1) == torch.as_tensor(num_tokens, device=is_image.device)).all(),
                    self._wrong_placeholders(num_tokens),
                )
            if is_inside and image_state.is_patch is not None:
                raise ValueError(
                    f"`pruning_method` is {pruning_method!r}, which prunes inside the language model, but a "
                    f"{self.config.backbone_config.model_type!r} has images of different lengths; choose another."
                )
            if budget is not None and not is_inside:
                retained, similarity = self.select_tokens(
                    image_state, guide_input_ids, guide_attention_mask, budget, pruning_method
                )
                indices = retained.indices.to(input_ids.device)
                rows, is_image, is_padding = self._rows_after_pruning(is_image, indices, num_tokens)
                if retained.is_valid is not None:
                    is_missing = torch.zeros_like(is_image).masked_scatter(
                        is_image, ~retained.is_valid.to(rows.device)
                    )
                    is_padding = is_missing if is_padding is None else is_padding | is_missing
                input_ids = input_ids.gather(1, rows)
                attention_mask, position_ids = self._mask_and_positions(attention_mask, position_ids, rows, is_padding)
                # Without a mask and a cache Transformers takes gaps in the positions for several sequences in one row
                caches = kwargs.get("use_cache", self.config.get_text_config().use_cache) and not self.training
                has_gaps = self.config.position_mode == "original" and not caches
                is_padded = is_padded or is_padding is not None or has_gaps
                if retained.features is not None:
                    image_features = retained.features
                else:
                    of_patch = indices.to(image_features.device)[..., None].expand(-1, -1, image_features.shape[-1])
                    image_features = image_features.gather(1, of_patch)
                selection = {
                    "retained_indices": indices,
                    "similarity": similarity,
                    "contribution": image_state.contribution,
                    "source_rows": rows,
                }
            inputs_embeds = self.get_input_embeddings()(input_ids)
            visual_tokens = self.backbone.multi_modal_projector(image_features)
            if image_state.is_patch is not None and image_state.is_token is not None and budget is None:
                is_patch = image_state.is_patch[..., None].to(visual_tokens.device)
                visual_tokens = visual_tokens.where(is_patch, self.backbone.image_newline.to(visual_tokens.dtype))
                visual_tokens = visual_tokens[image_state.is_token.to(visual_tokens.device)]
            visual_tokens = visual_tokens.to(inputs_embeds.device, inputs_embeds.dtype)
            inputs_embeds = inputs_embeds.masked_scatter(is_image[..., None].to(inputs_embeds.device), visual_tokens)
        elif inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        language_model_inputs = {
            "inputs_embeds": inputs_embeds,
            # Without padding a mask says nothing, and Transformers would look through it, waiting for the device
            "attention_mask": attention_mask if is_padded or is_inside else None,
            "position_ids": position_ids,
            **kwargs,
        }
        if is_inside and method is not None:
            outputs, rows = method.function(
                self.backbone.language_model, is_image, budget, self.config, **language_model_inputs
            )
            if image_state is not None and is_image is not None:
                num_retained = rows.shape[1] - is_image.shape[1] + image_state.image_features.shape[1]
                is_first = is_image.gather(1, rows).int().argsort(dim=-1, descending=True, stable=True)
                patch = (is_image.cumsum(dim=-1) - 1).gather(1, rows)
                selection = {"retained_indices": patch.gather(1, is_first[:, :num_retained]), "source_rows": rows}
        else:
            outputs = self.backbone.language_model(**language_model_inputs)
        return LiteLVLMModelOutput(**outputs, attention_mask=attention_mask, position_ids=position_ids, **selection)

    def _check_prompt(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
        """
        Whether anything is padded in prompts `(B, L)` with images, at the cost of waiting for the device once.

        Raises:
            ValueError: a prompt does not hold the placeholders of exactly one image. Images in crops have a number of
                placeholders each, which is looked at where it is known.
        """
        fits = is_visible = input_ids.new_ones((), dtype=torch.bool)
        in_crops = hasattr(self.config.backbone_config, "image_grid_pinpoints")
        if not in_crops:
            fits = ((input_ids == self.config.image_token_id).sum(dim=-1) == self.config.num_patches).all()
        if attention_mask is not None:
            is_visible = attention_mask.bool().all()
        message = self._wrong_placeholders(self.config.num_patches)
        if is_tracing(input_ids):  # a graph cannot depend on values
            torch_compilable_check(fits, message)
            return attention_mask is not None
        all_fit, all_visible = torch.stack([fits, is_visible]).tolist()
        if not all_fit:
            raise ValueError(message)
        return not all_visible

    def _wrong_placeholders(self, num_tokens: int | list[int]) -> str:
        return (
            f"Each sample must hold {num_tokens} image placeholders (id {self.config.image_token_id}), those of "
            "exactly one image; several images per prompt are not supported."
        )

    @staticmethod
    def _per_sample(image_state: LiteLVLMImageState, batch_size: int) -> LiteLVLMImageState:
        """Repeats what the language model needs of each image for the questions asked of it."""
        num_images = image_state.image_features.shape[0]
        if batch_size % num_images:
            raise ValueError(
                f"There are {num_images} images for {batch_size} prompts; allowed are one image per prompt, or an "
                "equal number of prompts in a row for each image."
            )
        repeats = batch_size // num_images
        per_image = replace(image_state, sam_image_embeddings=None)
        if repeats == 1:
            return per_image
        return LiteLVLMImageState(**{key: value.repeat_interleave(repeats, 0) for key, value in per_image.items()})

    @staticmethod
    def _tokens_per_image(image_state: LiteLVLMImageState) -> int | list[int]:
        """Visual tokens of each image before pruning: one number, or one per image where they differ."""
        if image_state.is_token is None:
            return image_state.image_features.shape[1]
        return image_state.is_token.sum(dim=-1).tolist()

    @staticmethod
    def _rows_after_pruning(
        is_image: torch.Tensor, retained: torch.Tensor, num_tokens: int | list[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """
        Which rows of the prompt the language model sees.

        Args:
            is_image (`torch.BoolTensor` of shape `(B, L)`): the placeholders of each sample.
            retained (`torch.LongTensor` of shape `(B, K)`): patches in the order for the language model; what is no
                patch's own (-1) stands at the first patch's place.
            num_tokens (`int` or `list[int]`): placeholders of every sample, or of each.

        Returns:
            `torch.LongTensor` of shape `(B, R)`: per row the place in the prompt it comes from; the retained patches,
            in their order, take the first K placeholders' turns. R = L - N + K for the smallest number N of
            placeholders. Then which of these rows are visual tokens; and which are padding, on the left of samples
            that had more placeholders, or `None` if all had as many.
        """
        num_retained = retained.shape[1]
        fewest, most = (num_tokens, num_tokens) if isinstance(num_tokens, int) else (min(num_tokens), max(num_tokens))
        is_kept = ~is_image | (is_image.cumsum(dim=-1) <= num_retained)
        # A stable sort of two values is a partition that keeps the order: no data-dependent shape, no waiting
        rows = is_kept.int().argsort(dim=-1, stable=True)[:, fewest - num_retained :]
        place_of_patch = is_image.int().argsort(dim=-1, descending=True, stable=True)[:, :most]
        is_kept = is_kept.gather(1, rows)
        is_image = is_image.gather(1, rows) & is_kept
        rows = rows.masked_scatter(is_image, place_of_patch.gather(1, retained.clamp(min=0)))
        return rows, is_image, None if fewest == most else ~is_kept

    def _mask_and_positions(
        self,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        rows: torch.Tensor,
        is_padding: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Attention mask and position ids, each of shape `(B, R)`, or `None` for the language model's default."""
        if self.config.position_mode == "original":
            if position_ids is not None:
                position_ids = position_ids.expand(rows.shape[0], -1).gather(1, rows)
            else:  # positions in the un-pruned sequence; where nothing is padded, simply the places
                position_ids = rows if attention_mask is None else _positions(attention_mask).gather(1, rows)
        if attention_mask is not None:
            attention_mask = attention_mask.gather(1, rows)
        elif is_padding is not None or self.config.position_mode == "original":
            # Without a mask Transformers may take gaps in the positions for several sequences in one row
            attention_mask = torch.ones_like(rows)
        if is_padding is not None and attention_mask is not None:
            attention_mask = attention_mask.masked_fill(is_padding, 0)
        if self.config.position_mode == "consecutive":
            position_ids = None if attention_mask is None else _positions(attention_mask)
        return attention_mask, position_ids


def _positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids of shape `(B, L)` that count the visible tokens of an attention mask `(B, L)` from 0."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


@auto_docstring(custom_intro="An LVLM with pruned visual tokens that answers in text.")
class LiteLVLMForConditionalGeneration(LiteLVLMPreTrainedModel, GenerationMixin):
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
        cls, backbone: str | os.PathLike, guide: str | os.PathLike, *, dtype: Any = "auto", **config_overrides: Any
    ) -> "LiteLVLMForConditionalGeneration":
        """
        Wraps an LVLM in Transformers' format without any conversion.

        Args:
            backbone (`str`): Hub id or folder of a CLIP-based LVLM, such as `"llava-hf/llava-1.5-7b-hf"`.
            guide (`str`): Hub id or folder of the CLIP checkpoint that the LVLM's vision tower comes from, such as
                `"openai/clip-vit-large-patch14-336"`.
            dtype: as in `from_pretrained`.
            config_overrides: fields of [`LiteLVLMConfig`], such as `num_retained_tokens=64`.

        Raises:
            ValueError: the guide does not belong to the backbone's vision tower.
        """
        lvlm = AutoModelForImageTextToText.from_pretrained(backbone, dtype=dtype)
        clip = CLIPModel.from_pretrained(guide, dtype=lvlm.dtype)
        width, expected = clip.config.vision_config.hidden_size, lvlm.config.vision_config.hidden_size
        if width != expected:
            raise ValueError(
                f"`guide` {str(guide)!r} has a vision tower of width {width}, but that of {str(backbone)!r} is "
                f"{expected} wide; give the CLIP checkpoint that the backbone was built on."
            )
        lvlm.config.vision_config.projection_dim = clip.config.projection_dim
        clip.config.text_config.projection_dim = clip.config.projection_dim
        config = cls.config_class(
            backbone_config=lvlm.config, guide_config=clip.config.text_config, dtype=lvlm.dtype, **config_overrides
        )
        with torch.device("meta"):
            model = cls(config)
        # The modules themselves are handed over: no second copy of the weights
        model.model.backbone, model.lm_head = lvlm.model, lvlm.lm_head
        model.model.guide.visual_projection = clip.visual_projection
        text_model = model.model.guide.text_model
        text_model.text_model, text_model.text_projection = clip.text_model, clip.text_projection
        model.generation_config = lvlm.generation_config
        model.tie_weights()
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def encode_image(
        self,
        pixel_values: torch.Tensor,
        sam_pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        pruning_method: str | None = None,
    ) -> LiteLVLMImageState:
        """
        Encodes images once, for any number of questions: pass the result as `image_state` in their place.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, S, S)`): images as CLIP takes them.
            sam_pixel_values (`torch.Tensor` of shape `(B, 3, S', S')`, *optional*): images as SAM takes them.
            image_sizes (`torch.LongTensor` of shape `(B, 2)`, *optional*): for LLaVA-NeXT, as in `forward`.
            pruning_method (`str`, *optional*): the method that is to be used with the result, if not the configured.
        """
        return self.model.encode_image(pixel_values, image_sizes, pruning_method)

    @can_return_tuple
    @auto_docstring(custom_args=_SHARED_ARGUMENTS + _LABEL_ARGUMENTS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_retained_tokens: int | None = None,
        pruning_method: str | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LiteLVLMSegmentationOutput:
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            guide_input_ids=guide_input_ids,
            guide_attention_mask=guide_attention_mask,
            image_state=image_state,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            num_retained_tokens=num_retained_tokens,
            pruning_method=pruning_method,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])

        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=_at_rows(labels, outputs.source_rows),
                vocab_size=self.config.get_text_config().vocab_size,
                **kwargs,
            )
        return LiteLVLMSegmentationOutput(loss=loss, logits=logits, **outputs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        is_first_iteration: bool = False,
        generation_record: _GenerationRecord | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in [`GenerationMixin`]; `generation_record` is for `segment` and does not reach `forward`."""
        if cache is not None and past_key_values is not None:
            raise ValueError(f"`cache` and `past_key_values` are both given; this Transformers knows `{CACHE_NAME}`.")
        cache = past_key_values if cache is None else cache
        has_image = kwargs.get("pixel_values") is not None or kwargs.get("image_state") is not None
        # Masks are decoded once, after the answer
        for name in ("sam_pixel_values", "original_sizes", "reshaped_input_sizes"):
            kwargs.pop(name, None)
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            is_first_iteration=is_first_iteration,
            **{CACHE_NAME: cache},
            **kwargs,
        )
        if not kwargs.get("use_cache", True):
            return model_inputs
        if not is_first_iteration:
            for name in ("image_state", "image_sizes", "guide_input_ids", "guide_attention_mask"):
                model_inputs.pop(name, None)
        elif has_image:
            if cache is not None and int(cache.get_seq_length()) > 0:
                raise ValueError(
                    f"`generate` got an image and a filled `{CACHE_NAME}`. A pruned prompt has fewer cache entries "
                    "than tokens, so a cached conversation cannot be continued; pass the whole conversation instead."
                )
            # A mask prepared for the whole prompt does not fit the pruned one: the language model makes its own
            model_inputs["attention_mask"] = attention_mask
        return model_inputs

    def compile_for_inference(self, **compile_kwargs: Any) -> None:
        """
        Trades a slow first call for faster ones: `generate` and `segment` decode with a static cache, which
        Transformers compiles into CUDA graphs on a GPU, and SAM's image encoder is compiled. Budget and length being
        constant, so are all shapes: one graph serves every picture, until the greatest length changes.

        Args:
            compile_kwargs: those of `torch.compile`, for SAM's image encoder.
        """
        self.generation_config.cache_implementation = "static"

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """As in [`GenerationMixin`], with a static cache of the rows that pruning leaves."""
        names = ("num_retained_tokens", "pruning_method")
        budget = self.config.resolve_budget(*(model_kwargs.get(name) for name in names))
        has_image = model_kwargs.get("pixel_values") is not None or model_kwargs.get("image_state") is not None
        # Images in crops have different numbers of tokens, of which the first is not known yet
        in_crops = hasattr(self.config.backbone_config, "image_grid_pinpoints")
        if has_image and budget is not None and not in_crops:
            max_cache_length -= self.config.num_patches - budget
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
        )

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        if (record := model_kwargs.get("generation_record")) is not None:
            record.add(outputs)
        if outputs.retained_indices is not None and model_kwargs.get("use_cache", True):
            # After the prompt only its retained rows are in the cache: masks and positions go on from those
            model_kwargs["attention_mask"] = outputs.attention_mask
            model_kwargs["position_ids"] = outputs.position_ids
        elif outputs.retained_indices is not None:
            method = get_pruning_method(model_kwargs.get("pruning_method") or self.config.pruning_method)
            if method is not None and method.inside_language_model:
                # Without a cache each step is a prompt again, and is to be pruned like the first: not by its answer
                model_kwargs.setdefault("prompt_length", outputs.attention_mask.shape[1])
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)


@auto_docstring(
    custom_intro="""
    An LVLM with pruned visual tokens that answers in text and, for each [SEG] in the answer, with a mask. Without a
    mask decoder in its configuration it answers in text only.
    """
)
class LiteLVLMForSegmentation(LiteLVLMForConditionalGeneration, GenerationMixin):
    def __init__(self, config: LiteLVLMConfig):
        super().__init__(config)
        # CODEPATH: LISA and GLaMM have a mask decoder, the LLaVA family has none
        if config.sam_config is not None:
            self.seg_head = LiteLVLMSegHead(config.get_text_config().hidden_size, config.mask_embedding_size)
            self.sam = LiteLVLMSam(config.sam_config)
        self.post_init()

    def encode_image(
        self,
        pixel_values: torch.Tensor,
        sam_pixel_values: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        pruning_method: str | None = None,
    ) -> LiteLVLMImageState:
        image_state = super().encode_image(pixel_values, image_sizes=image_sizes, pruning_method=pruning_method)
        if sam_pixel_values is not None:
            self._check_makes_masks()
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
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        sam_pixel_values: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        mask_labels: list[torch.Tensor] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_retained_tokens: int | None = None,
        pruning_method: str | None = None,
        original_sizes: torch.Tensor | None = None,
        reshaped_input_sizes: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LiteLVLMSegmentationOutput:
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            guide_input_ids=guide_input_ids,
            guide_attention_mask=guide_attention_mask,
            image_state=image_state,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            num_retained_tokens=num_retained_tokens,
            pruning_method=pruning_method,
            return_dict=True,
            **kwargs,
        )
        image_embeddings = None if image_state is None else image_state.sam_image_embeddings
        if image_embeddings is None and sam_pixel_values is not None:
            self._check_makes_masks()
            image_embeddings = self.sam.encode_image(sam_pixel_values)
        if image_embeddings is not None:
            # The row before a token predicts it, so the last row predicts no token of the prompt
            pruned_ids = _at_rows(input_ids, outputs.source_rows)
            is_seg = nn.functional.pad(pruned_ids[:, 1:] == self.config.seg_token_id, (0, 1))
            outputs.seg_embeddings, outputs.pred_masks = self._decode_masks(
                outputs.last_hidden_state, is_seg, image_embeddings
            )
        if mask_labels is not None:
            if outputs.pred_masks is None:
                raise ValueError("`mask_labels` are given without `sam_pixel_values`; pass the images for SAM too.")
            outputs.bce_loss, outputs.dice_loss = mask_losses(outputs.pred_masks, mask_labels)
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
        guide_input_ids: torch.LongTensor | None = None,
        guide_attention_mask: torch.Tensor | None = None,
        sam_pixel_values: torch.Tensor | None = None,
        image_state: LiteLVLMImageState | None = None,
        original_sizes: torch.Tensor | None = None,
        reshaped_input_sizes: torch.Tensor | None = None,
        **generate_kwargs: Any,
    ) -> LiteLVLMSegmentationOutput:
        r"""
        Generates answers and a mask for each [SEG] in them. Turns that are already in the prompt give no masks.

        Args:
            generate_kwargs: those of `generate` (greedy and sampling; no beams), `num_retained_tokens` and
                `pruning_method`. All others as in `forward`.

        Returns:
            [`LiteLVLMSegmentationOutput`] with `sequences` (the new tokens), `pred_masks`, `seg_embeddings`,
            `retained_indices`, `similarity` and `contribution`.

        Raises:
            ValueError: no images, beam search, or a model without a mask decoder.
        """
        self._check_makes_masks()
        if generate_kwargs.get("num_beams", self.generation_config.num_beams) not in (None, 1):
            raise ValueError("`num_beams` must be 1 in `segment`: beams change places, and hidden states with them.")
        if image_state is None:
            if pixel_values is None or sam_pixel_values is None:
                raise ValueError("`segment` needs `pixel_values` and `sam_pixel_values`, or an `image_state`.")
            encoding = _Concurrently(self.sam.encode_image, sam_pixel_values)
        elif image_state.sam_image_embeddings is None:
            raise ValueError("`image_state` holds no image embeddings for masks; give `encode_image` both images.")
        record = _GenerationRecord()
        sequences = self.generate(
            input_ids,
            attention_mask=attention_mask,
            pixel_values=None if image_state is not None else pixel_values,
            image_sizes=None if image_state is not None else image_sizes,
            guide_input_ids=guide_input_ids,
            guide_attention_mask=guide_attention_mask,
            image_state=None if image_state is None else replace(image_state, sam_image_embeddings=None),
            generation_record=record,
            **{**generate_kwargs, "return_dict_in_generate": False},
        )[:, input_ids.shape[1] :]
        image_embeddings = encoding.result() if image_state is None else image_state.sam_image_embeddings
        # A generation that is stopped one step late has recorded one row more than it returns tokens
        hidden_states = torch.stack(record.hidden_states, dim=1)[:, : sequences.shape[1]]
        seg_embeddings, pred_masks = self._decode_masks(
            hidden_states, sequences == self.config.seg_token_id, image_embeddings
        )
        return LiteLVLMSegmentationOutput(
            sequences=sequences, seg_embeddings=seg_embeddings, pred_masks=pred_masks, **record.selection
        )

    def compile_for_inference(self, **compile_kwargs: Any) -> None:
        super().compile_for_inference()
        # CODEPATH: LISA and GLaMM have a mask decoder, the LLaVA family has none
        if self.config.sam_config is not None:
            self.sam.vision_encoder.compile(**compile_kwargs)

    def _check_makes_masks(self) -> None:
        if self.config.sam_config is None:
            raise ValueError(
                "This model has no mask decoder (`sam_config` is None), so it makes no masks; use `generate` "
                "for text answers and leave `sam_pixel_values` away."
            )

    def _decode_masks(
        self, hidden_states: torch.Tensor, is_seg: torch.Tensor, image_embeddings: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(B, R, hidden_size)`): last hidden states.
            is_seg (`torch.BoolTensor` of shape `(B, R)`): the rows that predict [SEG].
            image_embeddings (`torch.Tensor` of shape `(b, C, h, h)`): SAM's, of b images for B samples.

        Returns:
            Per sample [SEG] embeddings `(num_masks, C)` and low-resolution mask logits `(num_masks, h, h)`.
        """
        counts = is_seg.sum(dim=-1).tolist()
        embeddings = self.seg_head(hidden_states[is_seg.to(hidden_states.device)]).split(counts)
        padded = nn.utils.rnn.pad_sequence(list(embeddings), batch_first=True)  # [B, M, C]
        image_embeddings = image_embeddings.repeat_interleave(len(counts) // image_embeddings.shape[0], 0)
        if padded.shape[1] == 0:
            side = 4 * image_embeddings.shape[-1]
            masks = padded.new_zeros((len(counts), 0, side, side))
        else:
            masks, _ = self.sam.decode_masks(padded, image_embeddings)
        return list(embeddings), [mask[:count] for mask, count in zip(masks, counts, strict=True)]


class _Concurrently:
    """
    Runs `function(tensor)` at once, and on a GPU beside whatever else is asked of it until `result` is called.

    Args:
        function: reads nothing but the tensor and what is constant.
        tensor (`torch.Tensor`): decides the device.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor):
        self._stream = None
        if tensor.device.type != "cuda":
            self._output = function(tensor)
            return
        self._stream = torch.cuda.Stream(tensor.device)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            self._output = function(tensor)
        # The allocator must not hand on the memory before this stream is done with it
        tensor.record_stream(self._stream)

    def result(self) -> torch.Tensor:
        """The function's output, for the current stream."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._output.device)
            current.wait_stream(self._stream)
            self._output.record_stream(current)
        return self._output


def _at_rows(values: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """The entries of `values`, shape `(B, L)`, at the rows that the language model saw, shape `(B, R)`."""
    return values if rows is None else values.gather(1, rows.to(values.device))


__all__ = [
    "LiteLVLMForConditionalGeneration",
    "LiteLVLMForSegmentation",
    "LiteLVLMImageState",
    "LiteLVLMModel",
    "LiteLVLMModelOutput",
    "LiteLVLMPreTrainedModel",
    "LiteLVLMSegmentationOutput",
]
