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
Processor of LiteLVLM: images for the vision tower and SAM, conversations for the language model, texts for the guide,
and masks back at the size of the image.
"""

import inspect
import math
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import repeat
from typing import Any, TypedDict

import numpy as np
import torch
from transformers import (
    AddedToken,
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    CLIPImageProcessor,
    PreTrainedModel,
    ProcessorMixin,
    SamImageProcessor,
    SiglipConfig,
)
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, Unpack
from transformers.utils.chat_template_utils import _get_template_variables

from ..configuration.configuration_litelvlm import (
    TEXTLESS_TOWERS,
    VISION_TOWERS,
    max_num_crops,
    num_patches_per_side,
)
from .chat_litelvlm import (
    LLAVA_V1_CHAT_TEMPLATE,
    PALIGEMMA_CHAT_TEMPLATE,
    QUESTION_TEMPLATES,
    SPLIT,
    as_turns,
    check_single_question,
    is_conversation,
    message_text,
    read_messages,
)
from .conversation_litelvlm import batch_conversations, build_messages, encode_conversation, render_conversation
from .damage_litelvlm import naming_damage
from .guide_external_litelvlm import guide_image_options
from .guide_litelvlm import default_guide
from .guide_texts_litelvlm import encode_guide_texts, guide_sentences
from .hub_litelvlm import HUB_OPTIONS, LOADING_OPTIONS, check_is_name, export_code
from .images_litelvlm import load_rgb
from .locations_litelvlm import add_masks, read_locations
from .sam_images_litelvlm import model_type, place_masks, prepare_images, resize_masks, side_of

# In the configurations of CLIP's first checkpoints: Transformers then takes the highest id of a text for its end
_LEGACY_EOS_TOKEN_ID = 2

_CALL_ARGUMENTS = ("answers", "guide_text", "images", "question_template", "segmentation_maps", "text")


class LiteLVLMTextKwargs(TypedDict, total=False):
    """Options of tokenizers that are heeded when conversations become token ids."""

    padding: bool | str | None
    padding_side: str | None
    max_length: int | None
    truncation: bool | str | None
    return_tensors: str | None


class LiteLVLMProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Transformers' usual keywords of a processor."""

    text_kwargs: LiteLVLMTextKwargs


