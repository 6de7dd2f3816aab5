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
Trains `litelvlm-tiny` from scratch on RefShapes: CLIP, first to see and then to read; SAM; the language model with
both frozen; then all but CLIP.

    python scripts/tiny/train.py see --output runs/tiny
    python scripts/tiny/train.py clip --output runs/tiny
    python scripts/tiny/train.py sam --output runs/tiny
    python scripts/tiny/train.py lvlm --output runs/tiny
    python scripts/tiny/train.py finish --output runs/tiny

SAM needs nothing of CLIP, and may run beside it. Each stage goes on from its last checkpoint in the
output folder, to the step and without showing a scene twice, and logs its losses to a CSV file there.
"""

import argparse
import csv
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from recipe import (
    ANSWERS,
    ANSWERS_WITHOUT,
    IMAGE_SIZE,
    MASK_EMBEDDING_SIZE,
    NUM_VISUAL_TOKENS,
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
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from litelvlm.data.refshapes import (
    ATTRIBUTES,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    RefObject,
    RefShapes,
    Sample,
    caption,
    matches,
    random_attributes,
)
from litelvlm.evaluation.metrics import CumulativeIoU
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor
from litelvlm.modeling.sam_litelvlm import LiteLVLMSam, mask_losses

ATTRIBUTE_VALUES = dict(zip(ATTRIBUTES, map(tuple, (SIZES, TEXTURES, COLOURS, SHAPES)), strict=True))
CLIP_MEAN, CLIP_STD = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
SAM_MEAN, SAM_STD = (torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


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
    optimizers = build_optimizers(model, options.lr)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(
                (step + 1) / options.warmup,
                0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(step / options.steps, 1))),
            ),
        )
        for optimizer in optimizers
    ]
    first, checkpoint = 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        for part, state in zip([*optimizers, *schedules], saved["optimizers"], strict=True):
            part.load_state_dict(state)
        first = saved["step"]
    data = Collated(scenes, options.batch_size, first, options.steps, collate)
    loader: Iterator[Any] = DataLoader(data, batch_size=None, num_workers=options.workers, persistent_workers=False)
    model, loader, *optimizers = accelerator.prepare(model, loader, *optimizers)

    def save(step: int) -> None:
        state = {"model": accelerator.unwrap_model(model).state_dict(), "step": step}
        state["optimizers"] = [part.state_dict() for part in (*optimizers, *schedules)]
        torch.save(state, folder / "checkpoint.tmp")
        (folder / "checkpoint.tmp").replace(checkpoint)  # a killed run leaves the old one whole

    started, running, step = time.time(), {}, first
    with open(folder / "log.csv", "a", newline="") as file:
        log = csv.writer(file)
        progress = tqdm(loader, initial=first, total=options.steps, desc=name, mininterval=10)
        for step, batch in enumerate(progress, start=first + 1):
            model.train()
            with accelerator.autocast():
                losses = step_losses(model, batch)
            accelerator.backward(losses["loss"])
            nn.utils.clip_grad_norm_(trained, 1.0)
            for part in (*optimizers, *schedules):
                part.step()
            for optimizer in optimizers:
                optimizer.zero_grad()
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


def build_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside of transformer layers, AdamW for all else; both take steps of the same size."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "layers." in name]
    rest = [p for name, p in named if not (p.ndim == 2 and "layers." in name)]
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw]


def images_to_tensor(samples: list[Sample]) -> torch.Tensor:
    """Values from 0 to 1, shape `(batch, 3, size, size)`."""
    return torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).float() / 255


def clip_pixels(samples: list[Sample]) -> torch.Tensor:
    return (images_to_tensor(samples) - CLIP_MEAN) / CLIP_STD


def sam_pixels(samples: list[Sample]) -> torch.Tensor:
    return (images_to_tensor(samples) - SAM_MEAN) / SAM_STD


def patch_names(samples: list[Sample]) -> torch.Tensor:
    """
    For each patch and attribute the index of the value that the object there has, or the number of values where there
    is none, or -100 where an object covers less than half of the patch. Shape `(batch, patches, attributes)`.
    """
    names = []
    for sample in samples:
        masks = torch.from_numpy(sample.object_masks).float()
        covered, index = nn.functional.avg_pool2d(masks, PATCH_SIZE).flatten(1).max(dim=0)
        values = [[known.index(getattr(o, name)) for name, known in ATTRIBUTE_VALUES.items()] for o in sample.objects]
        none = torch.tensor([len(known) for known in ATTRIBUTE_VALUES.values()])
        named = torch.tensor(values)[index].masked_fill(covered[:, None] < 0.5, -100)
        names.append(named.where(covered[:, None] > 0.1, none))
    return torch.stack(names)


class PatchNamer(nn.Linear):
    """
    A linear probe that names each patch's object and tells the patch's own place. Its loss teaches an encoder to see;
    the probe is thrown away.
    """

    def __init__(self, width: int):
        self.sizes = [*(len(known) + 1 for known in ATTRIBUTE_VALUES.values()), 2]
        super().__init__(width, sum(self.sizes))

    def loss(self, patches: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
        """
        Cross-entropy, summed over attributes, and the place's error; `patches` of shape `(batch, patches, width)`. Its
        means are over patches on objects and over those on none: in one mean the many of the background, which are
        soon named, would leave shapes, the hardest to see, a tenth of the weight.
        """
        *logits, place = self(patches).float().split(self.sizes, dim=-1)
        loss = 0.2 * nn.functional.mse_loss(place, patch_places().to(place).expand_as(place))
        for i, x in enumerate(logits):
            errors = nn.functional.cross_entropy(x.transpose(1, 2), names[..., i], reduction="none")
            loss = loss + errors[self.on_objects(names)].mean() + 0.3 * errors[names[..., 0] == len(SIZES)].mean()
        return loss

    @staticmethod
    def on_objects(names: torch.Tensor) -> torch.Tensor:
        return (names[..., 0] >= 0) & (names[..., 0] < len(SIZES))

    @torch.no_grad()
    def accuracies(self, patches: torch.Tensor, names: torch.Tensor) -> dict[str, torch.Tensor]:
        """The share of the patches on objects that are named rightly, of each attribute."""
        *logits, _ = self(patches).split(self.sizes, dim=-1)
        return {
            f"{name}_accuracy": (x.argmax(-1) == names[..., i])[self.on_objects(names)].float().mean()
            for i, (name, x) in enumerate(zip(ATTRIBUTE_VALUES, logits, strict=True))
        }


def patch_places() -> torch.Tensor:
    """Column and row of each patch, from -1 to 1, shape `(patches, 2)`."""
    steps = torch.linspace(-1, 1, IMAGE_SIZE // PATCH_SIZE)
    return torch.cartesian_prod(steps, steps).flip(-1)


def place_waves(width: int, amplitude: float) -> torch.Tensor:
    """
    Sines and cosines of each patch's column and row, of wavelengths from 2.5 to 40 patches, to begin a place embedding
    with, shape `(patches, width)`: captions say nothing of places, so that a contrastive loss would leave them out.
    """
    angles = patch_numbers()[..., None] * frequencies(width)
    return amplitude * torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def patch_numbers() -> torch.Tensor:
    """Column and row of each patch, from 0, shape `(patches, 2)`."""
    return (patch_places() + 1) / 2 * (IMAGE_SIZE // PATCH_SIZE - 1)


def frequencies(width: int) -> torch.Tensor:
    """Radians per patch of the waves of a place embedding, shape `(width / 4,)`."""
    return 2 * math.pi / 2.5 / 16 ** torch.linspace(0, 1, width // 4)


def look_at_neighbours(vision_model: nn.Module) -> None:
    """
    Begins each head with attention to the patches at one random offset from the patch itself, up to 2 away, as a
    convolution would: a rotation of a patch's waves shifts its place. Attention that has to find out by itself what is
    near sees shapes late.
    """
    config = vision_model.config
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    waves, used = frequencies(width), size // 4
    columns = torch.linspace(0, 0.75 * len(waves), used).long()  # which waves a head goes by, of each axis
    for layer in vision_model.encoder.layers:
        for head in range(config.num_attention_heads):
            rows = slice(head * size, (head + 1) * size)
            queries, keys = torch.zeros(size, width), torch.zeros(size, width)
            offset = torch.randint(-2, 3, (2,))
            for axis in range(2):
                sines, cosines = axis * width // 2 + columns, axis * width // 2 + width // 4 + columns
                turn = waves[columns] * offset[axis]
                first, second = (torch.arange(used) + 2 * axis * used, torch.arange(used) + (2 * axis + 1) * used)
                keys[first, sines] = keys[second, cosines] = 1.0
                queries[first, sines], queries[first, cosines] = turn.cos(), turn.sin()
                queries[second, cosines], queries[second, sines] = turn.cos(), -turn.sin()
            attention = layer.self_attn
            attention.q_proj.weight[rows] = 1.5 * queries + 0.3 * attention.q_proj.weight[rows]
            attention.k_proj.weight[rows] = 1.5 * keys + 0.3 * attention.k_proj.weight[rows]


# --- stage 1: CLIP ---------------------------------------------------------------------------------------------------


CAPTIONS = ("{}", "a picture of {}", "an image with {}", "there is {} in this image")
# One shape for all batches, as the model is compiled; longer captions lose their end
CAPTION_SHAPE = {"padding": "max_length", "truncation": True, "max_length": 40, "return_tensors": "pt"}
NUM_NEGATIVES = 2  # captions per image that one changed word makes wrong


def made_wrong(
    rng: np.random.Generator, objects: tuple[RefObject, ...], described: list[dict[str, str]]
) -> list[dict[str, str]]:
    """The descriptions with one attribute of one changed, so that it fits no object: only reading the text tells."""
    tries = 0
    while True:
        tries += 1
        i = int(rng.integers(len(described)))
        name = str(rng.choice(list(described[i])))
        # First another object's value: a word that belongs to the scene, in the wrong place
        values = [getattr(o, name) for o in objects] if tries < 5 else ATTRIBUTE_VALUES[name]
        changed = described[i] | {name: str(rng.choice(values))}
        if not any(matches(o, changed) for o in objects):
            return [*described[:i], changed, *described[i + 1 :]]


def fits(scenes: list[tuple[RefObject, ...]], captions: list[list[dict[str, str]]]) -> torch.Tensor:
    """Whether each description of a caption fits some object of a scene, bool of shape `(scenes, captions)`."""
    places = {(n, v): i for i, (n, v) in enumerate((n, v) for n, known in ATTRIBUTE_VALUES.items() for v in known)}
    objects = torch.zeros(len(scenes), max(map(len, scenes)), len(places))
    wanted = torch.zeros(len(captions), max(map(len, captions)), len(places))
    for i, scene in enumerate(scenes):
        for j, thing in enumerate(scene):
            objects[i, j, [places[name, getattr(thing, name)] for name in ATTRIBUTES]] = 1
    for i, described in enumerate(captions):
        for j, values in enumerate(described):
            wanted[i, j, [places[item] for item in values.items()]] = 1
    found = torch.einsum("ijk,tlk->itjl", objects, wanted) >= wanted.sum(-1)[None, :, None]
    return found.any(dim=2).all(dim=-1)


def clip_collate(tokenizer: Any) -> Callable[..., dict[str, torch.Tensor]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        scenes = [sample.objects for sample in samples]
        captions = []
        for i, objects in enumerate(scenes):
            # Every second caption is of the whole scene, the others of one object
            chosen = rng.permutation(len(objects))[: None if i % 2 else 1]
            captions.append([random_attributes(rng, objects[k], fewest=2) for k in chosen])
        for _ in range(NUM_NEGATIVES):
            captions += [made_wrong(rng, *pair) for pair in zip(scenes, captions[: len(scenes)], strict=True)]
        # What fits a picture by chance is no wrong answer
        by_chance = fits(scenes, captions) & ~torch.eye(len(scenes), len(captions), dtype=torch.bool)
        forms = rng.choice(CAPTIONS, len(captions))
        tokens = tokenizer([f.format(caption(c)) for f, c in zip(forms, captions, strict=True)], **CAPTION_SHAPE)
        return {"pixel_values": clip_pixels(samples), "by_chance": by_chance, "names": patch_names(samples), **tokens}

    return collate


class WithPatchNames(nn.Module):
    """CLIP and a probe on the patches that the LVLM will see."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.namer = PatchNamer(clip.config.vision_config.hidden_size)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """With captions, and without."""
        return self.read(batch) if "input_ids" in batch else self.see(batch)

    def see(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The probe's loss alone."""
        patches = self.clip.vision_model(batch["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
        return {"loss": self.namer.loss(patches, batch["names"]), **self.namer.accuracies(patches, batch["names"])}

    def read(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Symmetric InfoNCE, where each image also has wrong captions of its own to tell from the right one, and the
        probe's loss.
        """
        batch = dict(batch)
        by_chance, names = batch.pop("by_chance"), batch.pop("names")
        output = self.clip(**batch, output_hidden_states=True)
        logits = output.logits_per_image.float().masked_fill(by_chance, -torch.inf)  # [B, B * (1 + NUM_NEGATIVES)]
        target = torch.arange(len(logits), device=logits.device)
        texts = logits[:, : len(logits)].T
        loss = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(texts, target)) / 2
        own = logits.unflatten(1, (-1, len(logits))).diagonal(dim1=0, dim2=2)  # [1 + NUM_NEGATIVES, B]
        accuracy = (logits.argmax(-1) == target).float().mean()
        patches = output.vision_model_output.hidden_states[-2][:, 1:]
        naming_loss = self.namer.loss(patches, names)
        own_accuracy = (own.argmax(0) == 0).float().mean()
        losses = {"contrastive_loss": loss, "naming_loss": naming_loss} | self.namer.accuracies(patches, names)
        # The contrastive loss alone takes far longer to see textures, and forgets them once it is alone again
        return {"loss": loss + naming_loss, **losses, "accuracy": accuracy, "own_accuracy": own_accuracy}


def reversal(model: CLIPModel, tokenizer: Any, scenes: RefShapes, batch_size: int = 64) -> dict[str, float]:
    """AUROC of patch-text similarity (layer -2) as a detector of the named object's patches; 0.5 is chance."""
    values = []
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        pixels = clip_pixels(samples)
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


def build_tokenizers(options: argparse.Namespace) -> None:
    """Both tokenizers, by whichever stage comes first."""
    if (options.output / "tokenizer").exists():
        return
    texts = corpus()
    build_guide_tokenizer(texts).save_pretrained(options.output / "guide_tokenizer")
    build_tokenizer(texts).save_pretrained(options.output / "tokenizer")


def see_collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    return {"pixel_values": clip_pixels(samples), "names": patch_names(samples)}


def new_clip(options: argparse.Namespace) -> tuple[WithPatchNames, Any]:
    """CLIP as training begins, with its probe, and its tokenizer."""
    guide_tokenizer = AutoTokenizer.from_pretrained(options.output / "guide_tokenizer")
    torch.manual_seed(options.seed)
    # Eager attention is the faster one here, in bfloat16 on a CPU with short sequences
    clip = CLIPModel._from_config(clip_config(guide_tokenizer), attn_implementation="eager")
    with torch.no_grad():
        places = clip.vision_model.embeddings.position_embedding.weight
        places[1:] = place_waves(places.shape[1], amplitude=0.5)
        look_at_neighbours(clip.vision_model)
    return WithPatchNames(clip), guide_tokenizer


def train_see(options: argparse.Namespace) -> None:
    """CLIP's vision tower learns what objects look like before captions are read."""
    build_tokenizers(options)
    model, _ = new_clip(options)
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, options.seed, max_expressions=1)
    model.compile(dynamic=False)
    run("see", model, WithPatchNames.__call__, scenes, see_collate, lambda _: {}, options)


def train_clip(options: argparse.Namespace) -> None:
    model, guide_tokenizer = new_clip(options)
    model.load_state_dict(torch.load(options.output / "see" / "checkpoint.pt", weights_only=True)["model"])
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, options.seed + 3, num_objects=(2, 6), max_expressions=1)
    watched = RefShapes("testA", 128, IMAGE_SIZE, seed=10_000)
    model.compile(dynamic=False)
    collate = clip_collate(guide_tokenizer)

    def figures(model: nn.Module) -> dict[str, float]:
        return reversal(model.clip, guide_tokenizer, watched)

    trained = run("clip", model, WithPatchNames.__call__, scenes, collate, figures, options)
    trained.clip.save_pretrained(options.output / "clip" / "final")


# --- stage 2: SAM, prompted by places --------------------------------------------------------------------------------

OBJECTS_PER_SCENE = 4  # whose masks are learnt


class PlacePrompt(nn.Linear):
    """
    The mask embedding of a distribution over patches. SAM is trained with it as others are with points and boxes, and
    the language model learns to give the same; it is no part of the model.
    """

    def __init__(self) -> None:
        super().__init__(NUM_VISUAL_TOKENS, MASK_EMBEDDING_SIZE)
        with torch.no_grad():
            # Neighbours alike, and waves that the vision tower has too: what looks nearly right is nearly right
            self.weight.copy_(place_waves(MASK_EMBEDDING_SIZE, amplitude=1.0).T)


def coverage(masks: np.ndarray) -> torch.Tensor:
    """How each mask is distributed over the patches, from bool `(masks, H, W)`: `(masks, patches)`, rows of sum 1."""
    shares = nn.functional.avg_pool2d(torch.from_numpy(masks).float()[None], PATCH_SIZE)[0].flatten(1)
    return shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)


