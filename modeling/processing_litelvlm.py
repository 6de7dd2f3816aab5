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
Processor of LiteLVLM: pictures for CLIP and SAM, conversations for the language model, texts for the CLIP guide, and
masks back at the size of the picture.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin, SamImageProcessor
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image
from transformers.utils.chat_template_utils import render_jinja_template

from .hub_litelvlm import export_code
from .images_litelvlm import load_rgb

# Conversation "llava_v1" with LISA's image prefix, as its checkpoints were trained
LLAVA_V1_CHAT_TEMPLATE = (
    "{{ 'A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human\\'s questions. ' }}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% for part in parts %}{% if part['type'] == 'image' %}"
    "{{ '<im_start><image><im_end>\\n' }}{% endif %}{% endfor %}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ASSISTANT:' }}{% generation %}{{ ' ' }}"
    "{% for part in parts %}{{ part['text'] }}{% endfor %}{{ '</s>' }}{% endgeneration %}"
    "{% else %}{{ raise_exception('Roles are user and assistant, not ' + message['role'] + '.') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)

# What a text is put into for a guide that reads several sentences: questions that LISA and GLaMM were trained with
GUIDE_TEMPLATES = (
    "Can you segment {} in this image?",
    "Please segment {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
GUIDE_FORMS = ("question", "expression", "templates")

# A character for private use: put into special tokens that a user has typed, and taken out by tokenising apart what
# stands on its two sides, so that they stay text
_SPLIT = "\ue000"


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
        with_masks (`bool`): whether to prepare pictures for the mask decoder.
        guide_form (`str`): what CLIP reads of a text: `"question"`, as the language model does (reference);
            `"expression"`, the text as it is; or `"templates"`, several sentences with it, whose embeddings are
            averaged.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        guide_tokenizer: Any = None,
        sam_image_processor: Any = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        num_image_tokens: int = 576,
        question_template: str = "Can you segment {} in this image?",
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
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Args:
            images: one picture, or a list with one for each conversation; see [`load_rgb`] for the forms. A single
                picture with a list of texts is asked them all, and encoded once.
            text: a question, or one for each picture, or a list of turns for each picture. Always plain text: what
                looks like a special token in it stays text.
            answers: nested as `text`. Answers to all turns make a teacher-forced conversation with `labels`; the
                last turn may be left open.
            segmentation_maps: for each conversation a `(num_masks, H, W)` array of 0 and 1 at the size of the
                upright picture, which becomes `mask_labels`.
            guide_text: nested as `text`; what CLIP reads, in the place of what `guide_form` makes of `text`.
            question_template (`str`): replaces the configured one in this call.
            return_tensors (`str`): `"pt"`.

        Returns:
            [`BatchFeature`] with B conversations of up to T turns about b pictures: `input_ids`, `attention_mask`
            (and `labels`) of shape `(B, L)`, padded on the tokenizer's side; `pixel_values` `(b, 3, S, S)`;
            `guide_input_ids` and `guide_attention_mask` `(B, T, G)`, or `(B, T, sentences, G)` for templates;
            `sam_pixel_values` `(b, 3, S', S')` with `original_sizes` and `reshaped_input_sizes` `(b, 2)` as (height,
            width); `mask_labels`, a list of `(num_masks, h, h)` with -1 where SAM pads.

        Raises:
            ValueError: no or empty text, counts or sizes that do not fit, answered and open conversations in one
                batch, or a picture that cannot be read.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` is {return_tensors!r}; allowed is 'pt'.")
        turns = _as_turns("text", text)
        template = self.question_template if question_template is None else question_template
        if "{}" not in template:
            raise ValueError(f"`question_template` is {template!r}; it must hold {{}}, the place of the text.")
        questions = [[template.replace("{}", turn) for turn in conversation] for conversation in turns]
        replies = [[] for _ in turns] if answers is None else _as_turns("answers", answers, may_be_empty=True)
        guides = self._guide_sentences(turns, template)
        if guide_text is not None:
            guides = [[[text] for text in texts] for texts in _as_turns("guide_text", guide_text)]
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
                    "question, or to all but the last. For several questions of one picture that do not follow "
                    "each other, pass the picture alone with a list of texts."
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
        return self._encode(conversations, guides, images, segmentation_maps)

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
            texts = [_message_text(m) for m in messages if m["role"] == "user"]
            if not texts:
                raise ValueError("A conversation holds no message of the user; give each at least one.")
            guides.append([[text] for text in texts])
            parts = [p for m in messages if not isinstance(m["content"], str) for p in m["content"]]
            pictures = [p for p in parts if p["type"] == "image"]
            if len(pictures) > 1:
                raise ValueError(
                    f"A conversation holds {len(pictures)} images; one image per conversation is allowed."
                )
            images += [next((p[k] for k in ("image", "url", "path") if k in p), None) for p in pictures]
        if not tokenize:
            rendered = [
                self._render(messages, add_generation_prompt, chat_template)[0].replace(_SPLIT, "")
                for messages in conversations
            ]
            return rendered[0] if single else rendered
        if images and any(image is None for image in images):
            raise ValueError("An image part holds no picture; give it under 'image', 'url' or 'path'.")
        return self._encode(conversations, guides, images or None, None, add_generation_prompt, chat_template)

    # --- texts ---------------------------------------------------------------------------------------------------

    def _encode(
        self,
        conversations: list[list[dict[str, Any]]],
        guides: list[list[list[str]]],
        images: Any,
        segmentation_maps: Sequence[Any] | None,
        add_generation_prompt: bool | None = None,
        chat_template: str | None = None,
    ) -> BatchFeature:
        answered = [messages[-1]["role"] == "assistant" for messages in conversations]
        if any(answered) and not all(answered):
            raise ValueError(
                f"{sum(answered)} of {len(conversations)} conversations end with an answer; allowed are all (to learn "
                "from) or none (to continue). Pass the others in a call of their own."
            )
        pictures = {} if images is None else self._encode_images(images, len(conversations))
        # Of images in crops, each has a number of tokens of its own
        counts = [self._num_image_tokens(size) for size in pictures.get("image_sizes", torch.empty(0, 2)).tolist()]
        counts = counts or [self.num_image_tokens]
        encoded = [
            self._encode_conversation(
                c, counts[i * len(counts) // len(conversations)], add_generation_prompt, chat_template
            )
            for i, c in enumerate(conversations)
        ]
        left = self.tokenizer.padding_side == "left"
        ids = _pad([torch.tensor(row) for row, _ in encoded], self.tokenizer.pad_token_id, left)
        data: dict[str, Any] = {"input_ids": ids}
        data["attention_mask"] = _pad([torch.ones(len(row), dtype=torch.long) for row, _ in encoded], 0, left)
        if all(answered):
            data["labels"] = _pad([torch.tensor(labels) for _, labels in encoded], -100, left)

        data |= self._encode_guides(guides)
        data |= pictures
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
                        f"A segmentation map has shape {tuple(np.shape(maps))} but its picture is {size[0]} high and "
                        f"{size[1]} wide; give masks in the frame of the upright picture."
                    )
        return BatchFeature(data)

    def _render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool | None, chat_template: str | None
    ) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as the model reads it, with user text protected, and the spans of its answers."""
        protected = []
        for message in messages:
            # Answers hold [SEG] rightly, but only the template may place an image
            tokens = _added_tokens(self.tokenizer) if message["role"] == "user" else {self.image_token}
            content = message["content"]
            if isinstance(content, str):
                content = _protect(content, tokens)
            else:
                # Pictures themselves are none of the template's business
                content = [
                    {"type": part["type"]} | ({"text": _protect(part["text"], tokens)} if "text" in part else {})
                    for part in content
                ]
            protected.append({"role": message["role"], "content": content})
        if add_generation_prompt is None:
            add_generation_prompt = messages[-1]["role"] == "user"
        rendered, spans = render_jinja_template(
            conversations=[protected],
            chat_template=chat_template or self.chat_template,
            return_assistant_tokens_mask=True,
            add_generation_prompt=add_generation_prompt,
        )
        return rendered[0], spans[0]

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
        for piece in re.split(f"({re.escape(self.image_token)}|{_SPLIT})", rendered):
            if piece == self.image_token:
                ids += image_ids
                labels += [-100] * len(image_ids)
            elif piece and piece != _SPLIT:
                tokens = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
                ids += tokens["input_ids"]
                for token, (low, high) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
                    answered = any(start + low < end and begin < start + high for begin, end in spans)
                    labels.append(token if answered else -100)
            start += len(piece)
        return ids, labels

    def _guide_sentences(self, turns: list[list[str]], question_template: str) -> list[list[list[str]]]:
        """What CLIP reads of each text of each conversation: one sentence, or several."""
        if self.guide_form not in GUIDE_FORMS:
            raise ValueError(f"`guide_form` is {self.guide_form!r}; allowed are {', '.join(map(repr, GUIDE_FORMS))}.")
        forms = {"question": (question_template,), "expression": ("{}",), "templates": GUIDE_TEMPLATES}
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
        pieces = _protect(text, _added_tokens(tokenizer)).split(_SPLIT)
        ids = [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]
        return [*first, *ids[: tokenizer.model_max_length - len(first) - 1], tokenizer.eos_token_id]

    # --- pictures ------------------------------------------------------------------------------------------------

    def _encode_images(self, images: Any, num_conversations: int) -> dict[str, Any]:
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
        pictures = [load_rgb(image) for image in (images if is_batch else [images])]
        prepared = self.image_processor(pictures, return_tensors="pt")
        data = {name: prepared[name] for name in ("pixel_values", "image_sizes") if name in prepared}
        if self.with_masks:
            prepared = self.sam_image_processor(pictures, return_tensors="pt")
            data["sam_pixel_values"] = prepared["pixel_values"]
            data |= {name: torch.as_tensor(prepared[name]) for name in ("original_sizes", "reshaped_input_sizes")}
        return data

    def _num_image_tokens(self, size: list[int]) -> int:
        """Visual tokens of an image in crops, of a height and width: the whole, then its rows and their ends."""
        side = math.isqrt(self.num_image_tokens)
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
        self, output: Any, inputs: Any, threshold: float = 0.0, binarize: bool = True
    ) -> list[torch.Tensor]:
        """
        Masks at the size of the pictures.

        Args:
            output: of `segment` or `forward`, with `pred_masks`.
            inputs: what this processor made, with `original_sizes` and `reshaped_input_sizes`.
            threshold (`float`): logits above it are inside.
            binarize (`bool`): `False` returns the logits.

        Returns:
            `list[torch.Tensor]`: per conversation `(num_masks, height, width)`, bool (or float32 logits).
        """
        repeats = len(output.pred_masks) // len(inputs["original_sizes"])
        side = self.sam_image_processor.pad_size["height"]
        masks = []
        for i, logits in enumerate(output.pred_masks):
            size, shown = (inputs[name][i // repeats].tolist() for name in ("original_sizes", "reshaped_input_sizes"))
            if len(logits):
                full = torch.nn.functional.interpolate(logits.float()[:, None], (side, side), mode="bilinear")
                full = torch.nn.functional.interpolate(full[..., : shown[0], : shown[1]], size, mode="bilinear")[:, 0]
            else:
                full = logits.new_zeros((0, *size), dtype=torch.float32)
            masks.append(full > threshold if binarize else full)
        return masks

    def decode_answers(self, output: Any) -> list[str]:
        """The answers in `output.sequences` as texts; [SEG] stays, special tokens go."""
        return [text.strip() for text in self.tokenizer.batch_decode(output.sequences, skip_special_tokens=True)]

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """As [`ProcessorMixin.save_pretrained`], with the code that lets the folder load by `trust_remote_code`."""
        written = super().save_pretrained(save_directory)
        written += export_code(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory))), **kwargs)
        return written


def _as_turns(name: str, value: Any, may_be_empty: bool = False) -> list[list[str]]:
    """`value` as a list of turns per conversation, with every text checked."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or len(value) == 0:
        raise ValueError(f"`{name}` is {value!r}; allowed are a text, a list of texts, or a list of lists of texts.")
    conversations = [list(turns) if isinstance(turns, (list, tuple)) else [turns] for turns in value]
    for turns in conversations:
        if not turns and not may_be_empty:
            raise ValueError(f"`{name}` holds a conversation without any text.")
        for turn in turns:
            if not isinstance(turn, str) or not turn.strip():
                raise ValueError(f"`{name}` holds {turn!r}; allowed are texts that are not empty.")
    return conversations


def _message_text(message: dict[str, Any]) -> str:
    if isinstance(message["content"], str):
        return message["content"]
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def _added_tokens(tokenizer: Any) -> set[str]:
    """Every special or added token of a tokenizer."""
    return {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)


def _protect(text: str, tokens: Iterable[str]) -> str:
    """Text in which every one of these tokens is cut in two, so that none is recognised."""
    text = text.replace(_SPLIT, "")
    alternatives = "|".join(re.escape(token) for token in tokens if len(token) > 1)
    if not alternatives:
        return text
    # Cut wherever a token starts, and not only in what one match covers: tokens may overlap. A tokenizer that ignores
    # case, such as CLIP's, recognises its tokens in any.
    return re.sub(f"(?={alternatives}).", lambda start: start[0] + _SPLIT, text, flags=re.IGNORECASE | re.DOTALL)


def _pad(rows: list[torch.Tensor], value: int, left: bool) -> torch.Tensor:
    """Rows of different lengths as one tensor `(B, L)`."""
    side = "left" if left else "right"
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)


__all__ = ["GUIDE_TEMPLATES", "LLAVA_V1_CHAT_TEMPLATE", "LiteLVLMProcessor"]
