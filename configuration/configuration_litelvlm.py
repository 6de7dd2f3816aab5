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
"""LiteLVLM model configuration"""

import os
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from transformers import AutoConfig, CLIPConfig, CLIPTextConfig, PreTrainedConfig, Sam2Config, SamConfig, SiglipConfig

# Names that `pruning_method` may take. The registry of methods adds to it; it stands here so that a configuration can
# be checked without the code of any method.
PRUNING_METHODS: set[str] = {"none", "litelvlm"}

_PRUNING_CHOICES = {
    "selection_rule": ("paper", "released"),
    "similarity_order": ("lowest", "highest"),
    "token_order": ("reference", "raster"),
    "position_mode": ("consecutive", "original"),
}

# The vision towers that an LVLM may have, and how its patches are taken out of what each gives
VISION_TOWERS = {"clip_vision_model": "default", "siglip_vision_model": "full"}
# Those that were trained with no text tower, so that a CLIP beside them guides the pruning; Transformers before 5.24
# keeps the shorter names of older files
TEXTLESS_TOWERS = ("qwen2_vl_vision", "qwen2_5_vl_vision", "qwen2_vl", "qwen2_5_vl")

# Keys of a saved or given configuration that are no fields but mean something to Transformers
_TRANSFORMERS_KEYS = {
    "auto_map",
    "attn_implementation",
    "custom_pipelines",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
}

