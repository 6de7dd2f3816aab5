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
Prints how well the embedded model grounds RefShapes: free-running answers, one expression a conversation.

    python scripts/evaluate_embedded.py --splits val testA testB --images 200 --seed 1234

Any seed gives scenes that the model has never seen, as training has splits of its own. Budgets are the shares of
visual tokens that the paper keeps: all, 192, 128 and 64 of 576.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from litelvlm import EMBEDDED_MODEL, LiteLVLMForSegmentation, LiteLVLMProcessor
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.evaluation.refshapes import SPLITS, RefShapes, Sample
from litelvlm.hub_cards.cards import results_table

BUDGETS = {"576": 1.0, "192": 1 / 3, "128": 2 / 9, "64": 1 / 9}


def evaluate(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, samples: list[Sample], budget: int | None, rows: int
) -> CumulativeIoU:
    """Metrics over every expression of the samples, `rows` at a time; `budget` None keeps all visual tokens."""
    pairs = [(s, i) for s in samples for i in range(len(s.expressions))]
    metric = CumulativeIoU()
    choice = {"pruning_method": "none"} if budget is None else {"num_retained_tokens": budget}
    for start in tqdm(range(0, len(pairs), rows), leave=False, desc=f"budget {budget}"):
        part = pairs[start : start + rows]
        inputs = processor(images=[s.image for s, _ in part], text=[s.expressions[i].text for s, i in part])
        output = model.segment(**inputs.to(model.device), max_new_tokens=16, **choice)
        for masks, (sample, i) in zip(processor.post_process_masks(output, inputs), part, strict=True):
            metric.update(masks.cpu().numpy(), sample.masks[i : i + 1])
    return metric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="folder of the model")
    parser.add_argument("--splits", nargs="+", default=["val", "testA", "testB"], choices=list(SPLITS))
    parser.add_argument("--images", type=int, default=200, help="scenes per split")
    parser.add_argument("--seed", type=int, default=1234, help="of the scenes")
    parser.add_argument("--batch-size", type=int, default=32, help="expressions per forward pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file whose `rows` to replace: the figures of the model card")
    options = parser.parse_args()
    model = LiteLVLMForSegmentation.from_pretrained(options.model).to(options.device)
    processor = LiteLVLMProcessor.from_pretrained(options.model)
    patches, size = model.config.num_patches, 2 * model.config.backbone_config.vision_config.image_size

    rows: list[dict[str, Any]] = []
    for split in options.splits:
        scenes = RefShapes(split, options.images, size, options.seed)
        samples = [scenes[i] for i in range(len(scenes))]
        for name, share in BUDGETS.items():
            budget = None if share == 1 else round(patches * share)
            metric = evaluate(model, processor, samples, budget, options.batch_size)
            figures = {"ciou": round(100 * metric.ciou, 2), "giou": round(100 * metric.giou, 2)}
            kept = {"split": split, "retained": budget or patches, "patches": patches, "share": name}
            rows.append(kept | figures | {"expressions": len(metric.per_mask)})
    print(results_table(rows))
    if options.output:
        known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
        options.output.write_text(json.dumps(known | {"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
