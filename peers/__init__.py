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
The pruning methods that LiteLVLM is compared with, one in each file, under the names that `pruning_method` takes.

Each is written from its paper's formula for whole batches; what differs from the original is said in its docstring.
Importing this package registers them. They are no part of what a Hub repository carries.
"""

from .cdpruner import select_cdpruner
from .divprune import select_divprune
from .hiprune import select_hiprune
from .prumerge import select_prumerge, select_prumerge_adaptive
from .random import select_random
from .trim import select_trim
from .uniform import select_uniform
from .visionzip import select_visionzip
from .vispruner import select_vispruner

__all__ = [
    "select_cdpruner",
    "select_divprune",
    "select_hiprune",
    "select_prumerge",
    "select_prumerge_adaptive",
    "select_random",
    "select_trim",
    "select_uniform",
    "select_visionzip",
    "select_vispruner",
]
