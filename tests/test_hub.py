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
"""What is written to files that are published says nothing of the machine."""

import pytest

from litelvlm.hub import public_message


@pytest.mark.parametrize(
    ("message", "public"),
    [
        ("There is no file '/home/me/set/a.png'.", "There is no file 'a.png'."),
        ("'/data/my set/val.json': annotation 3: torn.", "'val.json': annotation 3: torn."),
        ('image 5: "/data/it\'s here/a.png" cannot be read.', "image 5: 'a.png' cannot be read."),
        (r"There is no file 'C:\\Users\\me\\a.png'.", "There is no file 'a.png'."),
        ("There is no file 'images/a.png'.", "There is no file 'images/a.png'."),
        ("'https://host/a.png' cannot be fetched", "'https://host/a.png' cannot be fetched"),
    ],
)
def test_absolute_paths_become_names(message, public):
    assert public_message(message) == public
