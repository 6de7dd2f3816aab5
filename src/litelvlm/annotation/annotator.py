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
"""What is done to a batch of images and texts, whoever hands the batches over."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..data.samples import fault_of_text
from ..hub import check_reachable, public_message, public_name
from ..modeling.chat_litelvlm import half_of_character
from ..modeling.images_litelvlm import load_rgb
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.outputs_litelvlm import IMAGE_INPUTS, LiteLVLMImageState
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..outputs.formats import describe_mask

COLUMNS = (
    "image",
    "text",
    "answer",
    "reason",
    "segmentation",
    "bbox",
    "area",
    "score",
    "num_retained_tokens",
    "model",
    "revision",
)
"""Of what an [`Annotator`] gives; a row is a mask, or a text without one."""

# What there is once for each image, and not for each text
_IMAGES = (*IMAGE_INPUTS, "original_sizes", "reshaped_input_sizes")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """
    What is asked of an image.

    Args:
        image: as [`load_rgb`] takes it, or a function that gives the image.
        texts: the questions.
        name (`str`, *optional*): of the image in rows and errors.
        question_template (`str`, *optional*): instead of the processor's.
        num_rows (`int`): rows of the input that it stands for, for the progress.
    """

    image: Any
    texts: Sequence[Any]
    name: str | None = None
    question_template: str | None = None
    num_rows: int = 1


@dataclass
class Prepared:
    """
    A batch as the model takes it: b images, B texts.

    Args:
        inputs (`dict[str, torch.Tensor]`): the processor's; what belongs to images has b entries, the rest B.
        asked (`list[tuple[str | None, str]]`): the image's name and the text, B of them.
        image_of (`torch.LongTensor` of shape `(B,)`): the image of each text.
        errors (`list[dict]`): `image`, `text` and `error` of what cannot be asked.
    """

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    asked: list[tuple[str | None, str]] = field(default_factory=list)
    image_of: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    errors: list[dict[str, Any]] = field(default_factory=list)


class Annotator:
    """
    Makes masks for batches of images of any sizes. CLIP and SAM see each image of a batch once, however many texts ask
    about it. `datasets.Dataset.map(..., batched=True)`, Ray Data's `map_batches` and `litelvlm annotate` call it.

    Args:
        model ([`LiteLVLMForSegmentation`] or `str`): the model, or the folder or Hub id that it is loaded from.
        processor ([`LiteLVLMProcessor`], *optional*): by default that of the model's folder.
        device (`str`, *optional*): where a model that is loaded here goes.
        answer (`str`, *optional*): taken as given, such as `"It is [SEG]."`: nothing is decoded.
        max_new_tokens (`int`): length of the answers that are generated.
        batch_size (`int`): texts per forward pass.
        skip_broken (`bool`): whether a call leaves out, with a warning, the rows that cannot be read.
        revision (`str`, *optional*): of the model, by default the commit of its Hub repository.
        options: `num_retained_tokens`, `pruning_method` and `share_prefix`.

    Raises:
        ValueError: processor and model do not fit, or an answer without [SEG].
    """

    def __init__(
        self,
        model: LiteLVLMForSegmentation | str,
        processor: LiteLVLMProcessor | None = None,
        *,
        device: str | torch.device | None = None,
        answer: str | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 16,
        skip_broken: bool = False,
        revision: str | None = None,
        **options: Any,
    ):
        loaded: Any = model
        if isinstance(model, str):
            check_reachable(model)
            loaded = LiteLVLMForSegmentation.from_pretrained(model, dtype="auto")
            loaded = loaded if device is None else loaded.to(device)
        self.model: LiteLVLMForSegmentation = loaded
        self.processor = processor or LiteLVLMProcessor.from_pretrained(loaded.name_or_path)
        self.processor.check_fits(loaded.config)
        if batch_size < 1:
            raise ValueError(f"`batch_size` is {batch_size}; allowed are numbers of at least 1.")
        self.batch_size, self.skip_broken = batch_size, skip_broken
        self.options = {name: value for name, value in options.items() if value is not None}
        if answer is None:
            self.options |= {"max_new_tokens": max_new_tokens, "do_sample": False}
        else:
            self.options["answer"] = self.processor.encode_answer(answer)
        self.origin = {
            "model": public_name(loaded.name_or_path),
            "revision": revision or getattr(loaded.config, "_commit_hash", None),
        }

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """
        Args:
            batch: columns `image` (see [`Request`]) and `text` (a text, or a list of texts), and `name` for images
                that do not name themselves.

        Returns:
            `dict[str, list]`: the columns of [`COLUMNS`], a row for each mask in the order of the batch:
            `segmentation` are run lengths `{"size", "counts"}`, `bbox` `[left, top, width, height]`; both, `area` and
            `score` are `None` for an answer without a mask, of which `reason` says why.

        Raises:
            ValueError: a column is missing, or something cannot be read and is not to be skipped.
        """
        if missing := [name for name in ("image", "text") if name not in batch]:
            raise ValueError(f"The batch has no column {', '.join(missing)}; it has {', '.join(batch)}.")
        prepared = self.prepare(_requests(batch))
        for error in prepared.errors:
            if not self.skip_broken:
                raise ValueError(f"image {error['image']}, text {error['text']!r}: {error['error']}")
            logger.warning("Left out: image %s, text %r: %s", error["image"], error["text"], error["error"])
        rows = self.annotate(prepared)
        return {name: [row[name] for row in rows] for name in COLUMNS}

    def prepare(self, requests: Sequence[Request]) -> Prepared:
        """Reads images and makes tensors of them and of the texts: all that needs no model, in any thread."""
        prepared = Prepared()
        found, image_of = [], []
        for request in requests:
            faults = [fault_of_text(text) for text in request.texts]
            sound = [text for text, fault in zip(request.texts, faults, strict=True) if fault is None]
            prepared.errors += [
                _error(request, text, fault) for text, fault in zip(request.texts, faults, strict=True) if fault
            ]
            try:
                if request.name is not None and half_of_character(request.name):
                    raise ValueError("the name of the file is no UTF-8, which no output can hold; rename it")
                image = load_rgb(request.image() if callable(request.image) else request.image)
                if sound:
                    found.append(self.processor(image, sound, question_template=request.question_template))
                    image_of += [len(found) - 1] * len(sound)
                    prepared.asked += [(request.name, text) for text in sound]
            except Exception as error:  # each of Pillow's readers raises its own
                prepared.errors += [_error(request, text, str(error) or type(error).__name__) for text in sound]
        prepared.image_of = torch.tensor(image_of, dtype=torch.long)
        prepared.inputs = join_images(found) | self.join_prompts(found) if found else {}
        return prepared

    @torch.inference_mode()
    def annotate(self, prepared: Prepared) -> list[dict[str, Any]]:
        """The rows of a batch, as dictionaries of [`COLUMNS`] and `size`, the image's height and width."""
        rows = []
        for answered in self.answer(prepared):
            said = {
                name: answered[name] for name in ("image", "text", "answer", "reason", "num_retained_tokens", "size")
            }
            nothing = dict.fromkeys(("segmentation", "bbox", "area", "score"))
            rows += [said | mask | self.origin for mask in answered["masks"]] or [said | nothing | self.origin]
        return rows

    @torch.inference_mode()
    def answer(self, prepared: Prepared, state: LiteLVLMImageState | None = None) -> list[dict[str, Any]]:
        """
        What is said to each text of a batch.

        Args:
            prepared: of which the images may be left out where their state is given.
            state (*optional*): of the b images, from `encode_image`; by default they are encoded here.

        Returns:
            `list[dict]`: for each text `image` (its name), `text`, `answer`, `reason` (why there is no mask, or
            `None`), `num_retained_tokens`, `num_new_tokens` (of the answer), `is_complete` (whether it ends by
            itself), `size` (height and width) and `masks`, each with `segmentation`, `bbox`, `area` and `score`.
        """
        if not prepared.asked:
            return []
        inputs = {name: value.to(self.model.device) for name, value in prepared.inputs.items()}
        if state is None:
            images = {name: inputs[name] for name in IMAGE_INPUTS if name in inputs}
            state = self.model.encode_image(**images, pruning_method=self.options.get("pruning_method"))
        answered = []
        for start in range(0, len(prepared.asked), self.batch_size):
            part = slice(start, start + self.batch_size)
            answered += self._ask(inputs, state, prepared.asked[part], prepared.image_of[part], part)
        return answered

    def _ask(
        self,
        inputs: dict[str, torch.Tensor],
        state: LiteLVLMImageState,
        asked: list[tuple[str | None, str]],
        image_of: torch.Tensor,
        part: slice,
    ) -> list[dict[str, Any]]:
        prompts = {name: value[part] for name, value in inputs.items() if name not in _IMAGES}
        output = self.model.segment(**prompts, **self.options, image_state=states_of(state, image_of))
        sizes = {name: inputs[name].cpu()[image_of] for name in ("original_sizes", "reshaped_input_sizes")}
        found = self.processor.post_process_instance_segmentation(
            output, sizes, text_labels=[[text] for _, text in asked]
        )
        retained = output.num_retained_tokens
        columns = {
            "image": [name for name, _ in asked],
            "text": [text for _, text in asked],
            "reason": self.processor.explain_no_masks(output, prompts),
            "num_retained_tokens": [self.model.config.num_patches] * len(asked)
            if retained is None
            else retained.tolist(),
            "size": sizes["original_sizes"].tolist(),
            "masks": [[describe_mask(entry) for entry in entries] for entries in found],
        }
        columns |= self.read_answers(output.sequences, prompts)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def read_answers(self, sequences: torch.Tensor, prompts: Mapping[str, torch.Tensor]) -> dict[str, list[Any]]:
        """`answer`, `num_new_tokens` and `is_complete`, as `answer` gives them, of what was generated."""
        tokenizer = self.processor.tokenizer
        new_tokens = sequences[:, prompts["input_ids"].shape[1] :]
        return {
            "answer": self.processor.decode_answers(sequences, prompts),
            "num_new_tokens": (new_tokens != tokenizer.pad_token_id).sum(dim=1).tolist(),
            "is_complete": (new_tokens == tokenizer.eos_token_id).any(dim=1).tolist(),
        }

    def join_prompts(self, found: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The prompts of several processor outputs: padding goes to the left, where answers are not."""
        joined = {}
        pads = {"input_ids": self.processor.tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": 0}
        for name, pad in pads.items():
            if name not in found[0]:  # only PaliGemma's have types
                continue
            rows = [
                row[mask.bool()]
                for inputs in found
                for row, mask in zip(inputs[name], inputs["attention_mask"], strict=True)
            ]
            joined[name] = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
        pads = {"guide_input_ids": self.processor.guide_tokenizer.pad_token_id, "guide_attention_mask": 0}
        for name, pad in pads.items():
            values = [inputs[name] for inputs in found]
            # Conversations differ in the number of their texts too
            shape = [max(lengths) for lengths in zip(*(value.shape[1:] for value in values), strict=True)]
            joined[name] = torch.cat([_pad(value, shape, pad) for value in values])
        return joined


def states_of(state: LiteLVLMImageState, image_of: torch.Tensor) -> LiteLVLMImageState:
    """
    The states of the images that prompts are about, `(B,)`: one for each prompt, or, where each image has as many
    prompts in a row, once, so that prompts may share what they have in common.
    """
    rows, counts = image_of.unique_consecutive(return_counts=True)
    rows = rows if (counts == counts[0]).all() else image_of
    return LiteLVLMImageState(**{name: value[rows.to(value.device)] for name, value in state.items()})


def join_images(found: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The images, and their sizes, of several processor outputs; crops may differ in number."""
    return {
        name: pad_sequence([value for inputs in found for value in inputs[name]], batch_first=True)
        for name in _IMAGES
        if name in found[0]
    }


def _pad(value: torch.Tensor, shape: Sequence[int], pad: int) -> torch.Tensor:
    """A tensor whose dimensions but the first are filled up at their ends, to this shape."""
    missing = [wanted - length for wanted, length in zip(shape, value.shape[1:], strict=True)]
    return torch.nn.functional.pad(value, [size for length in reversed(missing) for size in (0, length)], value=pad)


def _requests(batch: Mapping[str, Sequence[Any]]) -> list[Request]:
    """The rows of a batch, those in a row about one image as one request."""
    requests: list[Request] = []
    names = batch.get("name", [None] * len(batch["image"]))
    for image, text, name in zip(batch["image"], batch["text"], names, strict=True):
        texts = [text] if isinstance(text, str) or not hasattr(text, "__iter__") else list(text)
        last = requests[-1] if requests else None
        if last is not None and (image is last.image or (isinstance(image, (str, dict)) and image == last.image)):
            requests[-1] = Request(image, [*last.texts, *texts], last.name)
        else:
            requests.append(Request(image, texts, _name_of(image) if name is None else str(name)))
    return requests


def _name_of(image: Any) -> str | None:
    if isinstance(image, dict):
        return image.get("path")
    return str(image) if isinstance(image, str) else getattr(image, "filename", None) or None


def _error(request: Request, text: Any, reason: str) -> dict[str, Any]:
    name = None if request.name is None else request.name.encode(errors="replace").decode()
    return {"image": name, "text": text, "error": public_message(reason.strip().splitlines()[0])}


__all__ = ["COLUMNS", "Annotator", "Prepared", "Request", "join_images", "states_of"]
