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
Trains `litelvlm-tiny` from scratch on RefShapes: first CLIP, then the rest with CLIP frozen.

    python scripts/train_embedded.py clip --output runs/tiny
    python scripts/train_embedded.py lvlm --output runs/tiny

Each stage goes on from its last checkpoint in the output folder, to the step and without showing a scene twice, and
logs its losses to a CSV file there.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from embedded_recipe import (
    ANSWERS,
    IMAGE_SIZE,
    PATCH_SIZE,
    QUESTIONS,
    build_guide_tokenizer,
    build_processor,
    build_tokenizer,
    clip_config,
    corpus,
    lvlm_config,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPModel, GenerationConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.evaluation.refshapes import (
    ATTRIBUTES,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    RefObject,
    RefShapes,
    Sample,
    caption,
    describe,
)
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

CLIP_MEAN, CLIP_STD = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))


class Collated(Dataset):
    """Whole batches by step, so that a resumed run continues with scenes it has not seen."""

    def __init__(self, scenes: RefShapes, batch_size: int, first: int, last: int, collate: Callable[..., Any]):
        self.scenes, self.batch_size, self.first, self.last, self.collate = scenes, batch_size, first, last, collate

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Any:
        start = (self.first + index) * self.batch_size
        samples = [self.scenes[i] for i in range(start, start + self.batch_size)]
        return self.collate(samples, np.random.default_rng([self.scenes.seed, start]))


