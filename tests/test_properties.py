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
"""Every property of properties.py, with a few examples each, the same in every run."""

import pytest
from hypothesis import HealthCheck, given, settings

from .properties import PROPERTIES

FEW = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_hostile_input_gives_a_right_result_or_one_typed_error(check):
    FEW(given(PROPERTIES[check])(check))()
