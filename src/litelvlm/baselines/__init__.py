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

from itertools import pairwise

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from .cdpruner import select_cdpruner
from .divprune import select_divprune
from .evtp import select_evtp
from .fastv import fastv_cuts, run_fastv
from .hiprune import select_hiprune
from .prumerge import select_prumerge, select_prumerge_adaptive
from .pyramiddrop import pyramiddrop_cuts, run_pyramiddrop
from .random import select_random
from .sparsevlm import run_sparsevlm, sparsevlm_cuts
from .surgery import select_surgery
from .trim import select_trim
from .uniform import select_uniform
from .visionzip import select_visionzip
from .vispruner import select_vispruner

_CUTS = {"fastv": fastv_cuts, "pyramiddrop": pyramiddrop_cuts, "sparsevlm": sparsevlm_cuts}


def average_tokens(method: str, num_retained_tokens: int | None, config: LiteLVLMConfig) -> float:
    """
    How many visual tokens a layer of the language model sees on average, for comparisons at equal cost.

    Args:
        method (`str`): name of a pruning method.
        num_retained_tokens (`int`, *optional*): the budget K; `None` is the configured one.
        config ([`LiteLVLMConfig`]): says how many patches and layers there are.

    Returns:
        `float`: K for methods that prune before the language model (an upper limit for "prumerge-adaptive"); all
        patches where nothing is pruned.

    Raises:
        ValueError: unknown method or budget, or a language model with too few layers for the method.
    """
    _, budget = config.resolve_pruning(num_retained_tokens, method)
    if method not in _CUTS:
        return float(budget)
    cuts = [(0, config.num_patches), *_CUTS[method](budget, config), (config.get_text_config().num_hidden_layers, 0)]
    return sum(count * (until - layer) for (layer, count), (until, _) in pairwise(cuts)) / cuts[-1][0]


__all__ = [
    "average_tokens",
    "run_fastv",
    "run_pyramiddrop",
    "run_sparsevlm",
    "select_cdpruner",
    "select_divprune",
    "select_evtp",
    "select_hiprune",
    "select_prumerge",
    "select_prumerge_adaptive",
    "select_random",
    "select_surgery",
    "select_trim",
    "select_uniform",
    "select_visionzip",
    "select_vispruner",
]
