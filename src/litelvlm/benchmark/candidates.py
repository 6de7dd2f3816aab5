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
The candidates that a benchmark times: Transformers' own classes, this package un-pruned, and each pruning method.

All run on one model with the same weights. Random weights serve as well as trained ones; [SEG] is forced as the last
token of every answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tokenizers
import torch
from PIL import Image
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    PreTrainedTokenizerFast,
    Sam2ImageProcessor,
    SamImageProcessor,
)

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.guide_litelvlm import boundary_token_ids
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..modeling.sam_images_litelvlm import prepare_images
from .costs import LiveMemory, guide_length
from .presets import IMAGE_SIZE, Preset
from .timing import StageClock

# The candidate that Transformers' own classes make up
TRANSFORMERS = "transformers"

STAGES = (
    "image_processing",
    "clip",
    "guide",
    "selection",
    "prefill",
    "decode_per_token",
    "sam_encoder",
    "mask_decoder",
    "post_processing",
    "end_to_end",
)
# End to end once more, by how the answer comes about: decoded to its [SEG] only, or given and read in one forward pass
ANSWERS = ("stopped_at_seg", "answer_given")
# And with SAM's encoder compiled, by the kind of answer
COMPILED: dict[str, str | None] = {"compiled": None, "compiled_answer_given": "answer_given"}