def blurred(places: torch.Tensor, others: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Distributions as a language model may give them: with patches missing, and some weight on other objects."""
    count = len(places)
    missing = torch.from_numpy(
        rng.random(places.shape) < rng.uniform(0, 0.7, (count, 1)) * (rng.random((count, 1)) < 0.6)
    )
    kept = places.masked_fill(missing, 0)
    kept = torch.where(kept.sum(-1, keepdim=True) > 0.05, kept, places)
    kept = kept / kept.sum(-1, keepdim=True)
    leak = torch.from_numpy(rng.uniform(0, 0.3, (count, 1)) * (rng.random((count, 1)) < 0.5)).float()
    return (1 - leak) * kept + leak * others


def sam_collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    places, labels = [], []
    for sample in samples:
        count = len(sample.objects)
        of_objects = coverage(sample.object_masks)
        groups = [
            rng.permutation(count)[: rng.integers(2, 4) if rng.random() < 0.15 else 1]
            for _ in range(OBJECTS_PER_SCENE)
        ]
        masks = np.stack([sample.object_masks[group].any(axis=0) for group in groups])
        places.append(
            blurred(coverage(masks), of_objects[torch.from_numpy(rng.integers(count, size=len(groups)))], rng)
        )
        labels.append(torch.from_numpy(masks).float())
    return {
        "sam_pixel_values": sam_pixels(samples),
        "places": torch.stack(places).float(),
        "labels": torch.stack(labels),
    }


class PromptedSam(nn.Module):
    """The model's mask decoder with prompts of places."""

    def __init__(self, sam: LiteLVLMSam):
        super().__init__()
        self.sam = sam
        self.prompt = PlacePrompt()

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        masks, _ = self.sam.decode_masks(
            self.prompt(batch["places"]), self.sam.encode_image(batch["sam_pixel_values"])
        )
        bce_loss, dice_loss = mask_losses([masks.flatten(0, 1)], [batch["labels"].flatten(0, 1)])
        return {"loss": 2 * bce_loss + dice_loss, "bce_loss": bce_loss, "dice_loss": dice_loss}


def mask_quality(model: PromptedSam, scenes: RefShapes) -> dict[str, float]:
    """cIoU of masks whose places are given."""
    iou = CumulativeIoU()
    for start in range(0, len(scenes), 32):
        batch = sam_collate([scenes[i] for i in range(start, start + 32)], np.random.default_rng(start))
        batch = {name: value.to(model.prompt.weight.device) for name, value in batch.items()}
        embeddings = model.sam.encode_image(batch["sam_pixel_values"])
        masks, _ = model.sam.decode_masks(model.prompt(batch["places"]), embeddings)
        masks = nn.functional.interpolate(masks.float(), batch["labels"].shape[-2:], mode="bilinear") > 0
        for predicted, expected in zip(masks.cpu().numpy(), batch["labels"].cpu().numpy() > 0, strict=True):
            iou.update(predicted, expected)
    return {"ciou": iou.ciou, "giou": iou.giou}


def train_sam(options: argparse.Namespace) -> None:
    build_tokenizers(options)
    model, _ = untrained(options)
    model.sam.set_attn_implementation("eager")
    sam = PromptedSam(model.sam)
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, options.seed + 1, max_expressions=1)
    watched = RefShapes("testC", 96, IMAGE_SIZE, seed=10_000)
    run("sam", sam, PromptedSam.__call__, scenes, sam_collate, lambda sam: mask_quality(sam, watched), options)


