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
Processor of LiteLVLM: images for CLIP and SAM, conversations for the language model, texts for the CLIP guide, and
masks back at the size of the image.
"""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
    SamImageProcessor,
)
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image
from transformers.processing_utils import ProcessingKwargs, Unpack
from transformers.utils.chat_template_utils import render_jinja_template

from .chat_litelvlm import (
    LLAVA_V1_CHAT_TEMPLATE,
    QUESTION_TEMPLATES,
    SPLIT,
    added_tokens,
    as_turns,
    message_text,
    protect,
)
from .guide_litelvlm import default_guide
from .hub_litelvlm import export_code
from .images_litelvlm import load_rgb

GUIDE_FORMS = ("question", "expression", "templates")

# What a chat template has around answers, for the labels
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")

# Options of `from_pretrained`: how to reach the Hub, and which files of one repository to read
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
_LOADING_OPTIONS = (*_HUB_OPTIONS, "code_revision", "revision", "subfolder", "trust_remote_code")

# Options of tokenizers that are heeded when a conversation becomes token ids
_CALL_ARGUMENTS = ("answers", "guide_text", "images", "question_template", "segmentation_maps", "text")
_TEXT_OPTIONS = {"max_length", "padding", "padding_side", "return_tensors", "truncation"}


class LiteLVLMProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Transformers' usual keywords of a processor."""


