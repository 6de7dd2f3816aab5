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
"""The least time that a stage could take."""

from litelvlm.benchmark.roofline import floor_ms


def test_the_floor_is_the_slower_of_computing_and_reading():
    rates = {"matmul_flops_per_second": 1e9, "copy_bytes_per_second": 1e6}
    assert floor_ms(2e9, 1e6, rates) == 2000
    assert floor_ms(1e9, 3e6, rates) == 3000