# --- stage 3: the language model around the frozen CLIP --------------------------------------------------------------

# Of all prompts, as the model is compiled: tokens of six questions with their answers, seldom of fewer
LENGTH = 480
MENTION = re.compile(
    r"\b"
    + "".join(f"(?:({'|'.join(known)}) )?" for known in (SIZES, TEXTURES, COLOURS))
    + f"({'|'.join((*SHAPES, 'object'))})(?:e?s)?\\b"
)


def answered(sample: Sample) -> list[int]:
    """The expressions that are answered with a mask: those that name something."""
    return [i for i, expression in enumerate(sample.expressions) if expression.targets]


def conversations(samples: list[Sample], rng: np.random.Generator) -> tuple[list[list[str]], list[list[str]]]:
    """Questions and answers of each sample in random forms; what is not there is answered without [SEG]."""
    questions = [[str(rng.choice(QUESTIONS)).format(e.text) for e in s.expressions] for s in samples]
    forms = [[ANSWERS if e.targets else ANSWERS_WITHOUT for e in s.expressions] for s in samples]
    return questions, [[str(rng.choice(known)) for known in of_sample] for of_sample in forms]


def mentions(text: str, objects: tuple[RefObject, ...]) -> list[tuple[int, list[int]]]:
    """Where each noun phrase of an expression ends, in characters, and the objects that it fits by itself."""
    found = []
    for match in MENTION.finditer(text):
        values = dict(zip(ATTRIBUTES, match.groups(), strict=True))
        values = {name: value for name, value in values.items() if value not in (None, "object")}
        found.append((match.end(), [i for i, thing in enumerate(objects) if matches(thing, values)]))
    return found


