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
"""RefShapes that moves: the scenes of a split as clips, in which each object goes along a straight line."""

from dataclasses import dataclass, replace

import numpy as np

from .dataset import SPLIT_NUMBERS, masks_of, random_sample
from .drawing import draw
from .expressions import Expression
from .scenes import RefObject

# Where an object is changes from frame to frame, what it looks like does not: these are true of a whole clip
_KINDS = {"attribute": 0.6, "negation": 0.2, "plural": 0.2}


@dataclass(frozen=True)
class Clip:
    """
    Args:
        frames (`np.ndarray` of shape `(F, size, size, 3)`, uint8): over one background, in front of which objects hide
            each other as they pass.
        object_masks (`np.ndarray` of shape `(num_objects, F, size, size)`, bool): visible pixels of each object.
        objects (`tuple[RefObject, ...]`): in drawing order, as they are in the first frame.
        expressions (`tuple[Expression, ...]`): at least 1, each unambiguous in every frame.
    """

    frames: np.ndarray
    object_masks: np.ndarray
    objects: tuple[RefObject, ...]
    expressions: tuple[Expression, ...]

    @property
    def masks(self) -> np.ndarray:
        """The masks of each expression, shape `(num_expressions, F, size, size)`, bool; empty where it is hidden."""
        return masks_of(self.object_masks, self.expressions)


class MovingRefShapes:
    """
    Clips of moving shapes as a map-style dataset: item i is always the same [`Clip`].

    Args:
        length (`int`): number of clips.
        num_frames (`int`): of each clip; where objects start and end depends neither on it nor on the size.
        size (`int`): side of the frames in pixels.
        seed (`int`): another seed, another set.

    Raises:
        ValueError: numbers that give no clip.
    """

    def __init__(self, length: int = 100, num_frames: int = 16, size: int = 128, seed: int = 0):
        if length < 1 or num_frames < 1 or size < 32:
            raise ValueError(
                f"`length` is {length}, `num_frames` {num_frames} and `size` {size}; allowed are at least 1, 1 and 32."
            )
        self.length, self.num_frames, self.size, self.seed = length, num_frames, size, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} clips")
        key = [SPLIT_NUMBERS["moving"], self.seed, index]
        scene = random_sample(np.random.default_rng(key), self.size, (3, 6), _KINDS)
        # A seed of its own, as what a scene draws depends on the size
        rng = np.random.default_rng([*key, 1])
        starts = np.array([thing.centre for thing in scene.objects])
        ends = np.array([rng.uniform(thing.radius, 1 - thing.radius, 2) for thing in scene.objects])
        drawn = []
        for part in np.linspace(0, 1, self.num_frames):
            centres = map(tuple, ((1 - part) * starts + part * ends).tolist())
            moved = tuple(replace(thing, centre=centre) for thing, centre in zip(scene.objects, centres, strict=True))
            # One seed for all frames: the background and each object's shading stay
            drawn.append(draw(moved, self.size, np.random.default_rng([*key, 2])))
        frames, masks = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return Clip(frames, masks.swapaxes(0, 1), scene.objects, scene.expressions)


__all__ = ["Clip", "MovingRefShapes"]
