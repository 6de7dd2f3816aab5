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
"""Tensor parallelism: the plan is the backbone's own, and two processes answer as one does."""

import os
import subprocess
import sys
from pathlib import Path

import litelvlm

PROGRAM = """
import torch
import torch.distributed
import litelvlm
from litelvlm.modeling.images_litelvlm import load_rgb

sharded = litelvlm.LiteLVLMForSegmentation.from_pretrained(litelvlm.TINY_MODEL, tp_plan="auto")
whole, processor = litelvlm.load_tiny()
inputs = processor(images=load_rgb(litelvlm.EXAMPLE_IMAGE), text="the red circle")
got, expected = (model.segment(**inputs, max_new_tokens=8) for model in (sharded, whole))
weight = sharded.model.backbone.language_model.layers[0].mlp.up_proj.weight
assert 2 * weight.to_local().shape[0] == weight.shape[0]
assert torch.equal(got.sequences, expected.sequences)
assert len(got.pred_masks[0]) == 1
torch.testing.assert_close(got.pred_masks[0], expected.pred_masks[0], atol=1e-3, rtol=1e-3)
torch.distributed.destroy_process_group()
print("equal")
"""


def test_two_processes_share_the_language_model_and_agree_with_one(tmp_path):
    """Tolerance: 1e-3 on logits of masks; the answers are equal."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"]
    package = Path(litelvlm.__file__).parent.parent
    paths = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.stdout.count("equal") == 2, result.stderr[-2000:]