def find(ids: list[int], part: list[int], start: int) -> int:
    """Where a part begins in a list of ids, from a place on."""
    for i in range(start, len(ids) - len(part) + 1):
        if ids[i] == part[0] and ids[i : i + len(part)] == part:
            return i
    raise ValueError(f"{part} is not in {ids[start:]}")


def lvlm_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    tokenizer = processor.tokenizer
    image_token_id, seg_token_id = tokenizer.convert_tokens_to_ids([processor.image_token, "[SEG]"])

    def tokens(text: str) -> list[int]:
        return tokenizer(" " + text, add_special_tokens=False)["input_ids"]

    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        placeholder = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        inputs = processor(
            text=questions, answers=answers, images=[placeholder] * len(samples), question_template="{}"
        )
        too_long = inputs["attention_mask"].sum(-1) > LENGTH
        if too_long.any():
            shorter = [
                replace(s, expressions=s.expressions[:-1]) if cut else s
                for s, cut in zip(samples, too_long.tolist(), strict=True)
            ]
            return collate(shorter, rng)
        missing = LENGTH - inputs["input_ids"].shape[1]
        for name, filler in (("input_ids", tokenizer.pad_token_id), ("attention_mask", 0), ("labels", -100)):
            inputs[name] = nn.functional.pad(inputs[name], (missing, 0), value=filler)
        rows: dict[str, list[tuple[int, int]]] = {name: [] for name in POINTED}
        places: dict[str, list[torch.Tensor]] = {name: [] for name in POINTED}
        seg_places = []
        for number, (sample, ids) in enumerate(zip(samples, inputs["input_ids"].tolist(), strict=True)):
            nowhere = torch.eye(NUM_VISUAL_TOKENS + 1)[-1]
            of_expressions = coverage(sample.masks)
            seg_places.append(of_expressions[answered(sample)])
            at = ids.index(image_token_id) + NUM_VISUAL_TOKENS
            for i, expression in enumerate(sample.expressions):
                part = tokens(expression.text)
                at = find(ids, part, at)
                for end, fitting in mentions(expression.text, sample.objects):
                    rows["mention"].append((number, at + len(tokens(expression.text[:end])) - 1))
                    mask = sample.object_masks[fitting].any(axis=0, keepdims=True)
                    places["mention"].append(nn.functional.pad(coverage(mask)[0], (0, 1)) if fitting else nowhere)
                at += len(part)
                rows["resolved"].append((number, at - 1))
                target = nn.functional.pad(of_expressions[i], (0, 1)) if expression.targets else nowhere
                places["resolved"].append(target)
                # From there on to the row that predicts [SEG], or to the answer that there is none
                last = ids.index(seg_token_id, at) if expression.targets else at + 4
                rows["answer"] += [(number, row) for row in range(at, last)]
                places["answer"] += [target] * (last - at)
        pointed = {f"{name}_rows": torch.tensor(rows[name]) for name in rows}
        pointed |= {f"{name}_places": torch.stack(places[name]) for name in places}
        return {
            **{
                name: inputs[name]
                for name in ("input_ids", "attention_mask", "labels", "guide_input_ids", "guide_attention_mask")
            },
            **{name: inputs[name] for name in ("original_sizes", "reshaped_input_sizes")},
            "pixel_values": clip_pixels(samples),
            "sam_pixel_values": sam_pixels(samples),
            "mask_labels": [torch.from_numpy(s.masks[answered(s)]).float() for s in samples],
            "seg_places": torch.cat(seg_places),
            **pointed,
        }

    return collate


