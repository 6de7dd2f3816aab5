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
Measures on the embedded model what other precisions, batch sizes and numbers of threads change: the patches that are
kept, the answers and the masks, beside float32 with one question at a time; and the accuracy of each precision with
fewer and fewer visual tokens.

    python scripts/measure_precision.py

Free-running answers, each expression by itself, on scenes that training never saw. Half precision takes minutes on a
CPU that does not multiply it.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
from transformers import TorchAoConfig

from litelvlm import TINY_MODEL, LiteLVLMForSegmentation, LiteLVLMProcessor
from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.evaluation.report import markdown_table

SHARES = (192, 128, 64)  # of 576
SPLITS = ("val", "testA", "testB", "testS")


FOUR_BITS = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
SELECTING = "bfloat16, but what selects"
# Arguments of `from_pretrained`
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    SELECTING: {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "8 bits": {"dtype": torch.float32, "quantization_config": TorchAoConfig(Int8WeightOnlyConfig())},
    "4 bits": {"dtype": torch.float32, "quantization_config": TorchAoConfig(FOUR_BITS)},
}


@dataclass
class Question:
    """An expression, the image that it is about, and the mask that it means, bool of shape `(H, W)`."""

    image: np.ndarray
    text: str
    mask: np.ndarray


@dataclass
class Answer:
    """What the model made of it: patches, token ids, and all masks of the answer as one, bool of shape `(H, W)`."""

    retained: frozenset[int]
    sequence: tuple[int, ...]
    num_masks: int
    mask: np.ndarray


def load(name: str, plain: LiteLVLMForSegmentation) -> LiteLVLMForSegmentation:
    """The embedded model in that precision, beside the one in float32."""
    model = LiteLVLMForSegmentation.from_pretrained(TINY_MODEL, **PRECISIONS[name])
    if name == SELECTING:
        model.model.guide = plain.model.guide
        for part in ("vision_tower", "multi_modal_projector"):
            setattr(model.model.backbone, part, getattr(plain.model.backbone, part))
    return model


def questions(num_images: int, seed: int, size: int) -> list[Question]:
    scenes = [sample for split in SPLITS for sample in RefShapes(split, num_images, size, seed=seed)]
    return [
        Question(scene.image, expression.text, mask)
        for scene in scenes
        for expression, mask in zip(scene.expressions, scene.masks, strict=True)
    ]


@torch.inference_mode()
def ask(
    model: LiteLVLMForSegmentation,
    processor: LiteLVLMProcessor,
    asked: Sequence[Question],
    num_retained_tokens: int | None,
    batch_size: int = 1,
) -> list[Answer]:
    """`num_retained_tokens` is `None` for all."""
    kept: dict[str, Any] = {"num_retained_tokens": num_retained_tokens}
    if num_retained_tokens is None:
        kept = {"pruning_method": "none"}
    parts = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    return [answer for part in parts for answer in _ask(model, processor, part, kept)]


def _ask(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, asked: Sequence[Question], kept: dict[str, Any]
) -> Iterator[Answer]:
    inputs = processor(images=[question.image for question in asked], text=[question.text for question in asked])
    output = model.segment(**inputs, **kept, max_new_tokens=16)
    masks = processor.post_process_masks(output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"])
    answers = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    for i, (ids, own) in enumerate(zip(answers, masks, strict=True)):
        retained = frozenset() if output.retained_indices is None else frozenset(output.retained_indices[i].tolist())
        ids = ids[: ids.index(end)] if end in ids else ids  # what follows is padding
        yield Answer(retained, tuple(ids), len(own), own.any(0).numpy())


def difference(answers: Sequence[Answer], expected: Sequence[Answer]) -> dict[str, str]:
    """Of questions: how many get the same patches, answer and number of masks, and the IoU with the masks expected."""
    pairs = list(zip(answers, expected, strict=True))
    unions = [(got.mask | wanted.mask).sum() for got, wanted in pairs]
    shared = [(got.mask & wanted.mask).sum() for got, wanted in pairs]
    ious = np.array([s / u if u else 1.0 for s, u in zip(shared, unions, strict=True)])
    return {
        "same patches": f"{100 * np.mean([got.retained == wanted.retained for got, wanted in pairs]):.0f} %",
        "same answer": f"{100 * np.mean([got.sequence == wanted.sequence for got, wanted in pairs]):.0f} %",
        "as many masks": f"{100 * np.mean([got.num_masks == wanted.num_masks for got, wanted in pairs]):.0f} %",
        "IoU of masks, mean": f"{ious.mean():.3f}",
        "IoU, lowest tenth": f"{np.quantile(ious, 0.1):.3f}",
    }


def accuracy(answers: Sequence[Answer], asked: Sequence[Question]) -> str:
    iou = CumulativeIoU()
    for answer, question in zip(answers, asked, strict=True):
        iou.update(answer.mask[None], question.mask[None])
    return f"{100 * iou.ciou:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5, help="scenes per split (default: 5)")
    parser.add_argument("--seed", type=int, default=1234, help="another seed, other scenes")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), metavar="NAME")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    processor = LiteLVLMProcessor.from_pretrained(TINY_MODEL)
    plain = LiteLVLMForSegmentation.from_pretrained(TINY_MODEL, **PRECISIONS["float32"])
    config = plain.config
    asked = questions(options.images, options.seed, 2 * config.vision_config.image_size)
    budgets = [None, *(round(share * config.num_patches / 576) for share in SHARES)]
    expected = {budget: ask(plain, processor, asked, budget) for budget in budgets}
    lines = []
    for name in options.precisions:
        model = load(name, plain)
        for budget in budgets:
            answers = ask(model, processor, asked, budget)
            line = {"precision": name, "visual tokens": budget or "all", "cIoU": accuracy(answers, asked)}
            lines.append(line | difference(answers, expected[budget]))
            print(lines[-1], flush=True)
    third = budgets[1]
    others = []
    for batch_size, num_threads in ((1, 1), (1, 2), (2, 2), (8, 2)):
        torch.set_num_threads(num_threads)
        answers = ask(plain, processor, asked, third, batch_size)
        others.append({"batch": batch_size, "threads": num_threads} | difference(answers, expected[third]))
    report = f"""# Other precisions, batches and threads

    python {shlex.join(sys.argv)}

The embedded model on {len(asked)} expressions, those of {options.images} scenes of each of {", ".join(SPLITS)}
(seed {options.seed}), answered freely. Each line is compared with float32, one question at a time,
with as many visual tokens. 8 and 4 bits are torchao's weights of the language model (a scale for each row,
and for each 32 weights); CLIP, guide and SAM stay in float32. Of "{SELECTING}", CLIP, guide and projector do.

{markdown_table(lines)}

In float32 with {third} visual tokens:

{markdown_table(others)}
"""
    if options.table:
        options.table.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