class Benchmark:
    """
    A model with an image and a question of given size, and the runs to be timed.

    Args:
        model: the model to measure, on its device.
        preset: says how long prompt and answer are.

    Raises:
        ValueError: the model's images have different numbers of tokens.
    """

    def __init__(self, model: LiteLVLMForSegmentation, preset: Preset):
        config = model.config
        if config.has_varying_lengths:
            raise ValueError(
                f"The model's backbone is {config.backbone_config.model_type!r}, whose images differ in their number "
                "of tokens; such a model is counted, by `--device meta`, and not timed."
            )
        self.model, self.config, self.preset = model, config, preset
        self.device: torch.device = model.device
        self.makes_masks = config.sam_config is not None
        self.processor = _make_processor(config)
        pixels = np.random.default_rng(0).integers(0, 256, (*IMAGE_SIZE, 3), dtype=np.uint8)
        self.image = Image.fromarray(pixels)
        self.clock = StageClock(self.device)
        self._prunes = False  # of the latest run
        self._compiled_forward: Any = None
        self._watch()

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Runs SAM's encoder compiled, and so as fast as after `compile_for_inference`."""
        encoder = self.model.sam.vision_encoder
        # Inside of the module's call, so that the clock, which would break the graph, stands outside
        self._compiled_forward = self._compiled_forward or torch.compile(encoder.forward)
        encoder.forward = self._compiled_forward  # of the instance, before that of its class
        try:
            yield
        finally:
            delattr(encoder, "forward")

    def _watch(self) -> None:
        model, inner = self.model, self.model.model
        # The same weights inside Transformers' own classes, so that both compute the same
        with torch.device("meta"):
            self.lvlm = AutoModelForImageTextToText.from_config(self.config.backbone_config).eval()
        self.lvlm.model, self.lvlm.lm_head = inner.backbone, model.lm_head
        for module, name in (
            (inner, "model"),
            (inner.backbone, "model"),
            (inner.backbone.vision_tower, "clip"),
            (inner.backbone.multi_modal_projector, "projector"),
            (inner.backbone.language_model, "language_model"),
            (inner.guide, "guide"),
        ):
            self.clock.watch(module, name)
        self.clock.watch_method(inner, "_encode", "clip")  # which `forward` and `encode_image` share
        if self.makes_masks:
            self.clock.watch(model.sam.vision_encoder, "sam_encoder")
            self.clock.watch_method(model.sam, "decode_masks", "mask_decoder")

    def prompt(self, num_questions: int = 1) -> dict[str, torch.Tensor]:
        """Random questions about one image each: the tensors that a processor would give, but for the images."""
        config, generator = self.config, torch.Generator().manual_seed(0)
        num_before = self.preset.num_text_tokens // 2
        length = self.preset.num_text_tokens + config.num_patches
        ids = torch.randint(3, config.get_text_config().vocab_size, (num_questions, length), generator=generator)
        for special in (config.image_token_id, config.seg_token_id):
            ids[ids == special] = 3
        ids[:, :num_before] = ids[:1, :num_before]  # such as a system prompt
        ids[:, num_before : num_before + config.num_patches] = config.image_token_id
        guide = getattr(config.guide_config, "text_config", config.guide_config)
        guide_ids = torch.randint(0, guide.vocab_size, (num_questions, 1, guide_length(config)), generator=generator)
        if config.has_class_token:  # CLIP reads a text at its end token, SigLIP at its last position
            _, end = boundary_token_ids(guide)
            guide_ids[guide_ids == end] = 0
            guide_ids[..., -1] = end
        prompt = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "guide_input_ids": guide_ids,
            "guide_attention_mask": torch.ones_like(guide_ids),
        }
        # CODEPATH: PaliGemma reads all of its prompt in both directions
        if config.has_prefix:
            prompt["token_type_ids"] = torch.zeros_like(ids)
        return {name: value.to(self.device) for name, value in prompt.items()}

    def process(self, num_images: int = 1) -> dict[str, torch.Tensor]:
        """The images as tensors on the device."""
        images = [self.image] * num_images
        inputs = {"pixel_values": self.processor.image_processor(images, return_tensors="pt")["pixel_values"]}
        if self.makes_masks:
            inputs |= prepare_images(self.processor.sam_image_processor, images)
        for name in ("pixel_values", "sam_pixel_values"):
            if name in inputs:
                inputs[name] = inputs[name].to(self.device, self.model.dtype)
        return inputs

    def _answer(self, kind: str | None) -> dict[str, Any]:
        """
        Arguments of `segment` for answers of fixed length. Random weights would not say [SEG], so that it is forced as
        the last token, wherever generation ends.
        """
        num_to_seg = self.preset.num_new_tokens - self.preset.num_tokens_after_seg
        if kind == "answer_given":
            answer = torch.full((self.preset.num_new_tokens,), 3, device=self.device)
            answer[num_to_seg - 1] = self.config.seg_token_id
            return {"answer": answer}
        length = num_to_seg if kind == "stopped_at_seg" else self.preset.num_new_tokens
        options = {"max_new_tokens": length, "eos_token_id": None, "pad_token_id": 0}
        return options | {"do_sample": False, "forced_eos_token_id": self.config.seg_token_id}

    def run(
        self,
        method: str,
        budget: int | None,
        num_questions: int = 1,
        num_images: int = 1,
        answer: str | None = None,
    ) -> Any:
        """
        From an image to its masks at full size (or to the answer, of a model without SAM), once; `answer` is one of
        [`ANSWERS`], or `None` for an answer that is decoded to its end.
        """
        self._prunes = method not in (TRANSFORMERS, "none")
        if method == TRANSFORMERS:
            return self._run_transformers()
        prompt = self.prompt(num_questions)
        options = {"pruning_method": method, "num_retained_tokens": budget} | self._answer(answer)
        with self.clock.stage("end_to_end"):
            with self.clock.stage("image_processing"):
                inputs = self.process(num_images)
            if not self.makes_masks:
                return self.model.generate(**prompt, **inputs, **options)
            output = self.model.segment(**prompt, **inputs, **options)
            return self._post_process(output.pred_masks, inputs)

    def _run_transformers(self) -> Any:
        """Transformers' LVLM, then its SAM, unchanged; the hidden state of [SEG] is read from the whole history."""
        prompt = self.prompt()
        prompt = {name: value for name, value in prompt.items() if not name.startswith("guide_")}
        with self.clock.stage("end_to_end"):
            with self.clock.stage("image_processing"):
                inputs = self.process()
            output = self.lvlm.generate(
                **prompt,
                pixel_values=inputs["pixel_values"],
                output_hidden_states=self.makes_masks,
                return_dict_in_generate=True,
                **self._answer(None),
            )
            if not self.makes_masks:
                return output.sequences
            sam = self.model.sam
            embedding = self.model.seg_head(output.hidden_states[-1][-1][:, -1:])
            image_embeddings = sam.encode_image(inputs["sam_pixel_values"])
            return self._post_process(list(sam.decode_masks(embedding, image_embeddings)[0]), inputs)

    def _post_process(self, masks: list[torch.Tensor], inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        with self.clock.stage("post_processing"):
            sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
            return [mask.cpu() for mask in self.processor.post_process_masks(masks, *sizes)]

    def milliseconds(self) -> dict[str, float]:
        """The stages of the run that just ended."""
        spans = self.clock.spans()
        total = {name: sum(end - start for start, end in calls) for name, calls in spans.items()}
        times = {name: total[name] for name in STAGES if name in total}
        forwards, prefill = spans["model"], spans["language_model"][0]
        times["prefill"] = prefill[1] - prefill[0]
        if len(forwards) > 1:
            times["decode_per_token"] = (forwards[-1][1] - forwards[0][1]) / (len(forwards) - 1)
        if self._prunes:
            # What pruning adds before the language model: all of that time but the stages that an un-pruned model has
            inside = sum(end - start for start, end in spans["clip"] if start >= forwards[0][0])
            times["selection"] = prefill[0] - forwards[0][0] - total.get("guide", 0) - total["projector"] - inside
        return times

    def memory(self, method: str, budget: int | None) -> dict[str, int]:
        """Peak bytes of the prefill's activations with its cache, and of a whole run with the weights."""
        prompt, inputs = self.prompt(), self.process()
        options = {"pruning_method": method, "num_retained_tokens": budget}
        state = self.model.encode_image(inputs["pixel_values"], pruning_method=method)
        weights = {p.data_ptr(): p.nbytes for p in self.model.parameters()}
        return {
            "activation_bytes": self._peak_bytes(
                lambda: self.model(**prompt, image_state=state, logits_to_keep=1, use_cache=True, **options)
            ),
            "peak_bytes": sum(weights.values()) + self._peak_bytes(lambda: self.run(method, budget)),
        }

    def _peak_bytes(self, run: Any) -> int:
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
                torch.cuda.reset_peak_memory_stats(self.device)
                before = torch.cuda.memory_allocated(self.device)
                run()
                torch.cuda.synchronize(self.device)
                return torch.cuda.max_memory_allocated(self.device) - before
            with LiveMemory() as memory:
                run()
            return memory.peak_bytes
        finally:
            self.clock.spans()


def _make_processor(config: LiteLVLMConfig) -> LiteLVLMProcessor:
    """Images as the configuration wants them; no text is tokenised, so the tokenizers know one word only."""
    blank = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizer_models.WordLevel({"?": 0}, unk_token="?"))
    )
    side = config.backbone_config.vision_config.image_size
    clip = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    if config.sam_config is None:
        return LiteLVLMProcessor(clip, blank, blank, with_masks=False)
    side = config.sam_square_config.image_size
    square, of_masks = ({"height": edge, "width": edge} for edge in (side, side // 4))
    if config.sam_config.model_type == "sam2":
        return LiteLVLMProcessor(clip, blank, blank, Sam2ImageProcessor(size=square, mask_size=of_masks))
    sam = SamImageProcessor(
        size={"longest_edge": side},
        pad_size=square,
        mask_size={"longest_edge": side // 4},
        mask_pad_size=of_masks,
    )
    return LiteLVLMProcessor(clip, blank, blank, sam)


__all__ = ["ANSWERS", "COMPILED", "STAGES", "TRANSFORMERS", "Benchmark"]
