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
"""Fine-tuning by LoRA: the loss falls, merging changes nothing, and what is saved loads by itself."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from litelvlm.data.refshapes import RefShapes
from litelvlm.training import SegmentationCollator

SCRIPT = Path(__file__).parents[2] / "scripts" / "finetune.py"


@pytest.fixture(scope="module")
def finetune():
    spec = importlib.util.spec_from_file_location("finetune", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def examples():
    """Two scenes of 64 pixels, one of them asked for what is not there."""
    scenes = RefShapes("testA", 2, size=64)
    found = [{"image": s.image, "text": s.expressions[0].text, "masks": s.masks[:1]} for s in (scenes[0], scenes[1])]
    return [found[0], found[1] | {"answer": "There is none.", "masks": np.zeros((0, 64, 64))}]


@pytest.fixture
def make_trainer(finetune, make_text_model, processor, examples, tmp_path):
    def make(method="litelvlm", *flags):
        model = make_text_model(pruning_method=method)
        values = ["--output", str(tmp_path / "tuned"), "--steps", "8", "--batch-size", "2", "--learning-rate", "1e-2"]
        options = finetune.build_parser().parse_args([*values, *flags])
        return finetune.build_trainer(model, processor, examples, examples, options)

    return make


def test_a_batch_has_labels_of_text_and_masks(processor, examples):
    batch = SegmentationCollator(processor, answer="Sure, [SEG].")(examples)
    answers = processor.tokenizer.batch_decode([ids[ids != -100] for ids in batch["labels"]])
    assert "Sure, [SEG]." in answers[0] and "There is none." in answers[1]
    assert [len(masks) for masks in batch["mask_labels"]] == [1, 0]
    turns = {**examples[0], "text": ["one", "two"], "masks": np.zeros((2, 64, 64))}
    batch = SegmentationCollator(processor)([turns])
    assert len(batch["labels"]) == 1 and [len(masks) for masks in batch["mask_labels"]] == [2]


@pytest.mark.parametrize("method", ["litelvlm", "none"])
def test_the_loss_falls_with_gradients_checkpointed_or_not_and_merging_changes_nothing(
    make_trainer, processor, examples, method, tmp_path
):
    losses = {}
    for flags in ((), ("--gradient-checkpointing",)):
        trainer = make_trainer(method, *flags)
        learnt = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert all("language_model" in name or "seg_head" in name for name in learnt)
        before = trainer.evaluate()["eval_loss"]
        trainer.train()
        losses[flags] = trainer.evaluate()["eval_loss"]
        assert losses[flags] < 0.9 * before
    assert losses[()] == pytest.approx(losses[("--gradient-checkpointing",)], rel=1e-3)

    tuned = trainer.model.eval()
    inputs = processor(examples[0]["image"], examples[0]["text"])
    with torch.inference_mode():
        expected = tuned.segment(**inputs, answer="It is [SEG].", processor=processor)
        merged = tuned.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        loaded = AutoModel.from_pretrained(tmp_path / "merged", trust_remote_code=True)
        for model in (merged, loaded):
            output = model.segment(**inputs, answer="It is [SEG].", processor=processor)
            torch.testing.assert_close(output.pred_masks[0], expected.pred_masks[0], atol=1e-3, rtol=1e-3)


def test_examples_are_asked_by_names_that_the_model_never_read(finetune):
    new, known = (finetune.Examples("testA", 3, renamed) for renamed in (True, False))
    assert len(new) == len(known) == 3
    for one, other in zip(new, known, strict=True):
        words = one["text"].split()
        assert set(words) & set(finetune.NAMES.values()) and not set(words) & set(finetune.NAMES)
        assert set(other["text"].split()) & set(finetune.NAMES) and len(words) == len(other["text"].split())
        assert one["masks"].shape == (1, 256, 256) and one["masks"].any()
