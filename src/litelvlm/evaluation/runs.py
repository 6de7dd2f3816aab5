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
"""What is to be measured: a run is a protocol, a pruning method, a number of tokens and settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.guide_texts_litelvlm import GUIDE_FORMS

# Fields of the configuration that a variant may set: any other would be printed with it, and change nothing
SELECTION_FIELDS = ("num_context_tokens", "position_mode", "selection_rule", "similarity_order", "token_order")


@dataclass(frozen=True)
class Run:
    """
    One measurement of every image.

    Args:
        protocol (`str`): one of [`protocol.PROTOCOLS`].
        method (`str`): a pruning method, `"none"` for all visual tokens.
        retained (`int`): visual tokens that the language model sees.
        settings (`tuple[tuple[str, Any], ...]`): fields of the configuration that differ, with their values.
        guide_form (`str`, *optional*): what CLIP reads of a text, if not what the processor says.
    """

    protocol: str
    method: str
    retained: int
    settings: tuple[tuple[str, Any], ...] = ()
    guide_form: str | None = None

    @property
    def variant(self) -> str:
        """Method and settings, as they are asked for: `"litelvlm:position_mode=original"`."""
        settings = [*self.settings, *([("guide_form", self.guide_form)] if self.guide_form else [])]
        return self.method + ":" * bool(settings) + ",".join(f"{name}={value}" for name, value in settings)

    @property
    def name(self) -> str:
        """`"generation/litelvlm:position_mode=original/85"`; unique among the runs of an evaluation."""
        return f"{self.protocol}/{self.variant}/{self.retained}"


def parse_variant(text: str, config: LiteLVLMConfig) -> tuple[str, tuple[tuple[str, Any], ...], str | None]:
    """
    `"litelvlm:position_mode=original,guide_form=expression"` as a method, settings of the configuration, and the form
    of the guide's texts, which is a setting of the processor.

    Raises:
        ValueError: an unknown method, a field that selection does not read, or a value that the field cannot take.
    """
    method, _, rest = text.partition(":")
    settings, guide_form = [], None
    for part in rest.split(",") if rest else []:
        name, sign, value = part.partition("=")
        if name == "guide_form" and value in GUIDE_FORMS:
            guide_form = value
            continue
        if not sign or name not in SELECTION_FIELDS:
            raise ValueError(
                f"{part!r} in {text!r} is no FIELD=VALUE that selection reads; allowed are "
                f"{', '.join(SELECTION_FIELDS)}, and guide_form ({', '.join(GUIDE_FORMS)})."
            )
        settings.append((name, _parse_value(value)))
    config.resolve_pruning(pruning_method=method)
    with configured(config, dict(settings)):
        return method, tuple(settings), guide_form


def _parse_value(text: str) -> Any:
    if text == "None":
        return None
    return int(text) if text.lstrip("-").isdigit() else text


@contextmanager
def configured(config: LiteLVLMConfig, settings: dict[str, Any]) -> Iterator[None]:
    """Gives fields of a configuration other values for a while; a ValueError names one that cannot be."""
    before = {name: getattr(config, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(config, name, value)
        config.check()
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


__all__ = ["Run", "configured", "parse_variant"]
