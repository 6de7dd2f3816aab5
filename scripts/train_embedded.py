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
Trains `litelvlm-tiny` from scratch on RefShapes: CLIP, the mask decoder, then the whole with CLIP frozen, twice.

    python scripts/train_embedded.py clip --output runs/tiny
    python scripts/train_embedded.py masks --output runs/tiny
    python scripts/train_embedded.py lvlm --output runs/tiny
    python scripts/train_embedded.py finish --output runs/tiny

The first two need nothing of each other and may run side by side. Each stage goes on from its last checkpoint in the
output folder, to the step and without showing a scene twice, and logs its losses to a CSV file there.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from embedded_recipe import (
    ANSWERS,
    ANSWERS_WITHOUT,
    IMAGE_SIZE,
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
    matches,
    random_attributes,
)
from litelvlm.modeling.mask_decoder_litelvlm import mask_losses
from litelvlm.modeling.modeling_litelvlm import LiteLVLMForSegmentation
from litelvlm.modeling.processing_litelvlm import LiteLVLMProcessor

ATTRIBUTE_VALUES = dict(zip(ATTRIBUTES, map(tuple, (SIZES, TEXTURES, COLOURS, SHAPES)), strict=True))
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
        """Mean cross-entropy over attributes, and the place's error; `patches` of shape `(batch, patches, width)`."""
        *logits, place = self(patches).float().split(self.sizes, dim=-1)
        losses = [nn.functional.cross_entropy(x.transpose(1, 2), names[..., i]) for i, x in enumerate(logits)]
        place_loss = nn.functional.mse_loss(place, patch_places().to(place).expand_as(place))
        return torch.stack(losses).mean() + 0.2 * place_loss


