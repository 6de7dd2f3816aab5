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
Teaches the embedded model names of colours that it has never read, by Transformers' Trainer and LoRA of PEFT:

    pip install "litelvlm[finetune]"
    python scripts/finetune.py --output runs/finetuned
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, Trainer, TrainingArguments, set_seed

import litelvlm
from litelvlm.data.refshapes import RefShapes
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.training import SegmentationCollator

NAMES = {
    "red": "crimson",
    "green": "emerald",
    "blue": "azure",
    "yellow": "golden",
    "purple": "violet",
    "orange": "amber",
    "cyan": "turquoise",
    "pink": "rosy",
    "white": "ivory",
    "black": "ebony",
}
# The language model alone: CLIP has layers of the same names
LINEAR_LAYERS = r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj"


class Examples:
    """One expression with a colour of each scene of a split of RefShapes, as [`SegmentationCollator`] takes it."""

    def __init__(self, split: str, length: int, renamed: bool = True):
        self.scenes, self.found, self.renamed = RefShapes(split, 10 * length, size=256), [], renamed
        for index in range(len(self.scenes)):
            texts = [expression.text for expression in self.scenes[index].expressions]
            self.found += [(index, i) for i, text in enumerate(texts) if set(text.split()) & set(NAMES)][:1]
            if len(self.found) == length:
                break

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> dict[str, Any]:
        index, number = self.found[i]
        sample = self.scenes[index]
        words = sample.expressions[number].text.split()
        text = " ".join(NAMES.get(word, word) for word in words) if self.renamed else " ".join(words)
        return {"image": sample.image, "text": text, "masks": sample.masks[number : number + 1]}


@torch.inference_mode()
def measure(model: Any, processor: Any, examples: Examples, batch_size: int = 10) -> float:
    """cIoU of a mask for each example, with the answer as given."""
    metric, collator = CumulativeIoU(), SegmentationCollator(processor)
    model.eval()
    for start in range(0, len(examples), batch_size):
        asked = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
        inputs = processor([one["image"] for one in asked], [one["text"] for one in asked])
        output = model.segment(**inputs.to(model.device), answer=collator.answer, processor=processor)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        for masks, one in zip(processor.post_process_masks(output.pred_masks, *sizes), asked, strict=True):
            metric.update(masks.cpu().numpy(), np.asarray(one["masks"]))
    return metric.ciou


def build_trainer(
    model: Any, processor: Any, train: Examples, held_out: Examples, options: argparse.Namespace
) -> Trainer:
    """A Trainer of LoRA in the language model; the head that makes mask embeddings learns in full."""
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR_LAYERS, modules_to_save=["seg_head"])
    arguments = TrainingArguments(
        options.output / "trainer",
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(10, options.steps // 2),
        gradient_checkpointing=options.gradient_checkpointing,
        logging_steps=max(1, options.steps // 10),
        save_strategy="no",
        prediction_loss_only=True,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=options.device == "cpu",
    )
    return Trainer(
        get_peft_model(model, lora),
        arguments,
        SegmentationCollator(processor),
        train_dataset=train,
        eval_dataset=held_out,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the merged model")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--scenes", type=int, default=2000, help="to learn from")
    parser.add_argument("--held-out", type=int, default=60, help="scenes to measure on")
    parser.add_argument("--method", default="litelvlm", help="pruning method while training and measuring")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--device", default="cpu", help="cpu, or auto for the accelerator where there is one")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    set_seed(0)
    model, processor = litelvlm.load_tiny(pruning_method=options.method)
    held_out, known = (Examples("testA", options.held_out, renamed) for renamed in (True, False))
    trainer = build_trainer(model, processor, Examples("trainA", options.scenes), held_out, options)
    print(f"before: loss {trainer.evaluate()['eval_loss']:.3f}", flush=True)
    for name, examples in (("names it knows", known), ("new names", held_out)):
        print(f"before: cIoU {measure(trainer.model, processor, examples):.3f}, {name}", flush=True)
    trainer.train()
    print(f"after: loss {trainer.evaluate()['eval_loss']:.3f}", flush=True)
    trainer.model.merge_and_unload().save_pretrained(options.output)
    processor.save_pretrained(options.output)
    # The folder brings its own code
    tuned = AutoModel.from_pretrained(options.output, trust_remote_code=True)
    for name, examples in (("names it knows", known), ("new names", held_out)):
        print(f"after: cIoU {measure(tuned, processor, examples):.3f}, {name}", flush=True)


if __name__ == "__main__":
    main()
