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
"""Masks through a video: the pruned model answers on some frames, and SAM 2's memory carries its masks through all."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, Sam2VideoModel, Sam2VideoProcessor
from transformers.utils import ModelOutput

from .hub import check_reachable
from .modeling.images_litelvlm import load_rgb
from .modeling.modeling_litelvlm import LiteLVLMForSegmentation
from .modeling.processing_litelvlm import LiteLVLMProcessor
from .reading import MAX_FRAMES, read_video


@dataclass
class VideoSegmentationOutput(ModelOutput):
    """
    What is found in a video of F frames.

    Args:
        masks (`torch.BoolTensor` of shape `(num_masks, F, H, W)`): on the CPU, at the size of the frames; empty where
            an object is not seen. The i-th mask of an answer is taken for the i-th object.
        scores (`torch.FloatTensor` of shape `(num_masks, F)`): mean probability of each mask's pixels; 0 for an empty
            one.
        answers (`list[str]`): of the language model, one for each key frame.
        key_frames (`list[int]`): the frames that it was asked about.
    """

    masks: torch.Tensor = None  # type: ignore[assignment]
    scores: torch.Tensor = None  # type: ignore[assignment]
    answers: list[str] = None  # type: ignore[assignment]
    key_frames: list[int] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shape, answers = tuple(self.masks.shape), self.answers
        return f"{type(self).__name__}(masks={shape}, answers={answers}, key_frames={self.key_frames})"


@torch.no_grad()
def segment_video(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    video: Any,
    text: str,
    *,
    tracker: tuple[Any, Any] | str | os.PathLike | None = None,
    key_frames: int | None = None,
    batch_size: int = 8,
    max_frames: int = MAX_FRAMES,
    **options: Any,
) -> VideoSegmentationOutput:
    """
    Segments what a text names in all frames of a video.

    With a `tracker` the model is asked about the key frames alone, and its masks prompt SAM 2, whose memory finds the
    same objects in the others, forwards and backwards. Without one it is asked about every frame by itself.

    Args:
        model ([`LiteLVLMForSegmentation`]): as for an image.
        processor ([`LiteLVLMProcessor`]): the model's.
        video: a video file, read as by [`read_video`]; or frames of one size, an array or tensor of four dimensions
            or any number of images, each as [`load_rgb`] takes it.
        text (`str`): what to segment.
        tracker (*optional*): Transformers' [`Sam2VideoModel`] and [`Sam2VideoProcessor`] as a pair, or the Hub id or
            folder of both, such as `"facebook/sam2.1-hiera-tiny"`, loaded in its own dtype onto the model's device.
        key_frames (`int`, *optional*): how many frames the model is asked about, evenly spread from the first to the
            last; 1, the first, by default. Only with a tracker.
        batch_size (`int`): frames that the model is asked about at once.
        max_frames (`int`): longer videos are refused.
        options: those of `segment`, such as `num_retained_tokens`, `pruning_method`, `answer` and `max_new_tokens`
            (32 by default).

    Raises:
        ValueError: what cannot be read or is no text, frames that differ in size or are too many, `key_frames` beyond
            the frames or without a tracker, or a tracker that is none.
    """
    if not isinstance(text, str):
        raise ValueError(f"`text` is a {type(text).__name__}; allowed is one text.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}; allowed are numbers of at least 1.")
    frames = _load_frames(video, max_frames)
    asked = _key_frames(len(frames), key_frames, tracker is not None)
    tracking = load_tracker(tracker, model.device)  # before the model works for nothing
    if options.get("answer") is None:
        options = {"max_new_tokens": 32, "do_sample": False} | options
    found: list[list[dict[str, Any]]] = []
    answers: list[str] = []
    for start in range(0, len(asked), batch_size):
        images = [frames[frame] for frame in asked[start : start + batch_size]]
        inputs = processor(images=images, text=[text] * len(images)).to(model.device)
        output = model.segment(**inputs, processor=processor, **options)
        found += processor.post_process_instance_segmentation(output, inputs)
        answers += processor.decode_answers(output, inputs)
    num_masks = max(map(len, found))
    masks = torch.zeros((num_masks, len(frames), *np.shape(frames[0])[:2]), dtype=torch.bool)
    scores = torch.zeros(masks.shape[:2])
    if tracking is None:
        for frame, entries in zip(asked, found, strict=True):
            for i, entry in enumerate(entries):
                masks[i, frame], scores[i, frame] = entry["mask"], entry["score"]
    elif num_masks:
        prompts = [
            {frame: entries[i]["mask"] for frame, entries in zip(asked, found, strict=True) if i < len(entries)}
            for i in range(num_masks)
        ]
        for i, frame, logits in _track(*tracking, frames, prompts):
            inside = logits > 0
            masks[i, frame] = inside
            if inside.any():
                scores[i, frame] = logits.sigmoid()[inside].mean()
    return VideoSegmentationOutput(masks, scores, answers, asked)


def _load_frames(video: Any, max_frames: int) -> list[Image.Image]:
    if isinstance(video, (str, os.PathLike)):
        return read_video(video, max_frames=max_frames)
    if isinstance(video, Image.Image) or not hasattr(video, "__iter__") or getattr(video, "ndim", 4) != 4:
        shape = f" of shape {tuple(video.shape)}" if hasattr(video, "shape") else ""
        raise ValueError(
            f"`video` is a {type(video).__name__}{shape}; allowed are a file, images, or an array (F, H, W, 3)."
        )
    frames = [load_rgb(frame) for frame in islice(video, max_frames + 1)]
    if not 1 <= len(frames) <= max_frames:
        number = len(frames) if not frames else f"more than {max_frames}"
        raise ValueError(f"`video` has {number} frames; allowed are 1 to {max_frames}, or to a larger `max_frames`.")
    if other := next((frame.size for frame in frames if frame.size != frames[0].size), None):
        raise ValueError(f"`video` has frames of {frames[0].size} and of {other} pixels; allowed is one size.")
    return frames


def _key_frames(num_frames: int, number: int | None, is_tracked: bool) -> list[int]:
    """The frames that the model is asked about."""
    if not is_tracked:
        if number is not None:
            raise ValueError(
                f"`key_frames` is {number}, but there is no `tracker` for the frames between them; give one, or leave "
                "`key_frames` out, so that the model is asked about every frame."
            )
        return list(range(num_frames))
    number = 1 if number is None else number
    if not 1 <= number <= num_frames:
        raise ValueError(f"`key_frames` is {number}; allowed are 1 to {num_frames}, the frames of the video.")
    return np.linspace(0, num_frames - 1, number).round().astype(int).tolist()


def load_tracker(tracker: Any, device: torch.device | str) -> tuple[Any, Any] | None:
    """
    A tracker of [`segment_video`] in any of its forms as a pair of model and processor, or `None`.

    Raises:
        ValueError: it is none, or cannot be had.
    """
    if isinstance(tracker, (str, os.PathLike)):
        check_reachable(str(tracker))
        kind = AutoConfig.from_pretrained(tracker).model_type
        if kind != "sam2_video":  # which Transformers would fill with random weights
            raise ValueError(f"`tracker` {str(tracker)!r} is a {kind!r} model; allowed are SAM 2's, 'sam2_video'.")
        model: Any = Sam2VideoModel.from_pretrained(tracker, dtype="auto")
        return model.to(device), Sam2VideoProcessor.from_pretrained(tracker)
    if tracker is not None and not (isinstance(tracker, tuple) and len(tracker) == 2):
        raise ValueError(
            f"`tracker` is a {type(tracker).__name__}; allowed are a pair of Sam2VideoModel and Sam2VideoProcessor, a "
            "folder, or a Hub id."
        )
    return tracker


def _track(
    model: Any, processor: Any, frames: Sequence[Image.Image], prompts: Sequence[dict[int, torch.Tensor]]
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """
    Object, frame, and the mask's logits `(H, W)`, float32 on the CPU, for each object that a mask of `prompts`, by
    frame, shows. Objects do not know of each other, and each is first seen where its first mask is.
    """
    session = processor.init_video_session(
        video=np.stack([np.asarray(frame) for frame in frames]),
        inference_device=model.device,
        processing_device="cpu",
        video_storage_device="cpu",
        dtype=model.dtype,
    )
    size = np.shape(frames[0])[:2]
    for i, masks in enumerate(prompts):
        session.reset_tracking_data()
        shown = [frame for frame, mask in masks.items() if mask.any()]
        for frame in shown:
            processor.add_inputs_to_inference_session(session, frame, obj_ids=i, input_masks=masks[frame])
            model(session, frame_idx=frame)  # a prompt is heeded when its own frame comes next
        if not shown:
            continue
        forwards, backwards = (
            model.propagate_in_video_iterator(session, start_frame_idx=shown[0], reverse=reverse)
            for reverse in (False, True)
        )
        for output in chain(forwards, backwards):
            (logits,) = processor.post_process_masks([output.pred_masks.float()], [size], binarize=False)
            yield i, output.frame_idx, logits[0, 0].cpu()


__all__ = ["VideoSegmentationOutput", "load_tracker", "read_video", "segment_video"]
