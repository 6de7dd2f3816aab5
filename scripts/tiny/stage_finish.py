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
"""The stage "finish": the language model and SAM learn from masks together, and the model is saved."""

import argparse

from loop import load_weights
from stage_lvlm import WithPointers, train_whole
from untrained import untrained_lvlm


def train_finish(options: argparse.Namespace) -> None:
    model, processor = untrained_lvlm(options)
    whole = WithPointers(model, masks=True)
    whole.load_state_dict(load_weights(options.output / "lvlm"))
    train_whole("finish", whole, processor, options.seed + 5, options)
    model.save_pretrained(options.output / "finish" / "model")
    processor.save_pretrained(options.output / "finish" / "model")