# @auto_docstring would replace what is said below.  trf-ignore: TRF057
class LiteLVLMProcessor(ProcessorMixin):
    r"""
    Prepares inputs of [`LiteLVLMForSegmentation`] and reads its outputs.

    Args:
        image_processor ([`CLIPImageProcessor`]): for the vision tower.
        tokenizer: the language model's fast tokenizer.
        guide_tokenizer: CLIP's tokenizer, for the texts that guide the pruning.
        sam_image_processor ([`SamImageProcessor`], *optional*): for the mask decoder.
        chat_template (`str`, *optional*): defaults to [`LLAVA_V1_CHAT_TEMPLATE`]; answers stand in generation blocks.
        image_token (`str`): the placeholder in the template.
        num_image_tokens (`int`): placeholders per image, the visual tokens before pruning; of LLaVA-NeXT, per crop.
        question_template (`str`): what `text` is put into; `"{}"` leaves it as it is.
        with_masks (`bool`): whether to prepare images for the mask decoder.
        guide_form (`str`): what CLIP reads of a text: `"question"`, as the language model does (reference);
            `"expression"`, the text as it is; or `"templates"`, several sentences with it, whose embeddings are
            averaged.
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
    ):
        self.image_token = image_token
        self.num_image_tokens = num_image_tokens
        self.question_template = question_template
        self.with_masks = with_masks
        self.guide_form = guide_form
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
            images: one image, or a list with one for each conversation; see [`load_rgb`] for the forms. A single
                image with a list of texts is asked them all, and encoded once.
            text: a question, or one for each image, or a list of turns for each image. Always plain text: what
                looks like a special token in it stays text.
            answers: nested as `text`, or one text that answers every turn. Answers to all turns make a teacher-forced
                conversation with `labels`; the last turn may be left open.
            segmentation_maps: for each conversation a `(num_masks, H, W)` array of 0 and 1 at the size of the
                upright image, which becomes `mask_labels`.
            guide_text: nested as `text`; what CLIP reads, in the place of what `guide_form` makes of `text`.
            question_template (`str`): replaces the configured one in this call.
            kwargs: Transformers' usual ones. `padding` (`True` or `"longest"` by default, `"max_length"`, or `False`),
                `padding_side`, `max_length`, `truncation` and `return_tensors` (`"pt"`) for the conversations;
                options of the image processor for the vision tower's images.

        Returns:
            [`BatchFeature`] with B conversations of up to T turns about b images: `input_ids`, `attention_mask`
            (and `labels`) of shape `(B, L)`, padded on the tokenizer's side; `pixel_values` `(b, 3, S, S)`;
            `guide_input_ids` and `guide_attention_mask` `(B, T, G)`, or `(B, T, sentences, G)` for templates;
            `sam_pixel_values` `(b, 3, S', S')` with `original_sizes` and `reshaped_input_sizes` `(b, 2)` as (height,
            width); `mask_labels`, a list of `(num_masks, h, h)` with -1 where SAM pads. Its attribute `text_labels`
            keeps the texts of each conversation, for [`post_process_instance_segmentation`].

        Raises:
            ValueError: no or empty text, counts or sizes that do not fit, answered and open conversations in one
                batch, answers that the chat template does not mark for `labels`, an image that cannot be read, an
                unknown option, or a length that would cut an image.
        """
        text_options, image_options = self._options(kwargs)
        turns = as_turns("text", text)
        template = self.question_template if question_template is None else question_template
        if "{}" not in template:
            raise ValueError(f"`question_template` is {template!r}; it must hold {{}}, the place of the text.")
        questions = [[template.replace("{}", turn) for turn in conversation] for conversation in turns]
        if isinstance(answers, str):
            replies = [as_turns("answers", [answers])[0] * len(conversation) for conversation in turns]
        else:
            replies = [[] for _ in turns] if answers is None else as_turns("answers", answers, may_be_empty=True)
        guides = self._guide_sentences(turns, template)
        if guide_text is not None:
            guides = [[[text] for text in texts] for texts in as_turns("guide_text", guide_text)]
        if len(replies) != len(turns) or len(guides) != len(turns):
            raise ValueError(
                f"There are {len(turns)} conversations in `text`, {len(replies)} in `answers` and {len(guides)} in "
                "`guide_text`; allowed are equal numbers."
            )
        conversations = []
        for asked, answered in zip(questions, replies, strict=True):
            if len(answered) not in (len(asked), len(asked) - 1):
                raise ValueError(
                    f"A conversation has {len(asked)} questions and {len(answered)} answers; give an answer to every "
                    "question, or to all but the last. For several questions of one image that do not follow "
                    "each other, pass the image alone with a list of texts."
                )
            messages: list[dict[str, Any]] = []
            for i, question in enumerate(asked):
                content: list[dict[str, str]] = [{"type": "text", "text": question}]
                if i == 0 and images is not None:
                    content.insert(0, {"type": "image"})
                messages.append({"role": "user", "content": content})
                if i < len(answered):
                    messages.append({"role": "assistant", "content": [{"type": "text", "text": answered[i]}]})
            conversations.append(messages)
        inputs = self._encode(conversations, guides, images, segmentation_maps, text_options, image_options)
        inputs.text_labels = turns
        return inputs

    def _options(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options of one call for texts and for images; a ValueError names one that is not heeded."""
        groups = LiteLVLMProcessorKwargs.__annotations__
        of_images = set(groups["images_kwargs"].__annotations__)
        of_images |= set(getattr(getattr(self.image_processor, "valid_kwargs", None), "__annotations__", {}))
        given = {name: value for name, value in kwargs.items() if name not in groups}
        given |= {name: value for group in groups for name, value in (kwargs.get(group) or {}).items()}
        for name in given:
            if name not in _TEXT_OPTIONS | of_images:
                raise _unknown_option(name, {*_CALL_ARGUMENTS, *_TEXT_OPTIONS, *of_images})
        merged = self._merge_kwargs(LiteLVLMProcessorKwargs, **kwargs)
        text = {name: value for name, value in merged["text_kwargs"].items() if name in _TEXT_OPTIONS}
        images = {name: value for name, value in merged["images_kwargs"].items() if name in given}
        tensors = {text.pop("return_tensors", "pt"), images.pop("return_tensors", "pt")}
        if tensors - {"pt", None}:
            raise ValueError(f"`return_tensors` is {sorted(map(str, tensors))[-1]!r}; allowed is 'pt'.")
        return text, images

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        chat_template: str | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool | None = None,
        return_dict: bool = True,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> str | list[str] | BatchFeature:
        """
        As [`ProcessorMixin.apply_chat_template`] for one conversation or several, each with at most one image. User
        text stays text, and guides the pruning as it is; `question_template` is not applied.

        Raises:
            ValueError: several images in a conversation, or options that this processor does not know.
        """
        # Callers such as the image-text-to-text pipeline name options only to leave them off
        unknown = sorted(name for name, value in kwargs.items() if value)
        if unknown or not return_dict or return_tensors != "pt":
            raise ValueError(
                f"Unknown options {unknown}, `return_dict={return_dict}`, `return_tensors={return_tensors!r}`; "
                "allowed are `return_dict=True` and `return_tensors='pt'`."
            )
        single = bool(conversation) and isinstance(conversation[0], dict)
        conversations: list[list[dict[str, Any]]] = [conversation] if single else list(conversation)  # type: ignore
        images: list[Any] = []
        guides: list[list[list[str]]] = []
        for messages in conversations or [[]]:
            texts = [message_text(m) for m in messages if m["role"] == "user"]
            if not texts:
                raise ValueError("A conversation holds no message of the user; give each at least one.")
            guides.append([[text] for text in texts])
            parts = [p for m in messages if not isinstance(m["content"], str) for p in m["content"]]
            parts_with_image = [p for p in parts if p["type"] == "image"]
            if len(parts_with_image) > 1:
                raise ValueError(
                    f"A conversation holds {len(parts_with_image)} images; one image per conversation is allowed."
                )
            images += [next((p[k] for k in ("image", "url", "path") if k in p), None) for p in parts_with_image]
        if not tokenize:
            rendered = [
                self._render(messages, add_generation_prompt, chat_template)[0].replace(SPLIT, "")
                for messages in conversations
            ]
            return rendered[0] if single else rendered
        if images and any(image is None for image in images):
            raise ValueError("An image part holds no image; give it under 'image', 'url' or 'path'.")
        inputs = self._encode(
            conversations, guides, images or None, None, {}, {}, add_generation_prompt, chat_template
        )
        inputs.text_labels = [[sentences[0] for sentences in texts] for texts in guides]
        return inputs

    # --- texts ---------------------------------------------------------------------------------------------------

    def _encode(
        self,
        conversations: list[list[dict[str, Any]]],
        guides: list[list[list[str]]],
        images: Any,
        segmentation_maps: Sequence[Any] | None,
        text_options: dict[str, Any],
        image_options: dict[str, Any],
        add_generation_prompt: bool | None = None,
        chat_template: str | None = None,
    ) -> BatchFeature:
        answered = [messages[-1]["role"] == "assistant" for messages in conversations]
        if any(answered) and not all(answered):
            raise ValueError(
                f"{sum(answered)} of {len(conversations)} conversations end with an answer; allowed are all (to learn "
                "from) or none (to continue). Pass the others in a call of their own."
            )
        prepared = {} if images is None else self._encode_images(images, len(conversations), image_options)
        # Of images in crops, each has a number of tokens of its own
        counts = [self._num_image_tokens(size) for size in prepared.get("image_sizes", torch.empty(0, 2)).tolist()]
        counts = counts or [self.num_image_tokens]
        encoded = [
            self._encode_conversation(
                c, counts[i * len(counts) // len(conversations)], add_generation_prompt, chat_template
            )
            for i, c in enumerate(conversations)
        ]
        if all(answered) and not all(any(label != -100 for label in labels) for _, labels in encoded):
            raise ValueError(
                "The chat template does not say which tokens are the answer, so there are no labels to learn from. "
                "Put `{% generation %}` and `{% endgeneration %}` around the answer in it, or leave the last answer "
                "open."
            )
        image_token_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        encoded = [_truncate(row, labels, image_token_id, **text_options) for row, labels in encoded]
        padding = {"padding_side": self.tokenizer.padding_side} | text_options
        data: dict[str, Any] = {
            "input_ids": _pad([row for row, _ in encoded], self.tokenizer.pad_token_id, **padding),
            "attention_mask": _pad([[1] * len(row) for row, _ in encoded], 0, **padding),
        }
        if all(answered):
            data["labels"] = _pad([labels for _, labels in encoded], -100, **padding)

        data |= self._encode_guides(guides)
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

    def _render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool | None, chat_template: str | None
    ) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as the model reads it, with user text protected, and the spans of its answers."""
        protected = []
        for message in messages:
            # Answers hold [SEG] rightly, but only the template may place an image
            tokens = added_tokens(self.tokenizer) if message["role"] == "user" else {self.image_token}
            # Templates such as LLaVA's write nothing for a content that is one string
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            # The template needs the position of an image, not the image
            parts = [
                {"type": part["type"]} | ({"text": protect(part["text"], tokens)} if "text" in part else {})
                for part in parts
            ]
            protected.append({"role": message["role"], "content": parts})
        if add_generation_prompt is None:
            add_generation_prompt = messages[-1]["role"] == "user"
        template = chat_template or self.chat_template
        marks_answers = _GENERATION_BLOCK.search(template) is not None
        rendered, spans = render_jinja_template(
            conversations=[protected],
            chat_template=template,
            return_assistant_tokens_mask=marks_answers,
            add_generation_prompt=add_generation_prompt,
        )
        return rendered[0], spans[0] if marks_answers else []

    def _encode_conversation(
        self,
        messages: list[dict[str, Any]],
        num_image_tokens: int,
        add_generation_prompt: bool | None,
        chat_template: str | None,
    ) -> tuple[list[int], list[int]]:
        """
        Token ids and labels. What stands around an image, or around a protected special token, is tokenised apart, as
        the published checkpoints were trained: joining the texts first would join their tokens.
        """
        rendered, spans = self._render(messages, add_generation_prompt, chat_template)
        image_ids = [self.tokenizer.convert_tokens_to_ids(self.image_token)] * num_image_tokens
        bos = self.tokenizer.bos_token_id
        ids, labels = ([], []) if bos is None else ([bos], [-100])
        start = 0
        for piece in re.split(f"({re.escape(self.image_token)}|{SPLIT})", rendered):
            if piece == self.image_token:
                ids += image_ids
                labels += [-100] * len(image_ids)
            elif piece and piece != SPLIT:
                tokens = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
                ids += tokens["input_ids"]
                for token, (low, high) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
                    answered = any(start + low < end and begin < start + high for begin, end in spans)
                    labels.append(token if answered else -100)
            start += len(piece)
        return ids, labels

    def encode_answer(self, answer: str) -> torch.Tensor:
        """
        The token ids of an answer as they stand in an answered conversation, its end token included, shape `(A,)`,
        int64: behind the ids of an open prompt they make those of the answered one.

        Raises:
            ValueError: no text, a chat template that leaves it out, or a tokenizer that joins the end of a prompt with
                the beginning of its answer.
        """
        as_turns("answer", answer)
        question = {"role": "user", "content": "?"}
        asked, _ = self._encode_conversation([question], 0, True, None)
        answered, _ = self._encode_conversation([question, {"role": "assistant", "content": answer}], 0, False, None)
        if len(answered) == len(asked) or answered[: len(asked)] != asked:
            raise ValueError(
                f"The tokens of {answer!r} cannot be told from those of the prompt before it; pass it to the "
                "processor as `answers` instead."
            )
        return torch.tensor(answered[len(asked) :])

    def _guide_sentences(self, turns: list[list[str]], question_template: str) -> list[list[list[str]]]:
        """What CLIP reads of each text of each conversation: one sentence, or several."""
        if self.guide_form not in GUIDE_FORMS:
            raise ValueError(f"`guide_form` is {self.guide_form!r}; allowed are {', '.join(map(repr, GUIDE_FORMS))}.")
        forms = {"question": (question_template,), "expression": ("{}",), "templates": QUESTION_TEMPLATES}
        return [[[form.replace("{}", text) for form in forms[self.guide_form]] for text in texts] for texts in turns]

    def _encode_guides(self, guides: list[list[list[str]]]) -> dict[str, torch.Tensor]:
        """Ids and masks of shape `(B, T, G)`, or `(B, T, sentences, G)`; each text has as many sentences."""
        rows = [[[self._encode_guide(text) for text in sentences] for sentences in texts] for texts in guides]
        length = max(len(ids) for texts in rows for sentences in texts for ids in sentences)
        shape = (len(rows), max(map(len, rows)), len(rows[0][0]), length)
        input_ids = torch.full(shape, self.guide_tokenizer.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        for i, texts in enumerate(rows):
            for j, sentences in enumerate(texts):
                for k, ids in enumerate(sentences):
                    input_ids[i, j, k, : len(ids)] = torch.tensor(ids)
                    attention_mask[i, j, k, : len(ids)] = 1
        data = {"guide_input_ids": input_ids, "guide_attention_mask": attention_mask}
        return {name: value.squeeze(2) for name, value in data.items()}

    def _encode_guide(self, text: str) -> list[int]:
        """Token ids for the guide, cut to its length with the end token kept."""
        tokenizer = self.guide_tokenizer
        first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        pieces = protect(text, added_tokens(tokenizer)).split(SPLIT)
        ids = [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]
        return [*first, *ids[: tokenizer.model_max_length - len(first) - 1], tokenizer.eos_token_id]

    # --- images ---------------------------------------------------------------------------------------------------

    def _encode_images(self, images: Any, num_conversations: int, options: dict[str, Any]) -> dict[str, Any]:
        is_batch = isinstance(images, (list, tuple)) or (
            isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4
        )
        if is_batch and len(images) != num_conversations:
            raise ValueError(
                f"There are {len(images)} images for {num_conversations} conversations; give one for each, or a "
                "single image (not in a list) for all."
            )
        if is_batch and any(isinstance(image, (list, tuple)) for image in images):
            raise ValueError("A conversation has a list of images; one image per conversation is allowed.")
        loaded = [load_rgb(image) for image in (images if is_batch else [images])]
        prepared = self.image_processor(loaded, return_tensors="pt", **options)
        data = {name: prepared[name] for name in ("pixel_values", "image_sizes") if name in prepared}
        if self.with_masks:
            prepared = self.sam_image_processor(loaded, return_tensors="pt")
            data["sam_pixel_values"] = prepared["pixel_values"]
            data |= {name: torch.as_tensor(prepared[name]) for name in ("original_sizes", "reshaped_input_sizes")}
        return data

    def _num_image_tokens(self, size: list[int]) -> int:
        """Visual tokens of an image in crops, of a height and width: the whole, then its rows and their ends."""
        side = round(self.num_image_tokens**0.5)
        crop = self.image_processor.crop_size["height"]
        rows, columns = get_anyres_image_grid_shape(size, self.image_processor.image_grid_pinpoints, crop)
        height, width = unpad_image(torch.empty(1, rows * side, columns * side, device="meta"), size).shape[1:]
        return self.num_image_tokens + height * (width + 1)

    def _encode_mask_labels(self, maps: Any) -> torch.Tensor:
        """Masks `(num_masks, H, W)` in SAM's frame: resized by area, padded with -1; float32 `(num_masks, h, h)`."""
        masks = torch.as_tensor(np.asarray(maps)).float()
        if masks.ndim != 3:
            raise ValueError(f"A segmentation map has shape {tuple(masks.shape)}; allowed is (num_masks, H, W).")
        side = self.sam_image_processor.mask_size["longest_edge"]
        scale = side / max(masks.shape[-2:])
        height, width = (int(edge * scale + 0.5) for edge in masks.shape[-2:])
        labels = masks.new_full((len(masks), side, side), -1)
        if len(masks):
            resized = torch.nn.functional.interpolate(masks[:, None], (height, width), mode="area")[:, 0]
            labels[:, :height, :width] = (resized > 0.5).float()
        return labels

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
        full_size = []
        for i, logits in enumerate(masks):
            size, visible = sizes[i // repeats], shown[i // repeats]
            if len(logits):
                # In float32, as bilinear resizing of half precision is not supported everywhere
                resized = self.sam_image_processor.post_process_masks(
                    [logits.float()[:, None]], [size], [visible], mask_threshold, binarize
                )
                full_size.append(resized[0][:, 0])
            else:  # SAM's code does not resize nothing
                dtype = torch.bool if binarize else torch.float32
                full_size.append(torch.zeros((0, *size), dtype=dtype, device=logits.device))
        return full_size

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
                them, or an output that holds them as `sequences`.
            inputs: what this processor made: prompts of L tokens.
        """
        sequences = getattr(sequences, "sequences", sequences)
        answers = sequences[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedModel,
        guide: str | os.PathLike | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> "LiteLVLMProcessor":
        """
        The processor of an LVLM in Transformers' format, for [`LiteLVLMForConditionalGeneration.from_backbone`].

        Args:
            backbone (`str` or [`PreTrainedModel`]): Hub id or folder of a CLIP-based LVLM, or that model loaded.
            guide (`str`, *optional*): Hub id or folder of its CLIP, by default as [`default_guide`] says.
            chat_template (`str`, *optional*): in the place of the LVLM's own.
            kwargs: those of the backbone's `from_pretrained`, such as `revision`. Those that say how to reach the Hub,
                such as `token` and `cache_dir`, are the guide's too.

        Raises:
            ValueError: an unknown option, a model that does not know where it was loaded from, a vision tower that is
                not CLIP's or of sizes not known, or an LVLM without a chat template.
        """
        for name in kwargs:
            if name not in _LOADING_OPTIONS:
                raise _unknown_option(name, _LOADING_OPTIONS)
        if isinstance(backbone, PreTrainedModel):
            source, config = backbone.name_or_path, backbone.config
            if not source:
                raise ValueError("`backbone` does not know where it was loaded from; give its Hub id or folder.")
        else:
            source, config = backbone, AutoConfig.from_pretrained(backbone, **kwargs)
        vision_config: Any = getattr(config, "vision_config", None)
        if getattr(vision_config, "model_type", None) != "clip_vision_model":
            raise ValueError(
                f"`backbone` {str(source)!r} is a {config.model_type!r} model without CLIP's vision tower; allowed "
                "are LVLMs with one, such as LLaVA."
            )
        if guide is None:
            guide = default_guide(vision_config)
        own = AutoProcessor.from_pretrained(source, **kwargs)
        chat_template = chat_template or own.chat_template or own.tokenizer.chat_template
        if chat_template is None:
            raise ValueError(f"{str(source)!r} has no chat template; give one as `chat_template`.")
        reaching = {name: value for name, value in kwargs.items() if name in _HUB_OPTIONS}
        return cls(
            own.image_processor,
            own.tokenizer,
            AutoTokenizer.from_pretrained(guide, **reaching),
            chat_template=chat_template,
            image_token=own.image_token,
            num_image_tokens=(vision_config.image_size // vision_config.patch_size) ** 2,
            question_template="{}",
            with_masks=False,
        )

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """As [`ProcessorMixin.save_pretrained`], with the code that lets the folder load by `trust_remote_code`."""
        written = super().save_pretrained(save_directory)
        written += export_code(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory))), **kwargs)
        return written


def _unknown_option(name: str, known: Iterable[str]) -> ValueError:
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return ValueError(f"`{name}` is no option of this processor.{hint}")


def _truncate(
    row: list[int],
    labels: list[int],
    image_token_id: int,
    truncation: Any = None,
    max_length: int | None = None,
    **_: Any,
) -> tuple[list[int], list[int]]:
    """The first `max_length` tokens where `truncation` asks for it; never a part of an image."""
    if not truncation or truncation == "do_not_truncate" or max_length is None or len(row) <= max_length:
        return row, labels
    if image_token_id in row[max_length:]:
        end = len(row) - row[::-1].index(image_token_id)
        raise ValueError(
            f"`max_length` is {max_length}, but the image's tokens end at {end}; allowed are lengths that leave the "
            "image whole."
        )
    return row[:max_length], labels[:max_length]


def _pad(
    rows: list[list[int]],
    value: int,
    padding: Any = True,
    padding_side: str = "left",
    max_length: int | None = None,
    **_: Any,
) -> torch.Tensor:
    """Rows of different lengths as one tensor `(B, L)`."""
    if padding not in (True, False, None, "longest", "max_length", "do_not_pad"):
        raise ValueError(f"`padding` is {padding!r}; allowed are True, False, 'longest' and 'max_length'.")
    lengths = {len(row) for row in rows}
    if padding in (False, None, "do_not_pad") and len(lengths) > 1:
        raise ValueError(
            f"`padding` is {padding!r}, but the conversations have {sorted(lengths)} tokens; allow padding."
        )
    if padding == "max_length" and max_length is None:
        raise ValueError("`padding` is 'max_length', but `max_length` is not given.")
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=padding_side)
    missing = max(0, (max_length or 0) - padded.shape[1]) if padding == "max_length" else 0
    return torch.nn.functional.pad(padded, (missing, 0) if padding_side == "left" else (0, missing), value=value)


def _describe(probability: torch.Tensor, predicted_iou: float, label: str, mask_threshold: float) -> dict[str, Any]:
    mask = probability > mask_threshold
    score, box = 0.0, None
    if mask.any():
        score = probability[mask].mean().item()
        rows, columns = (mask.any(dim=dim).nonzero().flatten().tolist() for dim in (1, 0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return {"mask": mask, "score": score, "predicted_iou": predicted_iou, "label": label, "box": box}


__all__ = ["LiteLVLMProcessor", "LiteLVLMProcessorKwargs"]
