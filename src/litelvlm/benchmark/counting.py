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
"""What is counted of a model without running it: tokens, cache bytes and operations of every candidate."""

from collections.abc import Iterable
from typing import Any

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.pruning_litelvlm import LayerwisePruner, get_pruning_method
from .costs import kv_cache_bytes, language_model_macs, model_flops, num_visual_tokens
from .environment import versions
from .presets import Preset


def count(
    preset: Preset, *, methods: Iterable[str] = ("litelvlm",), budgets: Iterable[int] | None = None
) -> dict[str, Any]:
    """
    What `measure` reports of a preset without running it, and without any weights in memory: tokens, cache bytes and
    operations, and `flops_ratio` per budget.

    Raises:
        ValueError: a method or budget that the model cannot take.
    """
    config = preset.make_config()
    methods, budgets = check_candidates(config, methods, budgets)
    candidates: list[tuple[str, int | None]] = [("none", None)]
    candidates += [(method, budget) for method in methods for budget in budgets]
    rows = [
        {"method": method, "num_retained_tokens": budget} | count_row(config, preset, method, budget)
        for method, budget in candidates
    ]
    prefill = [row["flops"]["prefill"] for row in rows]
    return {
        "dtype": str(preset.dtype).removeprefix("torch."),
        "versions": versions(),
        "num_visual_tokens": num_visual_tokens(config),
        "num_text_tokens": preset.num_text_tokens,
        "rows": rows,
        "summary": {
            str(budget): {"flops_ratio": prefill[0] / own} for budget, own in zip(budgets, prefill[1:], strict=False)
        },
    }


def count_row(config: LiteLVLMConfig, preset: Preset, method: str, budget: int | None) -> dict[str, Any]:
    """Tokens of the prompt in the language model, their cache bytes, and the operations of one candidate."""
    num_tokens = preset.num_text_tokens + (num_visual_tokens(config) if budget is None else budget)
    return {
        "num_rows": num_tokens,
        "kv_cache_bytes": kv_cache_bytes(config, num_tokens, preset.dtype),
        "language_model_macs": language_model_macs(config, num_tokens),
        "flops": model_flops(config, preset.num_text_tokens, budget, method),
    }


def check_candidates(
    config: LiteLVLMConfig, methods: Iterable[str], budgets: Iterable[int] | None
) -> tuple[list[str], list[int]]:
    """
    Methods and budgets as lists; the default budgets are a third and a ninth of all visual tokens.

    Raises:
        ValueError: a method or budget that the model cannot take, the method `"none"`, or one that drops tokens inside
            the language model, whose savings are not counted.
    """
    methods = list(methods)
    number = num_visual_tokens(config)
    budgets = [number // 3, number // 9] if budgets is None else list(budgets)
    if "none" in methods:
        raise ValueError("The method 'none' is always measured; name methods that prune.")
    for method in methods:
        for budget in budgets:
            config.resolve_pruning(budget, method)
        if isinstance(get_pruning_method(method), LayerwisePruner):
            raise ValueError(
                f"The method {method!r} drops tokens inside the language model, and what that saves is not counted; "
                "name methods that select them before it."
            )
    return methods, budgets


__all__ = ["check_candidates", "count", "count_row"]