def run(
    name: str,
    model: nn.Module,
    step_losses: Callable[[nn.Module, Any], dict[str, torch.Tensor]],
    scenes: RefShapes,
    collate: Callable[..., Any],
    evaluate: Callable[[nn.Module], dict[str, float]],
    options: argparse.Namespace,
) -> nn.Module:
    """The loop of every stage: cosine schedule, checkpoints, log, time limit. `step_losses` gives "loss" and parts."""
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    folder = options.output / name
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / options.warmup,
            0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(step / options.steps, 1))),
        ),
    )
    first, checkpoint = 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["step"]
    data = Collated(scenes, options.batch_size, first, options.steps, collate)
    loader: Iterator[Any] = DataLoader(data, batch_size=None, num_workers=options.workers, persistent_workers=False)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    def save(step: int) -> None:
        state = {"model": accelerator.unwrap_model(model).state_dict(), "step": step}
        state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state, folder / "checkpoint.tmp")
        (folder / "checkpoint.tmp").replace(checkpoint)  # a killed run leaves the old one whole

    started, running, step = time.time(), {}, first
    with open(folder / "log.csv", "a", newline="") as file:
        log = csv.writer(file)
        progress = tqdm(loader, initial=first, total=options.steps, desc=name, mininterval=10)
        for step, batch in enumerate(progress, start=first + 1):
            model.train()
            losses = step_losses(model, batch)
            optimizer.zero_grad()
            accelerator.backward(losses["loss"])
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            for key, value in losses.items():
                running[key] = 0.95 * running.get(key, value.item()) + 0.05 * value.item()
            out_of_time = time.time() - started > 60 * options.time_limit
            if step % options.every == 0 or step == options.steps or out_of_time:
                model.eval()
                with torch.no_grad():
                    figures = running | evaluate(accelerator.unwrap_model(model))
                if file.tell() == 0:
                    log.writerow(["step", "seconds", *figures])
                log.writerow([step, round(time.time() - started), *(f"{value:.4f}" for value in figures.values())])
                file.flush()
                progress.write(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
                save(step)
            if out_of_time and step < options.steps:
                raise SystemExit(f"{name}: stopped by the time limit at step {step}; run again to go on")
    return accelerator.unwrap_model(model).eval()


def images_to_tensor(samples: list[Sample]) -> torch.Tensor:
    """Values from 0 to 1, shape `(batch, 3, size, size)`."""
    return torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float() / 255


# --- stage 1: CLIP ---------------------------------------------------------------------------------------------------


def hard_negative(rng: np.random.Generator, objects: tuple[RefObject, ...]) -> tuple[RefObject, ...]:
    """The scene with two objects' colours (or shapes) exchanged, or one changed: only reading the text tells."""
    changed = list(objects)
    name = str(rng.choice(["colour", "shape"]))
    i, j = (int(k) for k in rng.choice(len(changed), 2, replace=False))
    one, two = getattr(changed[i], name), getattr(changed[j], name)
    if one == two:
        two = str(rng.choice([v for v in (COLOURS if name == "colour" else SHAPES) if v != one]))
    changed[i], changed[j] = replace(changed[i], **{name: two}), replace(changed[j], **{name: one})
    return tuple(changed)


def clip_collate(tokenizer: Any) -> Callable[..., dict[str, torch.Tensor]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        texts, negatives = [], []
        for i, sample in enumerate(samples):
            wrong = hard_negative(rng, sample.objects)
            if i % 2:
                texts.append(caption(rng, sample.objects))
                negatives.append(caption(rng, wrong))
            else:
                k = int(rng.integers(len(sample.objects)))
                texts.append(describe(rng, sample.objects[k]))
                # A single description is wrong only if no object of the scene fits it: take another scene's
                negatives.append(caption(rng, wrong))
        tokens = tokenizer(texts + negatives, padding=True, truncation=True, return_tensors="pt")
        pixels = (images_to_tensor(samples) - CLIP_MEAN) / CLIP_STD
        return {"pixel_values": pixels, **tokens}

    return collate


def clip_losses(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Symmetric InfoNCE; each image also has the negatives' captions to tell from its own."""
    output = model(**batch)
    logits = output.logits_per_image  # [B, 2B]
    target = torch.arange(len(logits), device=logits.device)
    texts = logits[:, : len(logits)].T
    loss = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(texts, target)) / 2
    return {"loss": loss, "accuracy": (logits.argmax(-1) == target).float().mean()}


def reversal(model: CLIPModel, tokenizer: Any, scenes: RefShapes, batch_size: int = 64) -> dict[str, float]:
    """AUROC of patch-text similarity (layer -2) as a detector of the named object's patches; 0.5 is chance."""
    values = []
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        pixels = (images_to_tensor(samples) - CLIP_MEAN) / CLIP_STD
        texts = [f"a {s.expressions[0].text.removeprefix('the ')}" for s in samples]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        device = model.logit_scale.device
        hidden = model.vision_model(pixels.to(device), output_hidden_states=True).hidden_states[-2][:, 1:]
        patches = model.visual_projection(model.vision_model.post_layernorm(hidden))
        embeds = model.text_projection(model.text_model(**tokens.to(device)).pooler_output)
        similarity = (patches @ embeds[..., None])[..., 0].cpu()
        masks = torch.from_numpy(np.stack([s.masks[0] for s in samples])).float()[:, None]
        covered = nn.functional.avg_pool2d(masks, PATCH_SIZE).flatten(1)
        for row, cover in zip(similarity, covered, strict=True):
            inside, outside = row[cover > 0.5], row[cover == 0]
            if len(inside):
                values.append((inside[:, None] > outside).float().mean().item())
    return {"auroc_of_similarity": float(np.mean(values))}


def train_clip(options: argparse.Namespace) -> None:
    texts = corpus()
    guide_tokenizer, tokenizer = build_guide_tokenizer(texts), build_tokenizer(texts)
    guide_tokenizer.save_pretrained(options.output / "guide_tokenizer")
    tokenizer.save_pretrained(options.output / "tokenizer")
    torch.manual_seed(options.seed)
    scenes = RefShapes("train", 10**9, IMAGE_SIZE, options.seed, num_objects=(2, 4))
    watched = RefShapes("testA", 128, IMAGE_SIZE, num_objects=(2, 4))
    model = run(
        "clip",
        CLIPModel(clip_config(guide_tokenizer)),
        clip_losses,
        scenes,
        clip_collate(guide_tokenizer),
        lambda clip: reversal(clip, guide_tokenizer, watched),
        options,
    )
    model.save_pretrained(options.output / "clip" / "final")


# --- stage 2: the LVLM around the frozen CLIP ------------------------------------------------------------------------


ATTRIBUTE_VALUES = tuple(map(list, (SIZES, TEXTURES, COLOURS, SHAPES)))  # in the order of ATTRIBUTES
PROBE_WEIGHT = 1.0


def referent(thing: RefObject) -> list[float]:
    """Indices of the attributes' values, then the centre and ten times the radius."""
    values = zip(ATTRIBUTES, ATTRIBUTE_VALUES, strict=True)
    return [*(known.index(getattr(thing, name)) for name, known in values), *thing.centre, 10 * thing.radius]


def language_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        inputs = processor(text=questions, answers=answers, question_template="{}")
        said = []
        for sample in samples:
            for e in sample.expressions:
                thing, words = sample.objects[e.target], e.text.split()
                values = zip(ATTRIBUTES, ATTRIBUTE_VALUES, strict=True)
                said.append([v.index(getattr(thing, n)) if getattr(thing, n) in words else -100 for n, v in values])
        return {**inputs, "said": torch.tensor(said)}

    return collate


def mask_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        maps = [s.masks for s in samples]
        inputs = processor(text=questions, answers=answers, question_template="{}", segmentation_maps=maps)
        pictures = processor.mask_image_processor([s.image for s in samples], return_tensors="pt")
        return {**inputs, "mask_pixel_values": pictures["pixel_values"]}

    return collate


def conversations(samples: list[Sample], rng: np.random.Generator) -> tuple[list[list[str]], list[list[str]]]:
    """Questions and answers of each sample in random forms."""
    questions = [[str(rng.choice(QUESTIONS)).format(e.text) for e in s.expressions] for s in samples]
    return questions, [[str(rng.choice(ANSWERS)) for _ in s.expressions] for s in samples]


def lvlm_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        inputs = processor(
            images=[s.image for s in samples],
            text=questions,
            answers=answers,
            segmentation_maps=[s.masks for s in samples],
            question_template="{}",
        )
        referents = [referent(s.objects[e.target]) for s in samples for e in s.expressions]
        return {**inputs, "referents": torch.tensor(referents)}

    return collate


class WithReferents(nn.Module):
    """
    The model and a linear probe that reads the referent's attributes and place from a mask embedding. Its loss teaches
    the language model to find the referent long before masks alone would; the probe is thrown away.
    """

    def __init__(self, lvlm: LiteLVLMForSegmentation):
        super().__init__()
        self.lvlm = lvlm
        self.probe = nn.Linear(lvlm.config.mask_embedding_size, sum(map(len, ATTRIBUTE_VALUES)) + 3)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        batch = dict(batch)
        referents = batch.pop("referents")
        # The method is training-free: the model never sees a pruned picture
        output = self.lvlm(**batch, pruning_method="none")
        *logits, place = self.probe(torch.cat(output.seg_embeddings)).split([*map(len, ATTRIBUTE_VALUES), 3], dim=-1)
        probe_loss = 3 * nn.functional.mse_loss(place.float(), referents[:, -3:])
        for i, attribute_logits in enumerate(logits):
            probe_loss = probe_loss + 0.25 * nn.functional.cross_entropy(attribute_logits, referents[:, i].long())
        losses = {name: output[name] for name in ("ce_loss", "bce_loss", "dice_loss")}
        return {"loss": output.loss + PROBE_WEIGHT * probe_loss, **losses, "probe_loss": probe_loss}

    def read(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same without pictures: the probe reads what the question itself says of the referent."""
        said = batch["said"]
        names = ("input_ids", "attention_mask", "labels")
        output = self.lvlm(**{name: batch[name] for name in names})
        is_seg = nn.functional.pad(batch["input_ids"][:, 1:] == self.lvlm.config.seg_token_id, (0, 1))
        embeddings = self.lvlm.seg_head(output.last_hidden_state[is_seg])
        *logits, _ = self.probe(embeddings).split([*map(len, ATTRIBUTE_VALUES), 3], dim=-1)
        parts = [
            nn.functional.cross_entropy(logit, said[:, i], ignore_index=-100, reduction="sum") / max(len(said), 1)
            for i, logit in enumerate(logits)
        ]
        probe_loss = torch.stack(parts).sum()
        return {"loss": output.ce_loss + probe_loss, "ce_loss": output.ce_loss, "probe_loss": probe_loss}

    def point(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Masks for questions that name their referent's attributes, which the mask decoder alone can see."""
        names = ("input_ids", "attention_mask", "labels", "mask_pixel_values", "mask_labels")
        output = self.lvlm(**{name: batch[name] for name in names})
        return {name: output[name] for name in ("loss", "ce_loss", "bce_loss", "dice_loss")}


def teacher_forced_ciou(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, scenes: RefShapes, batch_size: int = 32
) -> dict[str, float]:
    """cIoU at the picture's size, un-pruned."""
    collate, iou = lvlm_collate(processor), CumulativeIoU()
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        batch = collate(samples, np.random.default_rng(start))
        batch.pop("referents")
        on_device = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        masks = processor.post_process_masks(model(**on_device, pruning_method="none"), batch)
        for predicted, sample in zip(masks, samples, strict=True):
            iou.update(predicted.cpu().numpy(), sample.masks)
    return {f"{scenes.split}_ciou": iou.ciou}


def train_lvlm(options: argparse.Namespace) -> None:
    tokenizer, guide_tokenizer = (
        AutoTokenizer.from_pretrained(options.output / name) for name in ("tokenizer", "guide_tokenizer")
    )
    clip = CLIPModel.from_pretrained(options.output / "clip" / "final")
    processor = build_processor(tokenizer, guide_tokenizer)
    torch.manual_seed(options.seed)
    model = LiteLVLMForSegmentation(lvlm_config(clip.config, tokenizer))
    model.model.backbone.vision_tower.load_state_dict(clip.vision_model.state_dict())
    guide = model.model.guide
    guide.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    guide.text_model.text_model.load_state_dict(clip.text_model.state_dict())
    guide.text_model.text_projection.load_state_dict(clip.text_projection.state_dict())
    for frozen in (model.model.backbone.vision_tower, guide):
        frozen.requires_grad_(False)
    # Random features that encode places are not trained in SAM either
    model.mask_decoder.sam.shared_image_embedding.requires_grad_(False)
    generation = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**generation, pad_token_id=tokenizer.pad_token_id, max_new_tokens=32)
    # Words must stand out against what attention adds from some hundred visual tokens
    nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    scenes = RefShapes("train", 10**9, IMAGE_SIZE, options.seed + 1, num_objects=(2, 8))
    watched = RefShapes("val", 96, IMAGE_SIZE, seed=10_000)
    # First the questions alone, at a tenth of the cost: what do they ask for? Then masks for what a question itself
    # describes, at half the cost: the mask decoder learns to read mask embeddings. Pictures as a whole come last.
    whole: nn.Module = WithReferents(model)
    settings = vars(options)
    language = argparse.Namespace(**settings | {"steps": 400, "batch_size": 32})
    whole = run("language", whole, WithReferents.read, scenes, language_collate(processor), lambda _: {}, language)
    plain = RefShapes("trainA", 10**9, IMAGE_SIZE, options.seed + 2, num_objects=(2, 8))
    masks = argparse.Namespace(**settings | {"steps": 2000, "batch_size": 24})
    whole = run("masks", whole, WithReferents.point, plain, mask_collate(processor), lambda _: {}, masks)
    trained = run(
        "lvlm",
        whole,
        WithReferents.__call__,  # not `forward`, which accelerate wraps on the instance
        scenes,
        lvlm_collate(processor),
        lambda whole: teacher_forced_ciou(whole.lvlm, processor, watched),
        options,
    )
    model = trained.lvlm
    model.save_pretrained(options.output / "litelvlm-tiny")
    processor.save_pretrained(options.output / "litelvlm-tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    defaults = {"clip": (train_clip, 850, 64, 1e-3), "lvlm": (train_lvlm, 4000, 24, 1e-3)}
    for stage, (function, steps, batch_size, lr) in defaults.items():
        sub = stages.add_parser(stage, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(function=function)
        sub.add_argument("--output", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and logs")
        sub.add_argument("--steps", type=int, default=steps, help="length of the learning-rate schedule")
        sub.add_argument("--batch-size", type=int, default=batch_size, help="images per step")
        sub.add_argument("--lr", type=float, default=lr, help="highest learning rate")
        sub.add_argument("--warmup", type=int, default=100, help="steps to the highest learning rate")
        sub.add_argument("--seed", type=int, default=0, help="of the scenes and the initial weights")
        sub.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
        sub.add_argument("--mixed-precision", choices=["no", "bf16", "fp16"], default="no", help="as in accelerate")
        sub.add_argument("--every", type=int, default=100, help="steps between evaluations and checkpoints")
        sub.add_argument("--time-limit", type=float, default=math.inf, help="minutes, then stop resumably")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.function(options)


if __name__ == "__main__":
    main()
