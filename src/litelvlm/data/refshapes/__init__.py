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
RefShapes: a synthetic referring-segmentation set, generated from a seed on the fly.

A scene shows objects that differ in shape, colour, texture, size and position on a textured background; an expression
names one of them, by attribute ("the striped star"), superlative ("the leftmost circle"), ordinal ("the second star
from the left"), negation ("the star that is not red") or relation to one object or two ("the red square above the
large ring"); or several ("all the red stars"), or none. Each is unambiguous by construction. Masks hold the visible
pixels of each object. Geometry is in fractions of the image's side, so one scene can be drawn at any size.
"""

from .dataset import CLUTTERED, SPLITS, RefShapes, Sample, random_sample
from .drawing import draw
from .expressions import KINDS, Expression, caption, phrase, random_attributes, random_expression
from .moving import Clip, MovingRefShapes
from .scenes import ATTRIBUTES, COLOURS, SHAPES, SIZES, TEXTURES, RefObject, matches, random_scene

__all__ = [
    "ATTRIBUTES",
    "CLUTTERED",
    "COLOURS",
    "KINDS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "TEXTURES",
    "Clip",
    "Expression",
    "MovingRefShapes",
    "RefObject",
    "RefShapes",
    "Sample",
    "caption",
    "draw",
    "matches",
    "phrase",
    "random_attributes",
    "random_expression",
    "random_sample",
    "random_scene",
]