_AUTO_MAP = {
    "AutoConfig": "configuration_litelvlm.LiteLVLMConfig",
    "AutoModel": "modeling_litelvlm.LiteLVLMForSegmentation",
    "AutoModelForImageTextToText": "modeling_litelvlm.LiteLVLMForSegmentation",
    "AutoProcessor": "processing_litelvlm.LiteLVLMProcessor",
}
# The pipeline that a saved folder is loaded into where no task is named: of models with masks, and of those without
_PIPELINE_OF_MASKS = {
    "referring-segmentation": {
        "impl": "pipeline_litelvlm.ReferringSegmentationPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    }
}
_PIPELINE_OF_TEXT = {
    "image-text-to-text": {
        "impl": "pipeline_litelvlm.ImageTextToTextPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}


class _InstalledTasks(dict):
    """
    Tasks whose pipelines the installed package has registered. Transformers infers a task from them, but asks whether
    it is among them only to load its code from the repository, for which it wants `trust_remote_code`.
    """

    def __contains__(self, task: object) -> bool:
        return False


# The same file is part of the package and of every Hub repository
_TASKS = _InstalledTasks if __name__.partition(".")[0] == "litelvlm" else dict


# @strict would raise other errors than ValueError, and @auto_docstring replace what is said below.
# trf-ignore: TRF010  trf-ignore: TRF057
class OpenCLIPGuideConfig(PreTrainedConfig):
    r"""
    Configuration of a guide that is a whole OpenCLIP model, for architectures that Transformers' CLIP classes cannot
    hold: CoCa, EVA, SigLIP and others.

    Args:
        architecture (`dict`): the model configuration as open_clip writes it.
        image_mean (`list[float]`): of the pixel values that the model was trained on, red, green and blue.
        image_std (`list[float]`): likewise.
        pad_token_id (`int`, *optional*, defaults to 0): of the texts, which open_clip pads to one length.
    """

    model_type = "open_clip_guide"

    architecture: Any = None
    image_mean: Any = None
    image_std: Any = None
    pad_token_id: int | None = 0


# @strict would raise other errors than ValueError, and @auto_docstring replace what is said below, as above.
# trf-ignore: TRF010  trf-ignore: TRF057
class LiteLVLMConfig(PreTrainedConfig):
    r"""
    Configuration of a [`LiteLVLMForSegmentation`] or [`LiteLVLMForConditionalGeneration`]: a large vision-language
    model (the backbone), the CLIP text tower that guides the pruning of its visual tokens, SAM, and the pruning
    hyperparameters.

    Args:
        backbone_config (`LlavaConfig` or the configuration of any LVLM with CLIP's or SigLIP's tower, or `dict`):
            The wrapped LVLM; also a Qwen2-VL or Qwen2.5-VL, with an external guide. Defaults to LLaVA-1.5-7B.
        guide_config (`CLIPTextConfig`, [`OpenCLIPGuideConfig`], `SiglipConfig`, `CLIPConfig` or `dict`, *optional*):
            The CLIP text tower trained with the backbone's vision tower, or a whole OpenCLIP model; for SigLIP's tower
            the SigLIP that it was made of. A whole `CLIPConfig` is an external guide, for a tower that was trained
            with no text tower: that CLIP sees the image by itself. Defaults to the text tower of CLIP ViT-L/14.
        sam_config (`SamConfig`, `Sam2Config` or `dict`, *optional*):
            The SAM or SAM 2 (a `dict` with the `model_type` `"sam2"`) that turns [SEG] embeddings into masks; `None`
            makes a model that answers in text only.
        projector_type (`str`, *optional*, defaults to `"mlp"`):
            The projector from the vision tower to the language model: `"mlp"`, the backbone's own, or `"linear"`, the
            single layer of LISA.
        pruning_method (`str`, *optional*, defaults to `"litelvlm"`):
            How the retained visual tokens are chosen; `"none"` keeps them all.
        num_retained_tokens (`int`, *optional*, defaults to 192):
            Visual tokens per image that the language model sees (the budget K).
        selection_rule (`str`, *optional*, defaults to `"paper"`):
            The rule of the method `"litelvlm"`. `"paper"`: for one text half of the budget goes to the patches of
            lowest similarity, for several texts to the intersection of what each would take, and the rest to context.
            `"released"`: the authors' published code, where one text takes the whole budget and several take the
            union of an equal share each.
        num_context_tokens (`int`, *optional*):
            Tokens of the budget reserved for context-aware tokens; `None` leaves the share to the rule.
        similarity_order (`str`, *optional*, defaults to `"lowest"`):
            Which end of the patch-text similarity is kept: `"lowest"` (the paper's finding) or `"highest"`.
        token_order (`str`, *optional*, defaults to `"reference"`):
            `"reference"`: context-aware tokens by falling contribution, then similarity-aware tokens in raster
            order; `"raster"`: all retained tokens in raster order.
        position_mode (`str`, *optional*, defaults to `"consecutive"`):
            Position ids in the language model: `"consecutive"` (reference) or `"original"`, the positions that the
            retained tokens have in the un-pruned sequence. Qwen2-VL and Qwen2.5-VL must have `"original"`: their
            positions are rows and columns of the image (M-RoPE), which no count of tokens replaces.
        seg_token_id (`int`, *optional*):
            Id of the [SEG] token; required with SAM.
        mask_embedding_size (`int`, *optional*, defaults to 256):
            Width of a mask embedding; equals the hidden size of SAM's prompt encoder.
        ce_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the answers' cross-entropy; this and the next two as LISA and GLaMM set them.
        bce_loss_weight (`float`, *optional*, defaults to 2.0):
            Weight of the masks' binary cross-entropy.
        dice_loss_weight (`float`, *optional*, defaults to 0.5):
            Weight of the masks' Dice loss.

    Raises:
        ValueError: for an unknown field, naming the nearest known one, and for every inconsistent value, naming the
            field, the value and what is allowed.
    """

    model_type = "litelvlm"
    sub_configs = {"backbone_config": AutoConfig, "guide_config": CLIPTextConfig, "sam_config": AutoConfig}

    backbone_config: Any = None
    guide_config: Any = None
    sam_config: Any = None
    projector_type: str = "mlp"
    pruning_method: str = "litelvlm"
    num_retained_tokens: int = 192
    selection_rule: str = "paper"
    num_context_tokens: int | None = None
    similarity_order: str = "lowest"
    token_order: str = "reference"
    position_mode: str = "consecutive"
    seg_token_id: int | None = None
    mask_embedding_size: int = 256
    ce_loss_weight: float = 1.0
    bce_loss_weight: float = 2.0
    dice_loss_weight: float = 0.5
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in _TRANSFORMERS_KEYS and not name.startswith("_"):
                raise ValueError(_unknown_field(name))
        nested = {name: getattr(self, name) for name in self.sub_configs}
        for name, value in (nested | {"custom_pipelines": kwargs.get("custom_pipelines")}).items():
            if not isinstance(value, (dict, PreTrainedConfig, type(None))):
                raise ValueError(f"`{name}` is {value!r}; allowed is a configuration or its `dict`.")
        self.backbone_config = _as_config(self.backbone_config or {"model_type": "llava"})
        self.guide_config = _as_config(
            # The text tower of openai/clip-vit-large-patch14 and its 336-pixel form.
            self.guide_config
            or {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
            CLIPTextConfig,
            OpenCLIPGuideConfig,
            SiglipConfig,
            CLIPConfig,
        )
        if self.sam_config is not None:
            self.sam_config = _as_config(self.sam_config, SamConfig, Sam2Config)
        self.tie_word_embeddings = bool(getattr(self.backbone_config, "tie_word_embeddings", False))
        kwargs = {"auto_map": dict(_AUTO_MAP)} | kwargs
        kwargs["custom_pipelines"] = self._pipelines(kwargs.get("custom_pipelines"))
        super().__post_init__(**kwargs)
        self.check()

    @property
    def image_token_id(self) -> int:
        """Id of the image placeholder in `input_ids`."""
        return self.backbone_config.image_token_id

    @property
    def vision_config(self) -> PreTrainedConfig:
        """The vision tower's configuration, by the name that other LVLMs of Transformers have for it."""
        return self.backbone_config.vision_config

    @property
    def num_patches_per_side(self) -> int:
        """Patches in a line, and lines of patches, of one image or crop."""
        return num_patches_per_side(self.vision_config)

    @property
    def has_class_token(self) -> bool:
        """Whether the vision tower has a class token, as CLIP's, or none, as SigLIP's."""
        return self.vision_config.model_type == "clip_vision_model"

    @property
    def has_prefix(self) -> bool:
        """
        Whether the language model reads its prompt in both directions, and counts positions from 1, as PaliGemma's.
        """
        return self.backbone_config.model_type == "paligemma"

    @property
    def first_position(self) -> int:
        """Position id of a prompt's first token."""
        return int(self.has_prefix)

    @property
    def has_crops(self) -> bool:
        """Whether an image is cut into crops, as by LLaVA-NeXT, so that images have different numbers of tokens."""
        return hasattr(self.backbone_config, "image_grid_pinpoints")

    @property
    def has_external_guide(self) -> bool:
        """Whether a CLIP beside the vision tower guides the pruning, which sees the image by itself."""
        return isinstance(self.guide_config, CLIPConfig)

    @property
    def has_varying_lengths(self) -> bool:
        """Whether images have different numbers of tokens: those in crops, and those that are seen at any size."""
        return self.has_crops or self.has_external_guide

    @property
    def num_patches(self) -> int:
        """
        Patches per image before pruning (N); of images in crops, the most that an image may have; of images at any
        size, which only the image processor limits, the language model's positions.
        """
        if self.has_external_guide:
            return self.get_text_config().max_position_embeddings
        size = self.vision_config.image_size
        pinpoints = self.backbone_config.image_grid_pinpoints if self.has_crops else []
        num_crops = max(((height // size) * (width // size) for height, width in pinpoints), default=0)
        num_patches = self.num_patches_per_side**2
        limit = num_crops * num_patches
        if getattr(self.backbone_config, "vision_aspect_ratio", None) is not None:
            # LLaVA-OneVision shrinks images that have more than 1.1 times too many lines and columns
            limit = min(limit, int(1.1**2 * max_num_crops(self.backbone_config.vision_aspect_ratio) * num_patches))
        return num_patches + limit

    @property
    def sam_square_config(self) -> PreTrainedConfig:
        """The part of `sam_config` that has `image_size` and `patch_size` of the square that SAM sees."""
        is_sam2 = self.sam_config.model_type == "sam2"
        return self.sam_config.prompt_encoder_config if is_sam2 else self.sam_config.vision_config

    @property
    def vision_feature_layers(self) -> list[int]:
        """Indices of the vision tower's hidden states that the projector receives, one or several."""
        # VipLLaVA had a name of its own in earlier versions of Transformers; PaliGemma has the last one always
        former = getattr(self.backbone_config, "vision_feature_layers", -1)
        layers: Any = getattr(self.backbone_config, "vision_feature_layer", former)
        return [layers] if isinstance(layers, int) else list(layers)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The language model's configuration, which generation and the embedding resize look for."""
        return self.backbone_config.get_text_config()

    def to_dict(self) -> dict[str, Any]:
        """
        As `PreTrainedConfig.to_dict`, with the code looked for beside the file: a saved folder brings it along, but a
        configuration loaded from a Hub repository may name that repository, and a pipeline leaves classes in it. Of
        the parts too it says not where they were loaded from, which may be a folder that is nobody else's.
        """
        self_contained = {"auto_map": dict(_AUTO_MAP), "custom_pipelines": dict(self._pipelines())}
        return _without_origin(super().to_dict() | self_contained)

    def _pipelines(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Those given, unless they are ours and made for a model with, or without, the masks of this one."""
        own, other = _PIPELINE_OF_MASKS, _PIPELINE_OF_TEXT
        if self.sam_config is None:
            own, other = other, own
        return _TASKS(deepcopy(own) if not given or given.keys() == other.keys() else given)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        As `PreTrainedConfig.get_config_dict`, which gives an empty `dict` where there is no config.json, and that of
        any other model: both would describe a random LLaVA of seven billion parameters.

        Raises:
            ValueError: there is no config.json, or it is another model's.
        """
        try:
            found, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except TypeError:  # as of a file that holds `null`
            found, unused = None, {}
        if not isinstance(found, dict):
            raise ValueError(
                f"config.json of {str(pretrained_model_name_or_path)!r} holds no JSON object; download or save it "
                "anew."
            )
        if found.get("model_type") != cls.model_type:
            what = f"a config.json of model type {found.get('model_type')!r}" if found else "no config.json"
            raise ValueError(
                f"{str(pretrained_model_name_or_path)!r} has {what}; allowed is a saved or converted LiteLVLM model. "
                "`litelvlm convert` makes one of an official checkpoint, `litelvlm.from_backbone` of a LLaVA."
            )
        return found, unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        As `PreTrainedConfig.from_dict`; overrides are checked like the values of the file. Of a file, as of overrides,
        an unknown field is refused if it resembles a known one; others may have been set by tools on a saved model.
        """
        known = {field.name for field in fields(cls)} | _TRANSFORMERS_KEYS
        extra = {
            name: value
            for name, value in config_dict.items()
            if name not in known and not name.startswith("_") and _nearest_field(name) is None
        }
        own = {name: value for name, value in config_dict.items() if name not in extra}
        # A model's `from_pretrained` takes back what the configuration does not know, and refuses the rest itself
        returns_unused = kwargs.pop("return_unused_kwargs", False)
        config, unused = super().from_dict(own, return_unused_kwargs=True, **kwargs)
        for name in unused:
            if not returns_unused and _nearest_field(name) is not None:
                raise ValueError(_unknown_field(name))
        for name, value in extra.items():
            setattr(config, name, value)
        config.custom_pipelines = config._pipelines(config.custom_pipelines)
        config.check()
        return (config, unused) if returns_unused else config

    def resolve_pruning(
        self, num_retained_tokens: int | None = None, pruning_method: str | None = None
    ) -> tuple[str, int]:
        """
        The pruning method and the number of retained tokens (K) of one call.

        Args:
            num_retained_tokens (`int`, *optional*): replaces the configured budget in this call.
            pruning_method (`str`, *optional*): replaces the configured method in this call.

        Returns:
            `tuple[str, int]`: for `"none"`, which keeps all tokens, K is the number of patches.

        Raises:
            ValueError: unknown method, a budget that is not an integer from 1 to the number of patches or that
                `"none"` would not keep to, or a pruning field of this configuration whose value is not allowed.
        """
        method = self.pruning_method if pruning_method is None else pruning_method
        budget = self.num_retained_tokens if num_retained_tokens is None else num_retained_tokens
        check_choice("pruning_method", method, sorted(PRUNING_METHODS))
        _check_integer("num_retained_tokens", budget, 1, self.num_patches, "`pruning_method='none'` keeps them all")
        # In every call, not only at first: fields may be set on a loaded configuration
        for name, allowed in _PRUNING_CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        if self.has_external_guide and self.position_mode != "original":
            raise ValueError(
                f"`position_mode` is {self.position_mode!r}; a {self.backbone_config.model_type!r} places visual "
                "tokens by the rows and columns of their image, so that only 'original' is allowed."
            )
        if self.num_context_tokens is not None:
            most = budget if method == "litelvlm" else self.num_retained_tokens
            _check_integer("num_context_tokens", self.num_context_tokens, 0, most, "or None for the rule's share")
        if method == "none":
            if num_retained_tokens not in (None, self.num_patches):
                raise ValueError(
                    f"`num_retained_tokens` is {num_retained_tokens}, but `pruning_method='none'` keeps all "
                    f"{self.num_patches}; name another method, or leave the number out."
                )
            budget = self.num_patches
        return method, budget

    def check(self) -> None:
        """Raises a `ValueError` that names the first field whose value cannot be used."""
        vision_config: Any = getattr(self.backbone_config, "vision_config", None)
        tower = getattr(vision_config, "model_type", None)
        if tower in TEXTLESS_TOWERS or self.has_external_guide:
            self._check_external_guide(tower)
        else:
            self._check_tower_and_guide(tower)
        check_choice("projector_type", self.projector_type, ("mlp", "linear"))
        self.resolve_pruning()
        for name in ("ce_loss_weight", "bce_loss_weight", "dice_loss_weight"):
            weight = getattr(self, name)
            if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not weight >= 0:
                raise ValueError(f"`{name}` is {weight!r}; allowed are numbers of at least 0.")
        self._check_mask_fields()

    def _check_external_guide(self, tower: str | None) -> None:
        host = self.backbone_config.model_type
        if tower not in TEXTLESS_TOWERS:
            raise ValueError(
                f"`guide_config` is a CLIPConfig, a guide that sees the image by itself, but the vision tower is "
                f"{tower!r}; allowed is the text tower that it was trained with."
            )
        if not self.has_external_guide:
            raise ValueError(
                f"`guide_config` is a {type(self.guide_config).__name__}, but the vision tower of a {host!r} was "
                "trained with no text tower; allowed is a whole CLIPConfig."
            )
        if self.sam_config is not None:
            raise ValueError(f"`sam_config` is given, but a {host!r} answers in text only; leave it out.")
        if self.projector_type != "mlp":
            raise ValueError(f"`projector_type` is {self.projector_type!r}; a {host!r} has its own, 'mlp'.")

    def _check_tower_and_guide(self, tower: str | None) -> None:
        if tower not in VISION_TOWERS:
            raise ValueError(
                f"`backbone_config` is a {self.backbone_config.model_type!r} configuration whose vision tower is "
                f"{tower!r}; allowed are LVLMs with a {' or '.join(map(repr, VISION_TOWERS))} vision tower, such as "
                "'llava' or 'vipllava'."
            )
        # Of those without a choice, PaliGemma takes what the tower gives, and VipLLaVA leaves out the first
        without_choice = "full" if self.has_prefix else "default"
        strategy = getattr(self.backbone_config, "vision_feature_select_strategy", without_choice)
        if strategy != VISION_TOWERS[tower]:
            raise ValueError(
                f"`backbone_config.vision_feature_select_strategy` is {strategy!r}; only {VISION_TOWERS[tower]!r} is "
                f"allowed of a {tower!r}, which gives the patches without a class token: that has no patch to be "
                "pruned with."
            )
        if isinstance(self.guide_config, SiglipConfig) == self.has_class_token:
            raise ValueError(
                f"`guide_config` is a {type(self.guide_config).__name__}, but the vision tower is {tower!r}; allowed "
                "is the guide that it was trained with: a SiglipConfig for SigLIP's tower, and for no other."
            )
        if isinstance(self.guide_config, SiglipConfig):
            self._check_siglip_guide()
        else:
            self._check_clip_guide()

    def _check_clip_guide(self) -> None:
        vision_config: Any = self.vision_config
        is_open_clip = isinstance(self.guide_config, OpenCLIPGuideConfig)
        if is_open_clip and None in (self.guide_config.architecture, self.guide_config.image_mean):
            raise ValueError("`guide_config` needs `architecture`, `image_mean` and `image_std` of an OpenCLIP model.")
        if not is_open_clip and vision_config.projection_dim != self.guide_config.projection_dim:
            raise ValueError(
                f"`guide_config.projection_dim` is {self.guide_config.projection_dim} but the vision tower's "
                f"`projection_dim` is {vision_config.projection_dim}: both must be the width of the same CLIP's "
                "joint space. Take the text tower of the checkpoint that the vision tower comes from."
            )

    def _check_siglip_guide(self) -> None:
        width = self.vision_config.hidden_size
        of_guide = {
            "vision_config.hidden_size": self.guide_config.vision_config.hidden_size,
            "text_config.projection_size": self.guide_config.text_config.projection_size,
        }
        for name, value in of_guide.items():
            if value != width:
                raise ValueError(
                    f"`guide_config.{name}` is {value} but the vision tower's width is {width}; take the SigLIP that "
                    "the vision tower comes from."
                )

    def _check_mask_fields(self) -> None:
        vocab_size = self.get_text_config().vocab_size
        if self.seg_token_id is not None:
            _check_integer("seg_token_id", self.seg_token_id, 0, vocab_size - 1, "an id of the vocabulary")
        if self.sam_config is None:
            return
        if self.seg_token_id is None:
            raise ValueError(
                f"`seg_token_id` is None but `sam_config` is given; give the id of the [SEG] token, an integer from 0 "
                f"to {vocab_size - 1}."
            )
        check_choice("sam_config.model_type", self.sam_config.model_type, ("sam", "sam2"))
        prompts = self.sam_config.prompt_encoder_config
        if self.sam_config.model_type == "sam2":
            grid = [prompts.image_size // prompts.patch_size] * 2
            if list(last := self.sam_config.vision_config.backbone_feature_sizes[-1]) != grid:
                raise ValueError(
                    f"`sam_config.vision_config.backbone_feature_sizes` ends in {last}, but prompts in an image of "
                    f"{prompts.image_size} pixels have a grid of {grid}; both must be equal."
                )
        prompt_size = prompts.hidden_size
        if self.mask_embedding_size != prompt_size:
            raise ValueError(
                f"`mask_embedding_size` is {self.mask_embedding_size!r} but SAM's prompts have {prompt_size} "
                "channels; both must be equal."
            )


def num_patches_per_side(vision_config: Any) -> int:
    """Patches in a line of what a vision tower of this configuration sees."""
    return vision_config.image_size // vision_config.patch_size


def max_num_crops(vision_aspect_ratio: str) -> int:
    """How many crops' worth of patches LLaVA-OneVision shrinks a larger image to, such as 9 of `"anyres_max_9"`."""
    return int(vision_aspect_ratio.removeprefix("anyres_max_"))


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """The value; or a `ValueError` that names the argument or flag, what is allowed, and the nearest of it."""
    allowed = list(allowed)
    if value not in allowed:
        near = get_close_matches(value, filter(_is_text, allowed), n=1) if _is_text(value) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        name = name if name.startswith("--") else f"`{name}`"
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.{hint}")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _as_config(value: Any, *config_classes: type[PreTrainedConfig]) -> PreTrainedConfig:
    """Builds a sub-configuration from a `dict`, by its `model_type`; of the first class given where it has none."""
    if isinstance(value, PreTrainedConfig):
        return value
    for config_class in config_classes[::-1]:
        if value.get("model_type") == config_class.model_type or config_class is config_classes[0]:
            return config_class(**value)
    value = dict(value)
    return AutoConfig.for_model(value.pop("model_type", "llava"), **value)


def _nearest_field(name: str) -> str | None:
    known = [field.name for field in fields(LiteLVLMConfig)]
    return next(iter(get_close_matches(name, known, n=1)), None)


def _unknown_field(name: str) -> str:
    near = _nearest_field(name)
    hint = f"Did you mean `{near}`?" if near else "Its fields are listed in the class's documentation."
    return f"`{name}` is no field of LiteLVLMConfig. {hint}"


def _check_integer(name: str, value: Any, low: int, high: int, otherwise: str) -> None:
    # bool is an int to Python, but `True` as a budget is a mistake
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"`{name}` is {value!r}; allowed are integers from {low} to {high} ({otherwise}).")


def _without_origin(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: "" if name == "_name_or_path" else _without_origin(part) for name, part in value.items()}


__all__ = [
    "PRUNING_METHODS",
    "TEXTLESS_TOWERS",
    "VISION_TOWERS",
    "LiteLVLMConfig",
    "OpenCLIPGuideConfig",
    "check_choice",
    "max_num_crops",
    "num_patches_per_side",
]
