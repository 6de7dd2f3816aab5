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
"""Which measurements `evaluate` and `diagnose` make of their flags."""

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..evaluation.runs import Run, configured, parse_variant
from .loading import parse_budget


def plan(protocols: list[str], methods: list[str] | None, budgets: list[str], config: LiteLVLMConfig) -> list[Run]:
    """
    Every method with every budget in every protocol, and once all tokens if `"all"` is among the budgets or `"none"`
    among the methods.

    Raises:
        ValueError: an unknown method or setting, or a budget that the model cannot have.
    """
    variants = [parse_variant(text, config) for text in methods or [config.pruning_method]]
    runs = []
    for protocol in protocols:
        for budget in budgets:
            retained = parse_budget(budget, config)
            for name, values, form in variants:
                if retained is None or name == "none":
                    runs.append(Run(protocol, "none", config.num_patches))
                    continue
                with configured(config, dict(values)):
                    config.resolve_pruning(retained, name)
                runs.append(Run(protocol, name, retained, values, form))
    return list(dict.fromkeys(runs))


__all__ = ["plan"]