# @auto_docstring would replace what is said below.  trf-ignore: TRF057
class LiteLVLMProcessor(ProcessorMixin):
    r"""
    Prepares inputs of [`LiteLVLMForSegmentation`] and reads its outputs.

    Args:
        image_processor ([`CLIPImageProcessor`], [`SiglipImageProcessor`]): for the vision tower.
        tokenizer: the language model's fast tokenizer.
        guide_tokenizer: CLIP's or SigLIP's tokenizer, for the texts that guide the pruning.
        sam_image_processor ([`SamImageProcessor`] or [`Sam2ImageProcessor`], *optional*): for SAM, or SAM 2.
        chat_template (`str`, *optional*): defaults to [`LLAVA_V1_CHAT_TEMPLATE`]; answers stand in generation blocks.
        image_token (`str`): the placeholder in the template.
        num_image_tokens (`int`): placeholders per image or crop, the visual tokens before pruning.
        question_template (`str`): what `text` is put into; `"{}"` leaves it as it is.
        with_masks (`bool`): whether to prepare images for SAM.
        guide_form (`str`): what CLIP reads of a text: `"question"`, as the language model does (reference);
            `"expression"`, the text as it is; or `"templates"`, several sentences with it, whose embeddings are
            averaged.
        rejection_token (`str`, *optional*): what answers say in the place of [SEG] where nothing in the image is
            meant, such as GSVA's `"[REJ]"`.
        guide_length (`int`, *optional*): that all texts for the guide are padded to, as SigLIP's are (64); CLIP's are
            as long as they are.
        vision_aspect_ratio (`str`, *optional*): of LLaVA-OneVision, such as `"anyres_max_9"`: how many crops' worth of
            tokens an image may have before it is shrunk.
        with_token_types (`bool`): whether to give `token_type_ids`, 1 in answers and else 0, for PaliGemma.
        guide_image_options (`dict`, *optional*): for an external guide, the options of the [`CLIPImageProcessor`] that
            prepares whole images for it.
    """

    valid_processor_kwargs = LiteLVLMProcessorKwargs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        guide_tokenizer: Any = None,
        sam_image_processor: Any = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        num_image_tokens: int = 576,
        question_template: str = QUESTION_TEMPLATES[0],
        with_masks: bool = True,
        guide_form: str = "question",
        rejection_token: str | None = None,
        guide_length: int | None = None,
        vision_aspect_ratio: str | None = None,
        with_token_types: bool = False,
        guide_image_options: dict[str, Any] | None = None,
    ):
        self.image_token = image_token
        self.num_image_tokens = num_image_tokens
        self.question_template = question_template
        self.with_masks = with_masks
        self.guide_form = guide_form
        self.rejection_token = rejection_token
        self.guide_length = guide_length
        self.vision_aspect_ratio = vision_aspect_ratio
        self.with_token_types = with_token_types
        self.guide_image_options = guide_image_options
        if tokenizer is not None:  # many name no side, and an answer goes on from the last token of its prompt
            tokenizer.padding_side = "left"
        # In a saved folder the code stands beside this processor's files
        self.auto_map = {"AutoProcessor": "processing_litelvlm.LiteLVLMProcessor"}
        super().__init__(
            image_processor,
            tokenizer,
            guide_tokenizer,
            sam_image_processor or SamImageProcessor(),
            chat_template=chat_template or LLAVA_V1_CHAT_TEMPLATE,
        )

    @property
    def model_input_names(self) -> list[str]:
        names = ["input_ids", "attention_mask", "pixel_values", "guide_input_ids", "guide_attention_mask"]
        if hasattr(self.image_processor, "image_grid_pinpoints"):
            names.append("image_sizes")
        if self.with_token_types:
            names.append("token_type_ids")
        if self.guide_image_options is not None:
            names += ["image_grid_thw", "guide_pixel_values"]
        return names + (["sam_pixel_values", "original_sizes", "reshaped_input_sizes"] if self.with_masks else [])

    # trf-ignore: TRF057
    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        answers: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        segmentation_maps: Sequence[Any] | None = None,
        guide_text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        question_template: str | None = None,
        **kwargs: Unpack[LiteLVLMProcessorKwargs],
    ) -> BatchFeature:
        r"""
        Args:
            images: one image, or a list with one, or with a list of several, for each conversation; see [`load_rgb`]
                for the forms. A single image with a list of texts is asked them all, and encoded once. Several images
                of a conversation stand before its first question, and are answered in text only.
            text: a question, or one for each image, or a list of turns for each image. Always plain text: what
                looks like a special token in it stays text.
            answers: nested as `text`, or one text that answers every turn. Answers to all turns make a teacher-forced
                conversation with `labels`; the last turn may be left open.
            segmentation_maps: for each conversation a `(num_masks, H, W)` array of 0 and 1 at the size of the
                upright image, which becomes `mask_labels`.
            guide_text: nested as `text`; what CLIP reads, instead of what `guide_form` makes of `text`.
            question_template (`str`): replaces the configured one in this call.
            kwargs: Transformers' usual ones. `padding` (`True` or `"longest"` by default, `"max_length"`, or `False`),
                `padding_side`, `max_length`, `truncation` and `return_tensors` (`"pt"`) for the conversations;
                options of the image processor for the vision tower's images. By themselves, or in `text_kwargs`,
                `images_kwargs` and `common_kwargs`; of texts also set with the tokenizer.

        Returns:
            [`BatchFeature`] with B conversations of up to T turns about b images: `input_ids`, `attention_mask`
            (`labels`, `token_type_ids`) of shape `(B, L)`, padded on the tokenizer's side; `pixel_values`
            `(b, 3, S, S)`, or of Qwen-VL `(patches, values)` with `image_grid_thw` `(b, 3)` and `guide_pixel_values`
            `(b, 3, S, S)`; `batch_num_images` `(B,)` where conversations have several; `guide_input_ids` and
            `guide_attention_mask` `(B, T, G)`, or `(B, T, sentences, G)` for templates; `sam_pixel_values`
            `(b, 3, S', S')` with `original_sizes` and `reshaped_input_sizes` `(b, 2)` as (height, width);
            `mask_labels`, a list of `(num_masks, h, h)` with -1 where SAM pads. Its attribute `text_labels` keeps the
            texts of each conversation, for [`post_process_instance_segmentation`].

        Raises:
            ValueError: no or empty text, counts or sizes that do not fit, several images in a conversation where masks
                are wanted, answered and open conversations in one batch, answers that the chat template does not mark
                for `labels`, an image that cannot be read or is not placed by the template, an unknown option, or a
                length that would cut an image.
        """
        text_options, image_options = self._options(kwargs)
        turns = as_turns("text", text)
        if self.chat_template == PALIGEMMA_CHAT_TEMPLATE:
            check_single_question([["user"] * len(conversation) for conversation in turns])
        groups = _group_images(images, len(turns))
        template = self.question_template if question_template is None else question_template
        if "{}" not in template:
            raise ValueError(f"`question_template` is {template!r}; it must hold {{}}, where the text goes.")
        questions = [[template.replace("{}", turn) for turn in conversation] for conversation in turns]
        if isinstance(answers, str):
            replies = [as_turns("answers", [answers])[0] * len(conversation) for conversation in turns]
        else:
            replies = [[] for _ in turns] if answers is None else as_turns("answers", answers, may_be_empty=True)
        guides = guide_sentences(turns, self.guide_form, template)
        if guide_text is not None:
            guides = [[[text] for text in texts] for texts in as_turns("guide_text", guide_text)]
        if len(replies) != len(turns) or len(guides) != len(turns):
            raise ValueError(
                f"There are {len(turns)} conversations in `text`, {len(replies)} in `answers` and {len(guides)} in "
                "`guide_text`; allowed are equal numbers."
            )
        conversations = [
            build_messages(asked, answered, len(group))
            for asked, answered, group in zip(questions, replies, _for_each(groups, turns), strict=True)
        ]
        inputs = self._encode(conversations, guides, groups, segmentation_maps, text_options, image_options)
        inputs.text_labels = turns
        return inputs

    def _options(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        The options of one call for texts and for images. Transformers' own way to merge them passes over those that it
        does not know, and differs between its versions.
        """
        of_images = set(ImagesKwargs.__annotations__)
        of_images |= set(getattr(getattr(self.image_processor, "valid_kwargs", None), "__annotations__", {}))
        known = {"text_kwargs": set(LiteLVLMTextKwargs.__annotations__), "images_kwargs": of_images}
        options = {group: dict(kwargs.get(group) or {}) for group in known}
        common = dict(kwargs.get("common_kwargs") or {})
        flat = {name: value for name, value in kwargs.items() if name not in (*known, "common_kwargs")}
        for name in (*common, *flat):
            if not any(name in names for names in known.values()):
                raise _unknown_option(name, {*_CALL_ARGUMENTS, *known, *known["text_kwargs"], *of_images})
        for group, names in known.items():
            for name in options[group]:
                if name not in names:
                    raise _unknown_option(name, names)
                if name in flat:
                    raise ValueError(f"`{name}` is given twice, by itself and in `{group}`; give it once.")
            options[group] |= {name: value for name, value in flat.items() if name in names}
            options[group] = {name: value for name, value in common.items() if name in names} | options[group]
            return_tensors = options[group].pop("return_tensors", None)
            if return_tensors not in ("pt", None):
                raise ValueError(f"`return_tensors` is {return_tensors!r}; allowed is 'pt'.")
        # As Transformers' processors heed what a tokenizer was made with
        made_with = {n: self.tokenizer.init_kwargs.get(n) for n in ("padding", "truncation", "max_length")}
        defaults = {name: value for name, value in made_with.items() if value is not None}
        return defaults | options["text_kwargs"], options["images_kwargs"]

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        chat_template: str | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = "pt",
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> str | list[str] | torch.Tensor | BatchFeature:
        """
        As [`ProcessorMixin.apply_chat_template`] for one conversation or several, with images anywhere in them. User
        text stays text, and guides the pruning as it is; `question_template` is not applied.

        Args:
            add_generation_prompt (`bool`, *optional*): by default where the user spoke last.
            return_dict (`bool`): all inputs, and not `input_ids` alone.
            processor_kwargs (`dict`, *optional*): options as in [`__call__`], such as `{"padding": "max_length"}`.
            kwargs: variables of the template, or further `processor_kwargs`.

        Raises:
            ValueError: several images in a conversation where masks are wanted, an image for some of several
                conversations only, a conversation of several turns where PaliGemma reads one question, or options that
                this processor does not know.
        """
        if return_tensors not in ("pt", "auto", None):
            raise ValueError(f"`return_tensors` is {return_tensors!r}; allowed is 'pt'.")
        template = chat_template or self.chat_template
        in_template = _get_template_variables(template)
        variables = {name: value for name, value in kwargs.items() if name in in_template}
        # Callers such as the image-text-to-text pipeline name options only to leave them off
        further = {name: value for name, value in kwargs.items() if value and name not in in_template}
        options = self._options({**(processor_kwargs or {}), **further})
        single = is_conversation(conversation)
        conversations = [read_messages(messages) for messages in ([conversation] if single else conversation)]
        if template == PALIGEMMA_CHAT_TEMPLATE:
            check_single_question([[message["role"] for message in messages] for messages in conversations])
        images: list[list[Any]] = []
        guides: list[list[list[str]]] = []
        for messages in conversations or [[]]:
            texts = [message_text(m) for m in messages if m["role"] == "user"]
            if not texts:
                raise ValueError("A conversation holds no message of the user; give each at least one.")
            guides.append([[text] for text in texts])
            parts = [p for m in messages if not isinstance(m["content"], str) for p in m["content"]]
            parts = [p for p in parts if p["type"] == "image"]
            images.append([next((p[k] for k in ("image", "url", "path") if k in p), None) for p in parts])
        rendering: dict[str, Any] = {
            "chat_template": template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "template_variables": variables,
        }
        groups = _group_images(images, len(conversations))
        if not tokenize:
            rendered = [
                render_conversation(messages, self.tokenizer, self.image_token, **rendering)[0].replace(SPLIT, "")
                for messages in conversations
            ]
            return rendered[0] if single else rendered
        if any(image is None for group in groups for image in group):
            raise ValueError("An image part holds no image; give it under 'image', 'url' or 'path'.")
        inputs = self._encode(
            conversations, guides, groups, None, *options, rendering, with_assistant_masks=return_assistant_tokens_mask
        )
        inputs.text_labels = [[sentences[0] for sentences in texts] for texts in guides]
        return inputs if return_dict else inputs["input_ids"]

    # --- texts ---------------------------------------------------------------------------------------------------

    def _encode(
        self,
        conversations: list[list[dict[str, Any]]],
        guides: list[list[list[str]]],
        images: list[list[Any]],
        segmentation_maps: Sequence[Any] | None,
        text_options: dict[str, Any],
        image_options: dict[str, Any],
        rendering: dict[str, Any] | None = None,
        with_assistant_masks: bool = False,
    ) -> BatchFeature:
        rendering = rendering or {"chat_template": self.chat_template}
        is_continued = bool(rendering.get("continue_final_message"))
        if is_continued and self.with_token_types:
            raise ValueError(
                "`continue_final_message` is set, but PaliGemma reads an answer in another way than its question; "
                "leave the answer out, or give it whole."
            )
        answered = [messages[-1]["role"] == "assistant" and not is_continued for messages in conversations]
        if any(answered) and not all(answered):
            raise ValueError(
                f"{sum(answered)} of {len(conversations)} conversations end with an answer; allowed are all (to learn "
                "from) or none (to continue). Pass the others in a call of their own."
            )
        prepared = self._encode_images(images, image_options) if any(images) else {}
        # Of images in crops, each has a number of tokens of its own
        if "image_grid_thw" in prepared:
            merged = prepared["image_grid_thw"].prod(-1) // self.image_processor.merge_size**2
            counts = [[number] for number in merged.tolist()]
        else:
            sizes = iter(prepared["image_sizes"].tolist()) if "image_sizes" in prepared else repeat(None)
            counts = [[self._num_image_tokens(next(sizes), len(group)) for _ in group] for group in images]
        encoded = [
            encode_conversation(messages, self.tokenizer, self.image_token, numbers, **rendering)
            for messages, numbers in zip(conversations, _for_each(counts, conversations), strict=True)
        ]
        marks_answers = with_assistant_masks or self.with_token_types
        data: dict[str, Any] = batch_conversations(
            encoded, self.tokenizer, self.image_token, all(answered), marks_answers, **text_options
        )
        if self.with_token_types:
            data["token_type_ids"] = data["assistant_masks"] if with_assistant_masks else data.pop("assistant_masks")
        data |= encode_guide_texts(guides, self.guide_tokenizer, self.guide_length)
        data |= prepared
        if segmentation_maps is not None:
            if len(segmentation_maps) != len(conversations):
                raise ValueError(
                    f"There are {len(segmentation_maps)} entries in `segmentation_maps` for {len(conversations)} "
                    "conversations; give one array of shape (num_masks, H, W) for each."
                )
            data["mask_labels"] = [self._encode_mask_labels(maps) for maps in segmentation_maps]
            sizes = data.get("original_sizes", torch.empty(0, 2)).tolist()
            for i, maps in enumerate(segmentation_maps if sizes else []):
                size = sizes[i // (len(conversations) // len(sizes))]
                if list(np.shape(maps)[-2:]) != size:
                    raise ValueError(
                        f"A segmentation map has shape {tuple(np.shape(maps))} but its image is {size[0]} high and "
                        f"{size[1]} wide; give masks in the frame of the upright image."
                    )
        return BatchFeature(data)

    def encode_answer(self, answer: str) -> torch.Tensor:
        """
        The token ids of an answer as they stand in an answered conversation, its end token included, shape `(A,)`,
        int64: behind the ids of an open prompt they make those of the answered one.

        Raises:
            ValueError: no text, a chat template that leaves it out, or a tokenizer that joins the end of a prompt with
                the beginning of its answer.
        """
        as_turns("answer", answer)
        reading = {"tokenizer": self.tokenizer, "image_token": self.image_token, "num_image_tokens": ()}
        asked, answered = (
            encode_conversation(build_messages(["?"], answers, 0), **reading, chat_template=self.chat_template)[0]
            for answers in ([], [answer])
        )
        if len(answered) == len(asked) or answered[: len(asked)] != asked:
            raise ValueError(
                f"The tokens of {answer!r} cannot be told from those of the prompt before it; pass it to the "
                "processor as `answers` instead."
            )
        return torch.tensor(answered[len(asked) :])

    # --- images ---------------------------------------------------------------------------------------------------

    def _encode_images(self, images: list[list[Any]], options: dict[str, Any]) -> dict[str, Any]:
        loaded = [[load_rgb(image) for image in group] for group in images]
        counts = [len(group) for group in images]
        if self.with_masks and max(counts) > 1:
            raise ValueError(
                f"A conversation holds {max(counts)} images, but a mask is one of the only image of its conversation; "
                "give one image, or set `processor.with_masks = False` for answers in text."
            )
        if self.guide_image_options is not None and max(counts) > 1:
            raise ValueError(
                f"A conversation holds {max(counts)} images, but with an external guide one is allowed; ask about "
                "each image by itself."
            )
        most = side_of(self.sam_image_processor.size)
        for image in (image for group in loaded for image in group):
            if max(image.size) > most * min(image.size):
                raise ValueError(
                    f"An image is {image.width} pixels wide and {image.height} high; allowed are images of which one "
                    f"side is at most {most} times as long as the other."
                )
        prepared = self.image_processor(loaded, return_tensors="pt", **options)
        known = ("pixel_values", "image_sizes", "image_grid_thw")
        data = {name: prepared[name] for name in known if name in prepared}
        if max(counts) > 1:
            data["batch_num_images"] = torch.tensor(counts)
        if self.guide_image_options is not None:
            for_guide = CLIPImageProcessor(**self.guide_image_options)
            data["guide_pixel_values"] = for_guide([group[0] for group in loaded], return_tensors="pt")["pixel_values"]
        if self.with_masks:
            data |= prepare_images(self.sam_image_processor, [group[0] for group in loaded])
        return data

    def _num_image_tokens(self, size: list[int] | None, num_images: int) -> int:
        """Visual tokens of one of these images, of that height and width if it is in crops."""
        if size is None:
            return self.num_image_tokens
        if self.vision_aspect_ratio is not None and num_images > 1:
            return self.num_image_tokens + 1  # LLaVA-OneVision cuts only an image without others
        crop = (self.image_processor.crop_size or self.image_processor.size)["height"]
        pinpoints = self.image_processor.image_grid_pinpoints
        return num_tokens_in_crops(size, pinpoints, crop, self.num_image_tokens, self.vision_aspect_ratio)

    def _encode_mask_labels(self, maps: Any) -> torch.Tensor:
        masks = torch.as_tensor(np.asarray(maps)).float()
        if masks.ndim != 3:
            raise ValueError(f"A segmentation map has shape {tuple(masks.shape)}; allowed is (num_masks, H, W).")
        return place_masks(self.sam_image_processor, masks)

    # --- outputs -------------------------------------------------------------------------------------------------

    def post_process_masks(
        self,
        masks: Sequence[torch.Tensor],
        original_sizes: torch.Tensor | Sequence[Sequence[int]],
        reshaped_input_sizes: torch.Tensor | Sequence[Sequence[int]],
        mask_threshold: float = 0.0,
        binarize: bool = True,
    ) -> list[torch.Tensor]:
        """
        Masks at the size of the images, by SAM's own post-processing.

        Args:
            masks (`list[torch.Tensor]`): per conversation low-resolution logits `(num_masks, h, h)`, as `pred_masks`.
            original_sizes (`torch.Tensor` of shape `(b, 2)`): height and width of each image; of b images for B
                conversations, each serves B / b in a row.
            reshaped_input_sizes (`torch.Tensor` of shape `(b, 2)`): as the processor gives them.
            mask_threshold (`float`): logits above it are inside.
            binarize (`bool`): `False` returns the logits.

        Returns:
            `list[torch.Tensor]`: per conversation `(num_masks, height, width)`, bool (or float32 logits).

        Raises:
            ValueError: the number of conversations is no multiple of the number of images.
        """
        sizes, shown = (torch.as_tensor(value).tolist() for value in (original_sizes, reshaped_input_sizes))
        if len(sizes) != len(shown) or not sizes or len(masks) % len(sizes):
            raise ValueError(
                f"There are masks of {len(masks)} conversations, {len(sizes)} original and {len(shown)} reshaped "
                "sizes; allowed are equal numbers of sizes, one for each conversation or for an equal number in a row."
            )
        repeats = len(masks) // len(sizes)
        of_each = ((sizes[i // repeats], shown[i // repeats]) for i in range(len(masks)))
        return [
            resize_masks(self.sam_image_processor, logits, size, visible, mask_threshold, binarize)
            for logits, (size, visible) in zip(masks, of_each, strict=True)
        ]

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        inputs: Any,
        threshold: float = 0.0,
        mask_threshold: float = 0.5,
        text_labels: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """
        Masks with what belongs to each.

        Args:
            outputs: of `segment` or `forward`, with `pred_masks` and `mask_scores`.
            inputs: what this processor made.
            threshold (`float`): masks of a lower score are left out.
            mask_threshold (`float`): pixels of a higher probability are inside.
            text_labels (`list[list[str]]`, *optional*): the texts of each conversation, nested as the processor's
                `text`; by default those that it was given.

        Returns:
            `list[list[dict]]`: per conversation, for each mask `mask` (`(height, width)`, bool), `score` (mean
            probability of the mask's pixels, 0 for an empty one), `predicted_iou` (SAM's own estimate), `label` (the
            text) and `box` (`[left, top, right, bottom]` in pixels, the last two exclusive; `None` for an empty mask).

        Raises:
            ValueError: thresholds that are no probabilities, or no texts, or texts of another number of conversations.
        """
        for name, value in (("threshold", threshold), ("mask_threshold", mask_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` is {value!r}; allowed are probabilities from 0 to 1.")
        text_labels = getattr(inputs, "text_labels", None) if text_labels is None else text_labels
        if text_labels is None:
            raise ValueError(
                "`inputs` do not say what was asked; pass the processor's output as it is, or `text_labels` with the "
                "texts of each conversation."
            )
        turns = as_turns("text_labels", text_labels)
        if len(turns) != len(outputs.pred_masks):
            raise ValueError(
                f"There are texts of {len(turns)} conversations in `text_labels` and masks of "
                f"{len(outputs.pred_masks)}; allowed are equal numbers."
            )
        logits = self.post_process_masks(
            outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
        )
        results = []
        for probabilities, scores, texts in zip(
            (values.sigmoid() for values in logits), outputs.mask_scores, turns, strict=True
        ):
            # Of a conversation with a mask for each turn every mask has its own text; a generated answer is the last's
            labels = texts if len(texts) == len(probabilities) else [texts[-1]] * len(probabilities)
            entries = [
                _describe(probability, score, label, mask_threshold)
                for probability, score, label in zip(probabilities, scores.tolist(), labels, strict=True)
            ]
            results.append([entry for entry in entries if entry["score"] >= threshold])
        return results

    def decode_answers(self, sequences: Any, inputs: Any) -> list[str]:
        """
        Answers as texts; [SEG] stays, special tokens go.

        Args:
            sequences (`torch.LongTensor` of shape `(B, L + new_tokens)`): prompts and answers, as `generate` gives
                them, or an output that holds them as `sequences`. Of several answers to each prompt, those of one
                prompt follow each other.
            inputs: what this processor made: prompts of L tokens.

        Raises:
            ValueError: the sequences do not begin with the prompts.
        """
        sequences = getattr(sequences, "sequences", sequences)
        prompts = inputs["input_ids"].to(sequences.device)
        num_answers = max(1, len(sequences) // len(prompts))
        length = prompts.shape[1]
        if not torch.equal(sequences[:, :length], prompts.repeat_interleave(num_answers, dim=0)):
            raise ValueError(
                f"`sequences` of shape {tuple(sequences.shape)} do not begin with the prompts of `inputs`, of shape "
                f"{tuple(prompts.shape)}; give what `generate` or `segment` returned for these `inputs`."
            )
        answers = sequences[:, length:]
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def post_process_locations(
        self,
        sequences: Any,
        inputs: Any,
        target_sizes: torch.Tensor | Sequence[Sequence[int]],
        mask_decoder: Any = None,
    ) -> list[list[dict[str, Any]]]:
        """
        The objects that PaliGemma's answers name by <loc> and <seg> tokens.

        Args:
            sequences (`torch.LongTensor`): as in [`decode_answers`].
            inputs: likewise.
            target_sizes (`torch.Tensor` of shape `(B, 2)`): height and width of the image of each answer.
            mask_decoder ([`LiteLVLMMaskDecoder`], *optional*): makes masks of the codes.

        Returns:
            `list[list[dict]]`: of each answer what [`read_locations`] reads in it, and with a decoder what
            [`add_masks`] adds.

        Raises:
            ValueError: another number of sizes than of answers, or a decoder that is not loaded.
        """
        answers, sizes = self.decode_answers(sequences, inputs), torch.as_tensor(target_sizes).long().tolist()
        if len(answers) != len(sizes):
            raise ValueError(f"There are {len(answers)} answers and {len(sizes)} `target_sizes`; give one for each.")
        results = [read_locations(answer, size) for answer, size in zip(answers, sizes, strict=True)]
        if mask_decoder is not None:
            for objects, size in zip(results, sizes, strict=True):
                add_masks(objects, size, mask_decoder)
        return results

    def explain_no_masks(self, outputs: Any, inputs: Any) -> list[str | None]:
        """
        Why answers have no mask.

        Args:
            outputs: of `segment`, with `sequences` and `pred_masks`.
            inputs: what this processor made.

        Returns:
            `list[str | None]`: per answer `None` where it has a mask, and else the reason: that it rejects what was
            asked for, by `rejection_token`, or that it holds no [SEG].
        """
        reasons = [None if len(masks) else "the answer holds no [SEG]" for masks in outputs.pred_masks]
        if self.rejection_token is None or not any(reasons):
            return reasons
        rejects = [self.rejection_token in answer for answer in self.decode_answers(outputs, inputs)]
        rejected = f"the answer rejects it, by {self.rejection_token}"
        return [rejected if reason and is_it else reason for reason, is_it in zip(reasons, rejects, strict=True)]

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedModel,
        guide: str | os.PathLike | None = None,
        chat_template: str | None = None,
        sam: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> "LiteLVLMProcessor":
        """
        The processor of an LVLM in Transformers' format, for [`LiteLVLMForConditionalGeneration.from_backbone`].

        Args:
            backbone (`str` or [`PreTrainedModel`]): Hub id or folder of an LVLM, or that model loaded.
            guide (`str`, *optional*): Hub id or folder of its CLIP or SigLIP, by default as [`default_guide`] says.
            chat_template (`str`, *optional*): instead of the LVLM's own.
            sam (`str`, *optional*): Hub id or folder of a SAM or SAM 2, for masks; [SEG] is added to the tokenizer.
            kwargs: those of the backbone's `from_pretrained`, such as `revision`. Those that say how to reach the Hub,
                such as `token` and `cache_dir`, are the guide's and SAM's too.

        Raises:
            ValueError: an unknown option, a model that does not know where it was loaded from, a vision tower that is
                none of CLIP's, SigLIP's and Qwen-VL's or of sizes not known, a SAM for a Qwen-VL, or an LVLM without a
                chat template.
        """
        for name in kwargs:
            if name not in LOADING_OPTIONS:
                raise _unknown_option(name, LOADING_OPTIONS)
        if isinstance(backbone, PreTrainedModel):
            source, config = backbone.name_or_path, backbone.config
            if not source:
                raise ValueError("`backbone` does not know where it was loaded from; give its Hub id or folder.")
        else:
            source, config = backbone, AutoConfig.from_pretrained(backbone, **kwargs)
        vision_config: Any = getattr(config, "vision_config", None)
        tower = getattr(vision_config, "model_type", None)
        is_external = tower in TEXTLESS_TOWERS
        if tower not in VISION_TOWERS and not is_external:
            raise ValueError(
                f"`backbone` {str(source)!r} is a {config.model_type!r} model without CLIP's or SigLIP's vision "
                "tower; allowed are LVLMs with one, such as LLaVA, and Qwen2-VL and Qwen2.5-VL."
            )
        if is_external and sam is not None:
            raise ValueError(f"`sam` is given, but a {config.model_type!r} answers in text only; leave it out.")
        if guide is None:
            guide = default_guide(vision_config)
        own = AutoProcessor.from_pretrained(source, **kwargs)
        is_paligemma = config.model_type == "paligemma"
        chat_template = chat_template or own.chat_template or own.tokenizer.chat_template
        chat_template = chat_template or (PALIGEMMA_CHAT_TEMPLATE if is_paligemma else None)
        if chat_template is None:
            raise ValueError(f"{str(source)!r} has no chat template; give one as `chat_template`.")
        reaching = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
        guide_length = None
        if vision_config.model_type == "siglip_vision_model":
            guide_length = AutoConfig.from_pretrained(guide, **reaching).text_config.max_position_embeddings
        sam_image_processor = None
        if sam is not None:
            check_is_name("sam", sam)
            sam_image_processor = AutoImageProcessor.from_pretrained(sam, **reaching)
            own.tokenizer.add_tokens(AddedToken("[SEG]", special=False, normalized=False))
        sizes: dict[str, Any] = {} if is_external else {"num_image_tokens": num_patches_per_side(vision_config) ** 2}
        return cls(
            own.image_processor,
            own.tokenizer,
            AutoTokenizer.from_pretrained(guide, **reaching),
            sam_image_processor,
            chat_template=chat_template,
            image_token=own.image_token,
            **sizes,
            question_template="{}",
            with_masks=sam is not None,
            guide_length=guide_length,
            vision_aspect_ratio=getattr(own, "vision_aspect_ratio", None),
            with_token_types=is_paligemma,
            guide_image_options=guide_image_options(guide, **reaching) if is_external else None,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """
        As [`ProcessorMixin.from_pretrained`], which hands what it does not know to the tokenizers, where a slip would
        not be noticed.

        Raises:
            ValueError: an option that is nearly one of this processor, or a damaged file, named.
        """
        own = {*LOADING_OPTIONS, *inspect.signature(cls.__init__).parameters} - {"self"}
        for name in kwargs.keys() - own:
            if get_close_matches(name, own, n=1, cutoff=0.8):
                raise _unknown_option(name, own)
        with naming_damage(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def _load_tokenizer_from_pretrained(
        cls, sub_processor_type: str, pretrained_model_name_or_path: Any, subfolder: str = "", **kwargs: Any
    ) -> Any:
        """
        As there, but Transformers reads a guide's tokenizer that it does not find from the root of the folder: that is
        the language model's, whose ids mean other words to CLIP.
        """
        if sub_processor_type != "guide_tokenizer":
            return super()._load_tokenizer_from_pretrained(
                sub_processor_type, pretrained_model_name_or_path, subfolder=subfolder, **kwargs
            )
        try:
            folder = os.path.join(subfolder, sub_processor_type)
            return AutoTokenizer.from_pretrained(pretrained_model_name_or_path, subfolder=folder, **kwargs)
        except (OSError, ValueError) as error:
            raise OSError(
                "The guide's tokenizer cannot be loaded from `guide_tokenizer` in "
                f"{str(pretrained_model_name_or_path)!r}; download or save the processor anew, with this "
                f"folder. ({str(error).strip().splitlines()[0]})"
            ) from error

    def check_fits(self, config: Any) -> None:
        """
        Looks whether this processor and a model belong together.

        Args:
            config ([`LiteLVLMConfig`]): of the model.

        Raises:
            ValueError: names what differs: the placeholders of an image, the id of [SEG], or the guide's tokenizer.
        """
        vocab = self.tokenizer.get_vocab()
        known = [
            *self._sizes(config),
            ("id of the image's placeholder", vocab.get(self.image_token), config.image_token_id),
        ]
        if self.with_masks and config.sam_config is not None:
            known.append(("id of [SEG]", vocab.get("[SEG]"), config.seg_token_id))
            sam = model_type(self.sam_image_processor)
            known.append(("kind of SAM that images are prepared for", sam, config.sam_config.model_type))
        limit = getattr(config.backbone_config, "vision_aspect_ratio", None)
        known.append(("mark of answers by `token_type_ids`", self.with_token_types, config.has_prefix))
        in_crops = hasattr(self.image_processor, "image_grid_pinpoints")
        known.append(("cutting of images into crops", in_crops, config.has_crops))
        known.append(("limit of an image in crops", self.vision_aspect_ratio, limit))
        is_siglip = isinstance(config.guide_config, SiglipConfig)
        guide = getattr(config.guide_config, "text_config", config.guide_config)
        length = guide.max_position_embeddings if is_siglip else None
        known.append(("length of the guide's texts", self.guide_length, length))
        vocab_size = getattr(guide, "vocab_size", None)
        if vocab_size is not None:
            own = len(self.guide_tokenizer)
            known.append(("number of tokens of the guide's tokenizer", own, min(own, vocab_size)))
        # SigLIP's configurations name ids that its tokenizers do not have
        if vocab_size is not None and not is_siglip and guide.eos_token_id != _LEGACY_EOS_TOKEN_ID:
            known.append(("id of CLIP's end token", self.guide_tokenizer.eos_token_id, guide.eos_token_id))
        for what, of_processor, of_model in known:
            if of_processor != of_model:
                raise ValueError(
                    f"The {what} is {of_processor} in the processor, but {of_model} in the model's config.json; load "
                    "both from the same folder."
                )

    def _sizes(self, config: Any) -> list[tuple[str, Any, Any]]:
        """What an image's size makes of it: its name, here, and in the configuration of a model."""
        side = None if self.guide_image_options is None else self.guide_image_options["size"]["height"]
        if not config.has_external_guide:
            tokens = ("visual tokens of an image", self.num_image_tokens, config.num_patches_per_side**2)
            return [tokens, ("size of the guide's images", side, None)]
        of_guide = ("size of the guide's images", side, config.guide_config.vision_config.image_size)
        own = (getattr(self.image_processor, "patch_size", None), getattr(self.image_processor, "merge_size", None))
        vision = config.vision_config
        return [of_guide, ("size of patches and how many merge", own, (vision.patch_size, vision.spatial_merge_size))]

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """As [`ProcessorMixin.save_pretrained`], with the code that lets the folder load by `trust_remote_code`."""
        written = super().save_pretrained(save_directory)
        written += export_code(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory))), **kwargs)
        return written


