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
"""The embedded model as others save and publish it."""

from pathlib import Path

import pytest

from litelvlm import load_tiny
from litelvlm.hub_cards import write_card


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ready for the Hub: weights, code, processor, card and what an endpoint runs. To be read only."""
    folder = tmp_path_factory.mktemp("hub") / "litelvlm-tiny"
    model, processor = load_tiny()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_card(folder)
    return folder


@pytest.fixture(scope="session")
def saved_text_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model without its mask decoder, laid out as a converted LLaVA. To be read only."""
    folder = tmp_path_factory.mktemp("hub") / "litelvlm-llava-1.5-7b"
    model, processor = load_tiny(sam_config=None)
    processor.with_masks, processor.question_template = False, "{}"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
