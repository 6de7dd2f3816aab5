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
"""LiteLVLM as a model of lmms-eval: it answers an image and an expression with masks."""

import json
from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm

from ... import registration  # noqa: F401
from ...data.masks import encode_mask
from ...hub import check_reachable
from ...modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ...modeling.processing_litelvlm import LiteLVLMProcessor
from ...tiny import TINY_MODEL

MANIFEST = ModelManifest("litelvlm", simple_class_path=f"{__name__}.LiteLVLM")


class LiteLVLM(lmms):
    """
    Args:
        pretrained (`str`): folder or Hub id; by default the embedded model.
        device (`str`), dtype (`str`): as lmms-eval gives them.
        pruning_method (`str`), num_retained_tokens (`int`): by default the model's.
    """

    def __init__(
        self,
        pretrained: str = str(TINY_MODEL),
        device: str = "cpu",
        dtype: str = "auto",
        pruning_method: str | None = None,
        num_retained_tokens: int | None = None,
        batch_size: int | str = 1,
        **kwargs: Any,
    ):
        super().__init__()
        if kwargs:
            raise ValueError(
                f"--model_args has {sorted(kwargs)}; allowed are pretrained, device, dtype, pruning_method and "
                "num_retained_tokens."
            )
        check_reachable(pretrained)
        model = LiteLVLMForSegmentation.from_pretrained(pretrained, dtype=dtype)
        self.model = model.to(device or "cpu").eval()
        self.processor = LiteLVLMProcessor.from_pretrained(pretrained, trust_remote_code=False)
        self.choice = {"pruning_method": pruning_method, "num_retained_tokens": num_retained_tokens}

    @torch.inference_mode()
    def generate_until(self, requests: list[Any]) -> list[str]:
        replies = []
        for request in tqdm(requests, desc="LiteLVLM", disable=self.rank != 0):
            text, options, doc_to_visual, doc_id, task, split = request.args
            (image,) = doc_to_visual(self.task_dict[task][split][doc_id])
            inputs = self.processor(image, text).to(self.model.device)
            output = self.model.segment(**inputs, **self.choice, max_new_tokens=options.get("max_new_tokens", 32))
            (masks,) = self.processor.post_process_masks(
                output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )
            replies.append(json.dumps({"masks": [encode_mask(mask) for mask in masks.cpu().numpy()]}))
        return replies

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError("LiteLVLM is asked one question at a time here.")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("LiteLVLM answers with masks here, which have no likelihood.")


__all__ = ["MANIFEST", "LiteLVLM"]
