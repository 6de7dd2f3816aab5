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
"""The embedded model and the command line: right masks on shapes, and one clear line for what is wrong."""

import os

import torch
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

import litelvlm
from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU


def test_unpruned_quality_holds_on_scenes_never_seen(embedded):
    """A guard below the value measured on these scenes, 0.86: it catches broken weights, not small changes."""
    model, processor = embedded
    scenes, metric = RefShapes("val", 24, size=256, seed=4321), CumulativeIoU()
    for sample in (scenes[i] for i in range(24)):
        inputs = processor(sample.image, sample.expressions[0].text)
        output = model.segment(**inputs, pruning_method="none", max_new_tokens=16)
        sizes = (inputs["original_sizes"], inputs["reshaped_input_sizes"])
        (masks,) = processor.post_process_masks(output.pred_masks, *sizes)
        metric.update(masks.numpy(), sample.masks[:1])
    assert metric.ciou > 0.78


def test_batch_of_four_gives_the_masks_of_four_single_calls(embedded):
    """Logits agree to 1e-3 (padding changes the order of sums), so masks agree but for pixels at the threshold."""
    model, processor = embedded
    samples = [RefShapes("val", 9, size=128 + 32 * i, seed=9)[i] for i in range(4)]
    texts = [sample.expressions[0].text for sample in samples]
    batch = processor([s.image for s in samples], texts)
    together = model.segment(**batch, max_new_tokens=16)
    for i, sample in enumerate(samples):
        inputs = processor(sample.image, texts[i])
        alone = model.segment(**inputs, max_new_tokens=16)
        answer = alone.sequences[0, inputs["input_ids"].shape[1] :]
        start = batch["input_ids"].shape[1]
        assert torch.equal(answer, together.sequences[i, start : start + len(answer)])
        assert torch.equal(alone.retained_indices[0], together.retained_indices[i])
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[i], atol=1e-3, rtol=1e-3)


def test_installed_package_serves_transformers_auto_classes_without_remote_code():
    folder = litelvlm.TINY_MODEL
    model = AutoModel.from_pretrained(folder)
    assert type(model) is litelvlm.LiteLVLMForSegmentation
    assert type(AutoModelForImageTextToText.from_pretrained(folder)) is type(model)
    assert type(AutoProcessor.from_pretrained(folder)) is litelvlm.LiteLVLMProcessor
    pipe = pipeline(model=str(folder), pipeline_class=litelvlm.ReferringSegmentationPipeline)
    assert pipe.task == "referring-segmentation"
    (entry,) = pipe(litelvlm.EXAMPLE_IMAGE, "the red circle")
    assert entry["mask"].size == Image.open(litelvlm.EXAMPLE_IMAGE).size and 0.5 < entry["score"] <= 1


def test_checkpoint_is_small_and_laid_out_like_any_other():
    files = {path.name: path for path in litelvlm.TINY_MODEL.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "chat_template.jinja"} <= files.keys()
    assert os.path.getsize(files["model.safetensors"]) < 20e6
