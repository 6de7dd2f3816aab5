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
"""A model that answers requests in batches, whoever hands them over; it knows no network."""

import copy
import hashlib
import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any

import torch
from cachetools import LRUCache
from PIL import Image

from ..annotation.annotator import Annotator, Prepared, join_images, states_of
from ..modeling.fetching_litelvlm import TooLargeError, open_untrusted
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.outputs_litelvlm import IMAGE_INPUTS, LiteLVLMImageState
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..modeling.pruning_litelvlm import KEEP_ALL, PruningPlan
from .settings import RefusedError

_SIZES = ("original_sizes", "reshaped_input_sizes")
_KEPT_SIZES = (*_SIZES, "image_sizes")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """
    Args:
        image (`bytes`): the file.
        texts (`tuple[str, ...]`): each is asked about the image.
        messages (`tuple[dict, ...]`): in their place a conversation as chat templates take it, whose image parts hold
            no image.
        options (`dict`): `answer`, `max_new_tokens`, `num_retained_tokens` and `pruning_method`.
        further_images (`tuple[bytes, ...]`): of a conversation about several, those behind the first.
    """

    image: bytes
    texts: tuple[str, ...] = ()
    messages: tuple[dict[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    further_images: tuple[bytes, ...] = ()

    @property
    def images(self) -> tuple[bytes, ...]:
        return (self.image, *self.further_images)


@dataclass(frozen=True)
class Encoded:
    """What is kept of an image, or of those of a conversation: their state, and sizes, each `(images, 2)`."""

    state: LiteLVLMImageState
    sizes: dict[str, torch.Tensor]

    def num_bytes(self) -> int:
        return sum(value.nbytes for value in self.state.values())


@dataclass(frozen=True)
class Item:
    """
    A question as the model takes it.

    Args:
        key: of the state of its image, or images.
        group: items of one group share a batch.
        annotator ([`Annotator`]): with the question's options.
        texts: what is asked.
        prompts (`dict[str, torch.Tensor]`): of the texts.
        images (`dict[str, torch.Tensor]`): of the images, with their sizes; empty where they are `encoded` already.
        encoded ([`Encoded`], *optional*): the images' state, if there is one.
    """

    key: tuple[str, tuple[int, ...]]
    group: Hashable
    annotator: Annotator
    texts: tuple[str, ...]
    prompts: dict[str, torch.Tensor]
    images: dict[str, torch.Tensor]
    encoded: Encoded | None


class Worker:
    """
    Args:
        model ([`LiteLVLMForSegmentation`]), processor ([`LiteLVLMProcessor`]): of one checkpoint. One without SAM
            answers conversations only.
        batch_size (`int`): texts per forward pass.
        max_seconds (`float`): after which an answer is not generated any further.
        cache_bytes (`int`): images' states that are kept.
    """

    def __init__(
        self,
        model: LiteLVLMForSegmentation,
        processor: LiteLVLMProcessor,
        batch_size: int = 8,
        max_seconds: float = 60.0,
        cache_bytes: int = 2**30,
    ):
        self.model, self.processor = model, processor
        self._batch_size, self._max_seconds = batch_size, max_seconds
        # A prompt needs an image only for the number of its placeholders
        self._prompter = copy.copy(processor)
        self._prompter.with_masks = False
        self._kept: LRUCache[Any, Encoded] = LRUCache(cache_bytes, getsizeof=Encoded.num_bytes)
        self._lock = Lock()
        self._annotators = lru_cache(maxsize=32)(self._annotator)

    def prepare(self, question: Question, **generation: Any) -> Item:
        """
        All that needs no model, in any one thread.

        Args:
            generation: further options of `generate`, such as a `streamer`.

        Raises:
            RefusedError: what is asked for cannot be done.
        """
        options = {name: value for name, value in question.options.items() if value is not None}
        if self.model.config.sam_config is None and not question.messages:
            raise RefusedError(422, "This model answers in text only, without masks; ask /v1/chat/completions.")
        try:
            chosen = options.get("num_retained_tokens"), options.get("pruning_method")
            plan = PruningPlan.resolve(self.model.config, *chosen)
            # That of a stream is its own
            make = self._annotator if generation else self._annotators
            annotator = make(**options, **generation)
            # LLaVA-OneVision sees an image among others in another way than by itself, so they are kept together
            digests = "".join(hashlib.blake2b(image).hexdigest() for image in question.images)
            key = (digests, plan.selector.vision_layers)
            with self._lock:
                encoded = self._kept.get(key)
            inputs = self._process(question, encoded)
            self._check_length(inputs, plan, len(question.images))
        except TooLargeError as error:
            raise RefusedError(413, f"The image is too large: {error}.") from error
        except ValueError as error:
            raise RefusedError(422, str(error)) from error
        texts = question.texts or (inputs.text_labels[0][-1],)
        images = {name: inputs.pop(name) for name in (*IMAGE_INPUTS, *_SIZES) if name in inputs}
        # Images may differ in the number of their tokens, and conversations in the number of their images
        alone = key if self.model.config.has_varying_lengths or question.further_images else None
        group = (bool(question.messages), tuple(sorted(options.items())), alone)
        return Item(key, group, annotator, texts, dict(inputs), {} if encoded else images, encoded)

    def answer(self, items: Sequence[Item]) -> list[dict[str, Any] | RefusedError]:
        """
        Of each item what [`Annotator.answer`] says of its texts, as `results`, and the tokens of its longest prompt,
        as `num_prompt_tokens`; or why there is no answer.
        """
        groups = defaultdict(list)
        for number, item in enumerate(items):
            groups[item.group].append(number)
        answers: dict[int, dict[str, Any] | RefusedError] = {}
        for numbers in groups.values():
            answers |= zip(numbers, self._try([items[number] for number in numbers]), strict=True)
        return [answers[number] for number in range(len(items))]

    def _annotator(self, **options: Any) -> Annotator:
        if "answer" not in options:
            options["max_time"] = self._max_seconds
        return Annotator(self.model, self.processor, batch_size=self._batch_size, **options)

    def _process(self, question: Question, encoded: Encoded | None) -> Any:
        if encoded is None:
            processor, images = self.processor, [_open(image) for image in question.images]
        else:
            processor, images = self._prompter, [Image.new("RGB", size) for size in self._sizes_of(encoded)]
        if not question.messages:
            return processor(images[0], list(question.texts))
        rest = iter(images)
        messages = [
            message
            | {"content": [part | {"image": next(rest)} if part["type"] == "image" else part for part in content]}
            if isinstance(content := message["content"], list)
            else message
            for message in question.messages
        ]
        return processor.apply_chat_template(messages, tokenize=True, return_dict=True)

    def _check_length(self, inputs: Any, plan: PruningPlan, num_images: int) -> None:
        """Raises a `ValueError` for prompts that are longer than what the language model was made for."""
        config = self.model.config
        num_positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        visible = inputs["attention_mask"].bool()
        is_image = visible & (inputs["input_ids"] == config.image_token_id)
        num_visual = is_image.sum(dim=-1)
        if plan.selector is not KEEP_ALL:
            num_visual = num_visual.clamp(max=plan.num_retained_tokens * num_images)
        length = int(((visible & ~is_image).sum(dim=-1) + num_visual).max())
        if num_positions is not None and length > num_positions:
            raise ValueError(
                f"The prompt has {length} tokens, {int(num_visual.max())} of them visual, but the language model was "
                f"made for {num_positions} positions; shorten it."
            )

    def _sizes_of(self, encoded: Encoded) -> list[tuple[int, int]]:
        """Widths and heights of images that have as many placeholders."""
        if encoded.state.image_grid_thw is not None:
            side = self.processor.image_processor.patch_size
            return [(columns * side, rows * side) for _, rows, columns in encoded.state.image_grid_thw.tolist()]
        if self.model.config.has_crops:
            return [(width, height) for height, width in encoded.sizes["image_sizes"].tolist()]
        return [(1, 1)] * len(encoded.state.image_features)

    def _try(self, items: Sequence[Item]) -> list[dict[str, Any] | RefusedError]:
        try:
            return self._answer(items)
        except Exception as error:
            if len(items) == 1:
                if isinstance(error, ValueError):
                    return [RefusedError(422, str(error))]
                logger.exception("A request failed")
                return [RefusedError(500, "The model failed at this request; what it said is in the server's log.")]
        # One request does not fail the others
        return [self._try([item])[0] for item in items]

    def _answer(self, items: Sequence[Item]) -> list[dict[str, Any] | RefusedError]:
        annotator, found = items[0].annotator, self._encode(items)
        keys = list(found)
        prompts = annotator.join_prompts([item.prompts for item in items])
        image_of = torch.tensor([keys.index(item.key) for item in items for _ in item.texts])
        states = [found[key].state for key in keys]
        state = LiteLVLMImageState(**{name: torch.cat([state[name] for state in states]) for name in states[0]})
        if self.model.config.sam_config is None:
            results = iter(self._say(annotator, prompts, state, image_of))
        else:
            sizes = {name: torch.cat([found[key].sizes[name] for key in keys]) for name in _SIZES}
            asked: list[tuple[str | None, str]] = [(None, text) for item in items for text in item.texts]
            results = iter(annotator.answer(Prepared(prompts | sizes, asked, image_of), state))
        return [
            {
                "results": [next(results) for _ in item.texts],
                "num_prompt_tokens": int(item.prompts["attention_mask"].sum(dim=1).max()),
            }
            for item in items
        ]

    @torch.inference_mode()
    def _say(
        self,
        annotator: Annotator,
        prompts: dict[str, torch.Tensor],
        state: LiteLVLMImageState,
        image_of: torch.Tensor,
    ) -> list[dict[str, Any]]:
        """As [`Annotator.answer`], by a model that makes no masks."""
        prompts = {name: value.to(self.model.device) for name, value in prompts.items()}
        if state.batch_num_images is None:  # that of several images is of one conversation, whoever asks about them
            state = states_of(state, image_of)
        columns = annotator.read_answers(
            self.model.generate(**prompts, **annotator.options, image_state=state), prompts
        )
        return [
            dict(zip(columns, values, strict=True)) | {"masks": []} for values in zip(*columns.values(), strict=True)
        ]

    @torch.inference_mode()
    def _encode(self, items: Sequence[Item]) -> dict[Any, Encoded]:
        """The states of a batch's images, each image seen once."""
        found, new = {}, {}
        for item in items:
            with self._lock:
                encoded = item.encoded or self._kept.get(item.key)
            if encoded is None:
                new[item.key] = item
            else:
                found[item.key] = encoded
        if not new:
            return found
        # Several images of a conversation share no batch with others
        first, *others = (item.images for item in new.values())
        images = join_images([first, *others]) if others else first
        images = {name: value.to(self.model.device) for name, value in images.items() if name in IMAGE_INPUTS}
        # LiteLVLM's signals serve all methods that do not look into the vision tower
        looks_inside = items[0].key[1]
        method = items[0].annotator.options.get("pruning_method") if looks_inside else "litelvlm"
        state = self.model.encode_image(**images, pruning_method=method)
        for number, (key, item) in enumerate(new.items()):
            # Copies, as a part of a batch would keep all of it
            own = {name: (value[number : number + 1] if others else value).clone() for name, value in state.items()}
            sizes = {name: item.images[name] for name in _KEPT_SIZES if name in item.images}
            encoded = Encoded(LiteLVLMImageState(**own), sizes)
            found[key] = encoded
            with self._lock:
                if encoded.num_bytes() <= self._kept.maxsize:
                    self._kept[key] = encoded
        return found


def _open(content: bytes) -> Image.Image:
    """A stranger's image; its processor turns it upright."""
    try:
        return open_untrusted(content)
    except TooLargeError:
        raise
    except ValueError as error:
        raise ValueError(f"The image cannot be read: {error}") from error


__all__ = ["Encoded", "Item", "Question", "Worker"]