def num_tokens_in_crops(
    size: Sequence[int],
    image_grid_pinpoints: list[list[int]],
    crop_size: int,
    num_patches: int,
    vision_aspect_ratio: str | None = None,
) -> int:
    """
    Visual tokens of an image in crops before any pruning: those of the whole, then its rows and their ends.

    Args:
        size (`Sequence[int]`): height and width of the image.
        image_grid_pinpoints (`list[list[int]]`): heights and widths that an image may be resized to.
        crop_size (`int`): height and width of a crop.
        num_patches (`int`): of a crop.
        vision_aspect_ratio (`str`, *optional*): of LLaVA-OneVision.
    """
    side = round(num_patches**0.5)
    rows, columns = get_anyres_image_grid_shape(list(size), image_grid_pinpoints, crop_size)
    height, width = unpad_image(torch.empty(1, rows * side, columns * side, device="meta"), list(size)).shape[1:]
    if vision_aspect_ratio is not None:
        ratio = math.sqrt(height * width / (max_num_crops(vision_aspect_ratio) * num_patches))
        if ratio > 1.1:  # as LLaVA-OneVision shrinks its patches
            height, width = int(height // ratio), int(width // ratio)
    return num_patches + height * (width + 1)


def _group_images(images: Any, num_conversations: int) -> list[list[Any]]:
    """
    The images of each conversation; or of all, where there is a single image or none.

    Raises:
        ValueError: images for another number of conversations, or for some of them only.
    """
    is_batch = isinstance(images, (list, tuple)) or (
        isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4
    )
    if not is_batch:
        return [[] if images is None else [images]]
    if len(images) != num_conversations:
        raise ValueError(
            f"There are {len(images)} images for {num_conversations} conversations; give one for each, a list with "
            "those of each, or a single image (not in a list) for all."
        )
    groups = [list(one) if isinstance(one, (list, tuple)) else [one] for one in images]
    number = sum(map(bool, groups))
    if 0 < number < len(groups):
        raise ValueError(
            f"{number} of {len(groups)} conversations have an image; allowed are all or none, so pass those without "
            "an image in a call of their own."
        )
    return groups


def _for_each(of_groups: list[Any], conversations: list[Any]) -> list[Any]:
    """What belongs to the images of each conversation; or of all, where they share one."""
    return of_groups * (len(conversations) // len(of_groups))


def _unknown_option(name: str, known: Iterable[str]) -> ValueError:
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return ValueError(f"`{name}` is no option of this processor.{hint}")


def _describe(probability: torch.Tensor, predicted_iou: float, label: str, mask_threshold: float) -> dict[str, Any]:
    mask = probability > mask_threshold
    score, box = 0.0, None
    if mask.any():
        score = probability[mask].mean().item()
        rows, columns = (mask.any(dim=dim).nonzero().flatten().tolist() for dim in (1, 0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return {"mask": mask, "score": score, "predicted_iou": predicted_iou, "label": label, "box": box}


__all__ = ["LiteLVLMProcessor", "LiteLVLMProcessorKwargs", "LiteLVLMTextKwargs", "num_tokens_in_crops"]