def patch_places() -> torch.Tensor:
    """Column and row of each patch, from -1 to 1, shape `(patches, 2)`."""
    steps = torch.linspace(-1, 1, IMAGE_SIZE // PATCH_SIZE)
    return torch.cartesian_prod(steps, steps).flip(-1)


def place_waves(width: int, amplitude: float) -> torch.Tensor:
    """
    Sines and cosines of each patch's column and row, of wavelengths from 2 to 64 patches, to begin a place embedding
    with, shape `(patches, width)`: captions say nothing of places, so that a contrastive loss would leave them out.
    """
    numbers = (patch_places() + 1) / 2 * (IMAGE_SIZE // PATCH_SIZE - 1)
    angles = 2 * math.pi * numbers[..., None] / 2 ** torch.linspace(1, 6, width // 4)
    return amplitude * torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


# --- stage 1: CLIP ---------------------------------------------------------------------------------------------------


NUM_NEGATIVES = 4  # captions per image that one changed word makes wrong


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
        tokens = tokenizer([caption(c) for c in captions], padding=True, truncation=True, return_tensors="pt")
        pixels = (images_to_tensor(samples) - CLIP_MEAN) / CLIP_STD
        return {"pixel_values": pixels, "by_chance": by_chance, "names": patch_names(samples), **tokens}

    return collate


class WithPatchNames(nn.Module):
    """CLIP and a probe on the patches that the LVLM will see."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        self.namer = PatchNamer(clip.config.vision_config.hidden_size)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
        losses = {"contrastive_loss": loss, "naming_loss": naming_loss}
        # The contrastive loss alone takes far longer to see textures, and forgets them once it is alone again
        return {"loss": loss + 2 * naming_loss, **losses, "accuracy": accuracy, "own_accuracy": own_accuracy}


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


def build_tokenizers(options: argparse.Namespace) -> None:
    """Both tokenizers, the same in whichever stage comes first."""
    texts = corpus()
    build_guide_tokenizer(texts).save_pretrained(options.output / "guide_tokenizer")
    build_tokenizer(texts).save_pretrained(options.output / "tokenizer")


def train_clip(options: argparse.Namespace) -> None:
    build_tokenizers(options)
    guide_tokenizer = AutoTokenizer.from_pretrained(options.output / "guide_tokenizer")
    torch.manual_seed(options.seed)
    scenes = RefShapes("train", 10**9, IMAGE_SIZE, options.seed, num_objects=(2, 4))
    watched = RefShapes("testA", 128, IMAGE_SIZE, num_objects=(2, 4))
    clip = CLIPModel(clip_config(guide_tokenizer))
    with torch.no_grad():
        places = clip.vision_model.embeddings.position_embedding.weight
        places[1:] = place_waves(places.shape[1], amplitude=0.35)  # as large as what a patch itself gives
    model: nn.Module = WithPatchNames(clip)
    collate = clip_collate(guide_tokenizer)

    def figures(model: nn.Module) -> dict[str, float]:
        return reversal(model.clip, guide_tokenizer, watched)

    model = run("clip", model, WithPatchNames.__call__, scenes, collate, figures, options)
    model.clip.save_pretrained(options.output / "clip" / "final")


# --- stage 2: the LVLM around the frozen CLIP ------------------------------------------------------------------------


PROBED = ("referents", "places", "names")  # what only the probes learn from


def referent(things: list[RefObject]) -> list[int]:
    """Indices of the values of its attributes; of several objects those that they share, -100 for the others."""
    values = [{known.index(getattr(thing, name)) for thing in things} for name, known in ATTRIBUTE_VALUES.items()]
    return [found.pop() if len(found) == 1 else -100 for found in values]


def answered(sample: Sample) -> list[int]:
    """The expressions that are answered with a mask: those that name something."""
    return [i for i, expression in enumerate(sample.expressions) if expression.targets]


def language_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        inputs = processor(text=questions, answers=answers, question_template="{}")
        said = []
        for sample in samples:
            for e in sample.expressions:
                thing, words = sample.objects[e.targets[0]], e.text.split()
                named = [getattr(thing, name) in words for name in ATTRIBUTES]
                said.append([v if known else -100 for v, known in zip(referent([thing]), named, strict=True)])
        return {**inputs, "said": torch.tensor(said)}

    return collate


def mask_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        maps = [s.masks for s in samples]
        inputs = processor(text=questions, answers=answers, question_template="{}", segmentation_maps=maps)
        pictures = processor.mask_image_processor([s.image for s in samples], return_tensors="pt")
        return {**inputs, "mask_pixel_values": pictures["pixel_values"], "names": patch_names(samples)}

    return collate


def conversations(samples: list[Sample], rng: np.random.Generator) -> tuple[list[list[str]], list[list[str]]]:
    """Questions and answers of each sample in random forms; what is not there is answered without [SEG]."""
    questions = [[str(rng.choice(QUESTIONS)).format(e.text) for e in s.expressions] for s in samples]
    forms = [[ANSWERS if e.targets else ANSWERS_WITHOUT for e in s.expressions] for s in samples]
    return questions, [[str(rng.choice(known)) for known in of_sample] for of_sample in forms]


def lvlm_collate(processor: LiteLVLMProcessor) -> Callable[..., dict[str, Any]]:
    def collate(samples: list[Sample], rng: np.random.Generator) -> dict[str, Any]:
        questions, answers = conversations(samples, rng)
        inputs = processor(
            images=[s.image for s in samples],
            text=questions,
            answers=answers,
            segmentation_maps=[s.masks[answered(s)] for s in samples],
            question_template="{}",
        )
        named = [s.expressions[i].targets for s in samples for i in answered(s)]
        owners = [s for s in samples for _ in answered(s)]
        things = [[s.objects[i] for i in targets] for s, targets in zip(owners, named, strict=True)]
        referents = torch.tensor([referent(found) for found in things])
        masks = torch.from_numpy(np.concatenate([s.masks[answered(s)] for s in samples])).float()
        places = nn.functional.avg_pool2d(masks, PATCH_SIZE).flatten(1)
        return {**inputs, "referents": referents, "places": places, "names": patch_names(samples)}

    return collate


_HELPING = ("probe_loss", "naming_loss", "looking_loss")


class WithReferents(nn.Module):
    """
    The model and three probes, thrown away after training. One reads the referent's attributes and its patches from a
    mask embedding: its loss teaches the language model to find the referent long before masks alone would. The others
    name the patches of the mask decoder's image encoder, and the visual tokens halfway through the language model.
    """

    def __init__(self, lvlm: LiteLVLMForSegmentation):
        super().__init__()
        self.lvlm = lvlm
        self.looks = True  # whether attention is told where to look
        self.sizes = [*map(len, ATTRIBUTE_VALUES.values()), NUM_VISUAL_TOKENS]
        self.probe = nn.Linear(lvlm.config.mask_embedding_size, sum(self.sizes))
        self.namer = PatchNamer(lvlm.config.mask_decoder_config.vision_config.output_channels)
        self.token_namer = PatchNamer(lvlm.config.get_text_config().hidden_size)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        batch = dict(batch)
        referents, places, names = (batch.pop(name) for name in PROBED)
        image_state = self.lvlm.encode_image(batch.pop("pixel_values"), batch.pop("mask_pixel_values"))
        # The method is training-free: the model never sees a pruned picture
        asked = {"output_attentions": self.looks, "output_hidden_states": True}
        output = self.lvlm(**batch, image_state=image_state, pruning_method="none", **asked)
        *logits, place = self.probe(torch.cat(output.seg_embeddings)).float().split(self.sizes, dim=-1)
        # Patches in the measure in which the referent covers them
        probe_loss = 2 * nn.functional.cross_entropy(place, places / places.sum(-1, keepdim=True))
        for i, attribute_logits in enumerate(logits):
            probe_loss = probe_loss + 0.25 * nn.functional.cross_entropy(attribute_logits, referents[:, i])
        naming_loss = self.namer.loss(image_state.mask_image_embeddings.flatten(2).transpose(1, 2), names)
        halfway = output.hidden_states[len(output.hidden_states) // 2]
        tokens = halfway[batch["input_ids"] == self.lvlm.config.image_token_id]
        naming_loss = naming_loss + self.token_namer.loss(tokens.view(*names.shape[:2], -1), names)
        losses = {name: output[name] for name in ("ce_loss", "bce_loss", "dice_loss")}
        losses |= {"probe_loss": probe_loss, "naming_loss": naming_loss}
        if self.looks:
            losses["looking_loss"] = self.looking_loss(batch["input_ids"], output.attentions, places)
        return {"loss": output.loss + sum(losses[name] for name in losses if name in _HELPING), **losses}

    def looking_loss(
        self, input_ids: torch.Tensor, attentions: tuple[torch.Tensor, ...], places: torch.Tensor
    ) -> torch.Tensor:
        """
        Minus the logarithm of the attention that the row which predicts [SEG] pays to its referent's patches, with one
        head of each of the last two layers. Masks alone would take very long to tell the language model where to look.
        """
        config = self.lvlm.config
        sample, row = (input_ids[:, 1:] == config.seg_token_id).nonzero(as_tuple=True)
        is_image = (input_ids == config.image_token_id)[sample]
        losses = []
        for attention in attentions[-2:]:  # [B, heads, L, L]
            to_patches = attention[sample, 0, row][is_image].view_as(places).float()
            losses.append(-((to_patches * (places > 0.3)).sum(-1) + 1e-6).log().mean())
        return 0.5 * torch.stack(losses).sum()

    def mask_embeddings(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Without a picture: mask embeddings, cross-entropy of the answers, number of [SEG] in each sample."""
        output = self.lvlm(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")})
        is_seg = nn.functional.pad(batch["input_ids"][:, 1:] == self.lvlm.config.seg_token_id, (0, 1))
        return self.lvlm.seg_head(output.last_hidden_state[is_seg]), output.ce_loss, is_seg.sum(-1).tolist()

    def read(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The probe reads from mask embeddings what the question itself says of the referent."""
        embeddings, ce_loss, _ = self.mask_embeddings(batch)
        *logits, _ = self.probe(embeddings).float().split(self.sizes, dim=-1)
        said = batch["said"]
        parts = [
            nn.functional.cross_entropy(logit, said[:, i], ignore_index=-100, reduction="sum") / max(len(said), 1)
            for i, logit in enumerate(logits)
        ]
        probe_loss = torch.stack(parts).sum()
        return {"loss": ce_loss + probe_loss, "ce_loss": ce_loss, "probe_loss": probe_loss}

    def point(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Masks for questions that name their referent's attributes, which the mask decoder alone can see."""
        embeddings, ce_loss, counts = self.mask_embeddings(batch)
        decoder = self.lvlm.mask_decoder
        image_embeddings = decoder.encode_image(batch["mask_pixel_values"])
        naming_loss = self.namer.loss(image_embeddings.flatten(2).transpose(1, 2), batch["names"])
        repeats = torch.tensor(counts, device=embeddings.device)
        masks = decoder(embeddings[:, None], image_embeddings.repeat_interleave(repeats, dim=0))[:, 0]
        bce_loss, dice_loss = mask_losses(list(masks.split(counts)), batch["mask_labels"])
        config = self.lvlm.config
        mask_loss = config.bce_loss_weight * bce_loss + config.dice_loss_weight * dice_loss
        losses = {"ce_loss": ce_loss, "bce_loss": bce_loss, "dice_loss": dice_loss, "naming_loss": naming_loss}
        return {"loss": config.ce_loss_weight * ce_loss + mask_loss + naming_loss, **losses}


def teacher_forced_ciou(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, scenes: RefShapes, batch_size: int = 32
) -> dict[str, float]:
    """cIoU at the picture's size, un-pruned."""
    collate, iou = lvlm_collate(processor), CumulativeIoU()
    for start in range(0, len(scenes), batch_size):
        samples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        batch = collate(samples, np.random.default_rng(start))
        for name in PROBED:
            batch.pop(name)
        on_device = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        masks = processor.post_process_masks(model(**on_device, pruning_method="none"), batch)
        for predicted, sample in zip(masks, samples, strict=True):
            iou.update(predicted.cpu().numpy(), sample.masks[answered(sample)])
    return {f"{scenes.split}_ciou": iou.ciou}


def untrained(options: argparse.Namespace) -> tuple[WithReferents, LiteLVLMProcessor]:
    """The model with its probes, and its processor."""
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
    # Attention weights are trained themselves
    model.model.backbone.language_model.set_attn_implementation("eager")
    # Random features that encode places are not trained in SAM either
    model.mask_decoder.sam.shared_image_embedding.requires_grad_(False)
    return WithReferents(model), build_processor(tokenizer, guide_tokenizer)


def train_masks(options: argparse.Namespace) -> None:
    build_tokenizers(options)
    whole: nn.Module
    whole, processor = untrained(options)
    # First the questions alone, at a tenth of the cost: what do they ask for? Then masks for what a question itself
    # describes: the mask decoder learns to read mask embeddings
    scenes = RefShapes("train", 10**9, IMAGE_SIZE, options.seed + 1, num_objects=(2, 8))
    language = argparse.Namespace(**vars(options) | {"steps": 400, "batch_size": 32})
    whole = run("language", whole, WithReferents.read, scenes, language_collate(processor), lambda _: {}, language)
    plain = RefShapes("trainA", 10**9, IMAGE_SIZE, options.seed + 2, num_objects=(2, 8))
    run("masks", whole, WithReferents.point, plain, mask_collate(processor), lambda _: {}, options)


def train_lvlm(options: argparse.Namespace) -> None:
    whole, processor = untrained(options)
    model = whole.lvlm
    trained = torch.load(options.output / "masks" / "checkpoint.pt", map_location="cpu", weights_only=True)
    whole.load_state_dict(trained["model"])
    clip = CLIPModel.from_pretrained(options.output / "clip" / "final")
    guide = model.model.guide
    model.model.backbone.vision_tower.load_state_dict(clip.vision_model.state_dict())
    guide.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    guide.text_model.text_model.load_state_dict(clip.text_model.state_dict())
    guide.text_model.text_projection.load_state_dict(clip.text_projection.state_dict())
    run_whole("lvlm", whole, processor, RefShapes(options.split, 10**9, IMAGE_SIZE, options.seed + 4), options)


def train_finish(options: argparse.Namespace) -> None:
    """
    More questions about each picture, which is what costs, in one conversation; and without the attention weights,
    which nothing is learnt from any more, in a faster attention.
    """
    whole, processor = untrained(options)
    trained = torch.load(options.output / "lvlm" / "checkpoint.pt", map_location="cpu", weights_only=True)
    whole.load_state_dict(trained["model"])
    whole.looks = False
    whole.lvlm.model.backbone.language_model.set_attn_implementation("sdpa")
    scenes = RefShapes(options.split, 10**9, IMAGE_SIZE, options.seed + 5, max_expressions=8)
    run_whole("finish", whole, processor, scenes, options)
    whole.lvlm.save_pretrained(options.output / "litelvlm-tiny")
    processor.save_pretrained(options.output / "litelvlm-tiny")


def run_whole(
    name: str, whole: WithReferents, processor: LiteLVLMProcessor, scenes: RefShapes, options: argparse.Namespace
) -> None:
    """Trains the model with its probes, and watches the cIoU on scenes of val."""
    watched = RefShapes("val", 96, IMAGE_SIZE, seed=10_000)
    run(
        name,
        whole,
        WithReferents.__call__,  # not `forward`, which accelerate wraps on the instance
        scenes,
        lvlm_collate(processor),
        lambda whole: teacher_forced_ciou(whole.lvlm, processor, watched),
        options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(dest="stage", required=True)
    defaults = {
        "clip": (train_clip, 1200, 48, 1e-3),
        "masks": (train_masks, 2400, 24, 1e-3),
        "lvlm": (train_lvlm, 4000, 16, 1e-3),
        "finish": (train_finish, 1600, 12, 7e-4),
    }
    for stage, (function, steps, batch_size, lr) in defaults.items():
        sub = stages.add_parser(stage, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        sub.set_defaults(function=function)
        sub.add_argument("--output", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and logs")
        sub.add_argument("--steps", type=int, default=steps, help="length of the learning-rate schedule")
        sub.add_argument("--batch-size", type=int, default=batch_size, help="images per step")
        sub.add_argument("--lr", type=float, default=lr, help="highest learning rate")
        if stage in ("lvlm", "finish"):
            sub.add_argument("--split", choices=["train", "trainC"], default="train", help="trainC has every kind")
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
