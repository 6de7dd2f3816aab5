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
"""Draws the example image that is shipped with the package: `python scripts/draw_example.py example.png`."""

import argparse

import numpy as np
from PIL import Image

from litelvlm.data.refshapes import RefObject, draw

OBJECTS = (
    RefObject("circle", "red", "plain", "large", (0.24, 0.30), 0.160),
    RefObject("square", "blue", "plain", "medium", (0.62, 0.24), 0.115),
    RefObject("star", "green", "striped", "large", (0.74, 0.68), 0.165),
    RefObject("ring", "yellow", "plain", "medium", (0.30, 0.76), 0.115),
    RefObject("triangle", "purple", "dotted", "small", (0.88, 0.20), 0.085),
    RefObject("circle", "orange", "checkered", "small", (0.50, 0.52), 0.080),
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="such as example.png")
    options = parser.parse_args()
    image, _ = draw(OBJECTS, 512, np.random.default_rng(3))
    Image.fromarray(image).save(options.file)
