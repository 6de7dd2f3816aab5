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
Follows the similarity reversal through the layers of a CLIP, on RefShapes, for the question that the guide reads and
for the bare expression: AUROC of minus similarity as a detector of the named object's patches (0.5 is chance, above it
is the paper's finding), and the share of these patches among the lowest and the highest third.

    python scripts/tiny/trace_reversal.py [--model FOLDER] [--split val testA testB]

It is `litelvlm diagnose` once for each layer. Over training the figure stands in the log of the stage "clip".
"""

import argparse

import numpy as np

from litelvlm import TINY_MODEL
from litelvlm.data.refshapes import RefShapes
from litelvlm.data.registry import refshapes_entries
from litelvlm.evaluation.clip import load_clip
from litelvlm.evaluation.measure import read_masks
from litelvlm.evaluation.runs import Run
from litelvlm.evaluation.similarity import diagnose_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(TINY_MODEL), help="folder of a model or of a CLIP of Transformers")
    parser.add_argument("--split", nargs="+", default=["val", "testA", "testB"], help="of RefShapes")
    parser.add_argument("--images", type=int, default=60, help="scenes per split")
    parser.add_argument("--seed", type=int, default=1234, help="another seed, other scenes")
    options = parser.parse_args()
    model, processor = load_clip(options.model)
    third = round(model.config.num_patches / 3)
    runs = [Run("generation", "litelvlm", third)]
    layers = model.config.backbone_config.vision_config.num_hidden_layers
    forms = {"question": processor.question_template, "expression": "{}"}
    print("| split | layer |" + "".join(f" {form}: AUROC | lowest {third} | highest {third} |" for form in forms))
    print("| --- | --- |" + " --- | --- | --- |" * len(forms))
    for split in options.split:
        images = []
        for entry in refshapes_entries(RefShapes(split, options.images, seed=options.seed)):
            image, asked, _ = read_masks(entry, skip_broken=False)
            images.append((entry.id, image, [(e, mask) for e, mask in asked if mask is not None]))
        for layer in range(-layers, 0):
            model.config.backbone_config.vision_feature_layer = layer
            cells = []
            for template in forms.values():
                processor.question_template = template
                found = [
                    one.figures
                    for key, image, asked in images
                    if asked
                    for one in diagnose_image(model, processor, key, image, asked, runs)
                ]
                for name in ("auroc", f"lowest_{third}", f"highest_{third}"):
                    cells.append(f"{np.mean([figures[name] for figures in found]):.2f}")
            print(f"| {split} | {layer} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