class Pointer(nn.Module):
    """Scores of patches, and of "nowhere", for what a row of the language model means; a probe."""

    def __init__(self, width: int, inner: int = 64):
        super().__init__()
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
        self.nowhere = nn.Parameter(torch.zeros(inner))

    def forward(self, hidden: torch.Tensor, patches: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`hidden` `(B, L, D)`, `patches` `(B, N, D)`, `rows` `(R, 2)` of sample and place; scores `(R, N + 1)`."""
        queries, keys = self.query(hidden).float(), self.key(patches).float()
        scores = torch.cat([queries @ keys.mT, queries @ self.nowhere[:, None]], dim=-1)  # [B, L, N + 1]
        return scores[rows[:, 0], rows[:, 1]] * self.nowhere.numel() ** -0.5


# What points, after which layer of the language model, and looks in the next one: the end of each noun phrase, that of
# the expression, and what follows it up to the row that predicts [SEG]
POINTED = {"mention": 2, "resolved": 4, "answer": 5}


def looking_loss(
    language_model: nn.Module,
    layer: int,
    hidden: torch.Tensor,
    batch: dict[str, Any],
    rows: torch.Tensor,
    places: torch.Tensor,
    is_patch: torch.Tensor,
) -> torch.Tensor:
    """
    Cross-entropy of the attention that rows pay to patches, with the first head of a layer, computed anew for them
    alone. What points can do so by content; only what looks learns where that is.
    """
    block = language_model.layers[layer]
    normed, there = block.input_layernorm(hidden), places[:, -1] == 0
    (sample, row), places = rows[there].T, places[there, :-1]
    attention, size = block.self_attn, block.self_attn.head_dim
    keys = nn.functional.linear(normed, attention.k_proj.weight[:size])  # [B, L, size]
    queries = nn.functional.linear(normed, attention.q_proj.weight[:size])
    positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    cos, sin = language_model.rotary_emb(normed, positions)
    queries, keys = (x[:, 0].float() for x in apply_rotary_pos_emb(queries[:, None], keys[:, None], cos, sin))
    scores = (queries @ keys.mT)[sample, row] * size**-0.5  # [R, L]
    hidden_from = (positions > row[:, None]) | (batch["attention_mask"][sample] == 0)
    weights = scores.masked_fill(hidden_from, -torch.inf).log_softmax(-1)
    return -(weights[is_patch[sample]].view_as(places) * places).sum(-1).mean()


class WithPointers(nn.Module):
    """
    The model and its probes, thrown away after training: pointers, which teach the language model to find what each
    noun phrase names, and the place prompt, which tells what mask embedding SAM was trained with.
    """

    def __init__(self, lvlm: LiteLVLMForSegmentation):
        super().__init__()
        self.lvlm = lvlm
        self.masks = False  # whether masks are learnt too
        self.prompt = PlacePrompt().requires_grad_(False)
        width = lvlm.config.get_text_config().hidden_size
        self.pointers = nn.ModuleDict({name: Pointer(width) for name in POINTED})

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            image_state = self.lvlm.model.encode_image(batch["pixel_values"], pruning_method="none")
        if self.masks:
            image_state.sam_image_embeddings = self.lvlm.sam.encode_image(batch["sam_pixel_values"])
        asked = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        asked |= {"mask_labels": batch["mask_labels"]} if self.masks else {}
        # The method is training-free: the model never sees a pruned picture
        output = self.lvlm(**asked, image_state=image_state, pruning_method="none", output_hidden_states=True)
        losses, hits = {}, {}
        is_patch = batch["input_ids"] == self.lvlm.config.image_token_id
        for name, layer in POINTED.items():
            hidden = output.hidden_states[layer]
            patches = hidden[is_patch].view(len(hidden), -1, hidden.shape[-1])
            scores = self.pointers[name](hidden, patches, batch[f"{name}_rows"])
            places = batch[f"{name}_places"]
            where = (batch, batch[f"{name}_rows"], places, is_patch)
            language_model = self.lvlm.model.backbone.language_model
            losses[f"{name}_looking_loss"] = looking_loss(language_model, layer, hidden, *where)
            losses[f"{name}_loss"] = nn.functional.cross_entropy(scores, places)
            hits[f"{name}_accuracy"] = (places.gather(1, scores.argmax(-1, keepdim=True)) > 0).float().mean()
        sample, row = (batch["input_ids"][:, 1:] == self.lvlm.config.seg_token_id).nonzero(as_tuple=True)
        given = self.lvlm.seg_head(output.last_hidden_state[sample, row]).float()
        wanted = self.prompt(batch["seg_places"]).float()
        losses["place_loss"] = nn.functional.mse_loss(given, wanted) / wanted.var()
        if self.masks:
            # Masks say best what is wanted of a mask embedding
            losses["loss"] = output.loss + 0.3 * sum(losses.values())
            return losses | {name: output[name] for name in ("ce_loss", "bce_loss", "dice_loss")} | hits
        return {"loss": output.loss + sum(losses.values()), "ce_loss": output.loss, **losses, **hits}


def teacher_forced_ciou(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, scenes: RefShapes, batch_size: int = 32
) -> dict[str, float]:
    """cIoU at the picture's size, un-pruned."""
    collate, iou = lvlm_collate(processor), CumulativeIoU()
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        batch = collate(samples, np.random.default_rng(start))
        asked = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        asked = {
            name: value.to(model.device) for name, value in asked.items() if not name.endswith(("_rows", "_places"))
        }
        asked.pop("labels")
        masks = processor.post_process_masks(model(**asked, pruning_method="none"), batch)
        for predicted, sample in zip(masks, samples, strict=True):
            iou.update(predicted.cpu().numpy(), sample.masks[answered(sample)])
    return {f"{scenes.split}_ciou": iou.ciou}


def untrained(options: argparse.Namespace) -> tuple[LiteLVLMForSegmentation, LiteLVLMProcessor]:
    tokenizer, guide_tokenizer = (
        AutoTokenizer.from_pretrained(options.output / name) for name in ("tokenizer", "guide_tokenizer")
    )
    torch.manual_seed(options.seed)
    model = LiteLVLMForSegmentation(lvlm_config(clip_config(guide_tokenizer), tokenizer))
    generation = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**generation, pad_token_id=tokenizer.pad_token_id, max_new_tokens=32)
    # Words must stand out against what attention adds from some hundred visual tokens
    nn.init.normal_(model.get_input_embeddings().weight, std=0.5)
    for frozen in (model.model.backbone.vision_tower, model.model.guide):
        frozen.requires_grad_(False)
    # Random features that encode places are not trained in SAM either
    model.sam.shared_image_embedding.requires_grad_(False)
    return model, build_processor(tokenizer, guide_tokenizer)


