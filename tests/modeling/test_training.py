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
"""Losses in training: of pruned prompts, of steps that are split, and as Transformers' `Trainer` looks for them."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

IMAGE_ID, SEG_ID = 90, 91
# By sample: how many of the last tokens are the answer, and how many of these are [SEG]
ANSWERS = [(4, 1), (8, 2), (5, 0), (6, 1)]


@pytest.fixture
def samples(make_batch):
    """Four samples whose answers differ in length and in their number of masks."""
    batch = make_batch(4)
    generator = torch.Generator().manual_seed(1)
    samples = []
    for i, (length, num_masks) in enumerate(ANSWERS):
        sample = {name: values[i] for name, values in batch.items()}
        for k in range(num_masks):
            sample["input_ids"][-2 - 2 * k] = SEG_ID
        sample["labels"] = sample["input_ids"].clone()
        sample["labels"][:-length] = -100
        sample["mask_labels"] = (torch.rand(num_masks, 16, 16, generator=generator) > 0.5).float()
        samples.append(sample)
    return samples


def collate(samples):
    batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0] if name != "mask_labels"}
    return batch | ({"mask_labels": [s["mask_labels"] for s in samples]} if "mask_labels" in samples[0] else {})


def gradients_of(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class KeepsGradients(Trainer):
    """Takes the gradients of the first step, in place of learning from them."""

    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        self.optimizer.register_step_pre_hook(lambda *_: setattr(self, "gradients", gradients_of(self.model)))
        return self.optimizer


def trainer_of(model, samples, tmp_path, **options):
    arguments = TrainingArguments(
        tmp_path,
        use_cpu=True,
        max_steps=1,
        max_grad_norm=0.0,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    return KeepsGradients(model, arguments, collate, train_dataset=samples, eval_dataset=samples)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_steps_gradient_depends_on_its_samples_and_not_on_how_they_are_split(
    make_model, samples, tmp_path, batch_size
):
    gradients = []
    for size in (4, batch_size):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        trainer = trainer_of(make_model().eval(), samples, tmp_path, **options)
        trainer.train()
        gradients.append(trainer.gradients)
    assert gradients[0].keys() == gradients[1].keys()
    assert any(name.startswith("sam.") for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[0, 1, 2], [3]]])
def test_a_batch_adds_its_share_of_the_step_to_the_loss(make_model, samples, parts):
    """What Transformers asks of a model, for one process and for several, whose losses it averages and scales back."""
    model = make_model()
    num_items = sum(length for length, _ in ANSWERS)
    with torch.no_grad():
        whole = model(**collate(samples), num_items_in_batch=torch.tensor(num_items))
        split = [model(**collate([samples[i] for i in part]), num_items_in_batch=num_items) for part in parts]
    for name in ("loss", "ce_loss", "bce_loss", "dice_loss"):
        torch.testing.assert_close(sum(output[name] for output in split), whole[name], msg=name)


@pytest.mark.parametrize("name", ["labels", "mask_labels"])
def test_trainer_finds_a_loss_with_and_without_labels_of_masks(make_model, samples, tmp_path, name):
    if name == "labels":
        samples = [{name: value for name, value in sample.items() if name != "mask_labels"} for sample in samples]
    metrics = trainer_of(make_model(), samples, tmp_path).evaluate()
    with torch.no_grad():
        expected = make_model()(**collate(samples), num_items_in_batch=sum(length for length, _ in ANSWERS)).loss
    assert metrics["eval_loss"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("method", ["litelvlm", "none", "fastv"])
def test_labels_may_stand_where_they_are_predicted(make_model, samples, method):
    """Also where the first token behind the image has a label, which the last visual token that is kept predicts."""
    model, batch = make_model(pruning_method=method), collate(samples)
    batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] == IMAGE_ID, -100)
    shifted = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    with torch.no_grad():
        expected = model(**batch).ce_loss
        torch.testing.assert_close(model(**batch, shift_labels=shifted).ce_loss, expected)
        del batch["labels"]
        torch.testing.assert_close(model(**batch, shift_labels=shifted).ce_loss, expected)
