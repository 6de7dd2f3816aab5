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
"""The loop of every stage: batches by step, optimizers, schedule, checkpoints, log and time limit."""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from samples import Mixed
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from litelvlm.data.refshapes import RefShapes

Collate = Callable[..., Any]
"""`collate(samples, rng)` makes a batch of samples."""


class Batches(Dataset):
    """Whole batches by step, so that a resumed run continues with scenes it has not seen."""

    def __init__(self, scenes: RefShapes | Mixed, batch_size: int, first: int, last: int, collate: Collate):
        self.scenes, self.batch_size, self.first, self.last, self.collate = scenes, batch_size, first, last, collate

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Any:
        start = (self.first + index) * self.batch_size
        samples = [self.scenes[i] for i in range(start, start + self.batch_size)]
        return self.collate(samples, np.random.default_rng([self.scenes.seed, start]))


def train(
    name: str,
    model: nn.Module,
    scenes: RefShapes | Mixed,
    collate: Collate,
    evaluate: Callable[[nn.Module], dict[str, float]],
    options: argparse.Namespace,
) -> nn.Module:
    """
    Trains a model of which `model(batch)` gives its losses.

    Args:
        name (`str`): of the stage, and of its folder.
        model (`nn.Module`): gives `"loss"`, whose gradient is taken, and figures to log.
        scenes ([`RefShapes`] or [`Mixed`]): enough of them for all steps.
        collate: makes a batch of samples.
        evaluate: gives more figures to log, from the model in evaluation mode.
        options: those of the command.

    Raises:
        SystemExit: the time limit has come; the next run goes on.
    """
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    folder = options.output / name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizers = build_optimizers(model, options.lr, options.optimizer)
    schedules = build_schedules(optimizers, options.warmup, options.steps)
    first = load_checkpoint(checkpoint, model, [*optimizers, *schedules])
    batches = Batches(scenes, options.batch_size, first, options.steps, collate)
    loader: Iterator[Any] = DataLoader(batches, batch_size=None, num_workers=options.workers, persistent_workers=False)
    model, loader, *optimizers = accelerator.prepare(model, loader, *optimizers)
    plain = accelerator.unwrap_model(model)

    started, averages = time.time(), RunningMeans()
    with open(folder / "log.csv", "a", newline="") as file:
        progress = tqdm(loader, initial=first, total=options.steps, desc=name, mininterval=10)
        for step, batch in enumerate(progress, start=first + 1):
            model.train()
            with accelerator.autocast():
                losses = model(batch)
            accelerator.backward(losses["loss"])
            nn.utils.clip_grad_norm_(trained, 1.0)
            for part in (*optimizers, *schedules):
                part.step()
            for optimizer in optimizers:
                optimizer.zero_grad()
            averages.update(losses)
            out_of_time = time.time() - started > 60 * options.time_limit
            if step % options.every == 0 or step == options.steps or out_of_time:
                model.eval()
                with torch.no_grad():
                    figures = averages.values | evaluate(plain)
                write_line(file, step, time.time() - started, figures)
                progress.write(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
                save_checkpoint(checkpoint, plain, [*optimizers, *schedules], step)
            if out_of_time and step < options.steps:
                raise SystemExit(f"{name}: stopped by the time limit at step {step}; run again to go on")
    return plain.eval()


def build_optimizers(model: nn.Module, lr: float, kind: str) -> list[torch.optim.Optimizer]:
    """
    AdamW, or `"muon"` for the matrices inside of transformer layers and AdamW for all else; both take steps of the
    same size. Muon multiplies in bfloat16, which is slow on a CPU that does not.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    by_muon = {name for name, p in named if kind == "muon" and p.ndim == 2 and "layers." in name}
    matrices, rest = [p for name, p in named if name in by_muon], [p for name, p in named if name not in by_muon]
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw]


def build_schedules(
    optimizers: Sequence[torch.optim.Optimizer], warmup: int, steps: int
) -> list[torch.optim.lr_scheduler.LambdaLR]:
    """Of the learning rate: up in a line, and down along a cosine to a fiftieth."""

    def share(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
        return min((step + 1) / warmup, 0.02 + 0.98 * cosine)

    return [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]


def load_checkpoint(path: Path, model: nn.Module, parts: Sequence[Any]) -> int:
    """Loads model, optimizers and schedules, if there is a checkpoint, and gives the number of steps done."""
    if not path.exists():
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    for part, state in zip(parts, saved["optimizers"], strict=True):
        part.load_state_dict(state)
    return saved["step"]


def save_checkpoint(path: Path, model: nn.Module, parts: Sequence[Any], step: int) -> None:
    state = {"model": model.state_dict(), "step": step, "optimizers": [part.state_dict() for part in parts]}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)  # a run that is killed while it writes leaves the old checkpoint whole


def load_weights(stage: Path) -> dict[str, torch.Tensor]:
    """The weights that another stage ended with; `stage` is its folder."""
    return torch.load(stage / "checkpoint.pt", map_location="cpu", weights_only=True)["model"]


class RunningMeans:
    """Of figures that come step by step, each step counting a twentieth."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, figures: Mapping[str, torch.Tensor]) -> None:
        for name, figure in figures.items():
            value = figure.item()
            self.values[name] = 0.95 * self.values.get(name, value) + 0.05 * value


def write_line(file: Any, step: int, seconds: float, figures: Mapping[str, float]) -> None:
    log = csv.writer(file)
    if file.tell() == 0:
        log.writerow(["step", "seconds", *figures])
    log.writerow([step, round(seconds), *(f"{value:.4f}" for value in figures.values())])
    file.flush()