def train_lvlm(options: argparse.Namespace) -> None:
    model, processor = untrained(options)
    whole = WithPointers(model)
    clip = CLIPModel.from_pretrained(options.output / "clip" / "final")
    guide = model.model.guide
    model.model.backbone.vision_tower.load_state_dict(clip.vision_model.state_dict())
    guide.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    guide.text_model.text_model.load_state_dict(clip.text_model.state_dict())
    guide.text_model.text_projection.load_state_dict(clip.text_projection.state_dict())
    sam = PromptedSam(model.sam)
    sam.load_state_dict(torch.load(options.output / "sam" / "checkpoint.pt", weights_only=True)["model"])
    whole.prompt.load_state_dict(sam.prompt.state_dict())
    model.sam.requires_grad_(False)
    run_whole("lvlm", whole, processor, options.seed + 4, options)


def train_finish(options: argparse.Namespace) -> None:
    """The language model and the mask decoder together."""
    model, processor = untrained(options)
    whole = WithPointers(model)
    whole.load_state_dict(torch.load(options.output / "lvlm" / "checkpoint.pt", weights_only=True)["model"])
    whole.masks = True
    run_whole("finish", whole, processor, options.seed + 5, options)
    # Half the bytes in the file; the configuration still says float32, in which it is loaded and computes
    halves = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(options.output / "litelvlm-tiny", state_dict=halves)
    processor.save_pretrained(options.output / "litelvlm-tiny")


def run_whole(
    name: str, whole: WithPointers, processor: LiteLVLMProcessor, seed: int, options: argparse.Namespace
) -> None:
    """Trains the model with its probes, and watches the cIoU on scenes of val."""
    for layer in whole.lvlm.model.backbone.language_model.layers:
        layer.compile(dynamic=False)
    scenes = RefShapes("trainC", 10**9, IMAGE_SIZE, seed, max_expressions=6)
    watched = [RefShapes(split, 96, IMAGE_SIZE, seed=10_000) for split in ("val", "testC")]

    def figures(whole: WithPointers) -> dict[str, float]:
        return {k: v for scenes in watched for k, v in teacher_forced_ciou(whole.lvlm, processor, scenes).items()}

    run(name, whole, WithPointers.__call__, scenes, lvlm_collate(processor), figures, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    defaults = {
        "see": (train_see, 1500, 32, 2e-3),
        "clip": (train_clip, 800, 48, 1.5e-3),
        "sam": (train_sam, 1800, 16, 1.5e-3),
        "lvlm": (train_lvlm, 3400, 16, 2e-3),
        "finish": (train_finish, 2600, 16, 7e-4),
    }
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
        sub.add_argument("--mixed-precision", choices=["no", "bf16", "fp16"], default="bf16", help="as in accelerate")
        sub.add_argument("--every", type=int, default=100, help="steps between evaluations and checkpoints")
        sub.add_argument("--time-limit", type=float, default=math.inf, help="minutes, then stop resumably")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.function(options)


if __name__ == "__main__":
    main()
