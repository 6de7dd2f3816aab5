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
"""The dtype that `auto-fast` stands for."""

import pytest
import torch

from litelvlm.commands import loading
from litelvlm.commands.main import main

CPU = torch.device("cpu")


@pytest.mark.parametrize(("narrow", "dtype"), [(4e11, torch.bfloat16), (1e10, torch.float32), (1.4e11, torch.float32)])
def test_the_fast_dtype_is_the_one_that_the_device_multiplies_faster(narrow, dtype, monkeypatch, capsys):
    rates = {torch.float32: 1e11, torch.bfloat16: narrow}
    monkeypatch.setattr(loading, "matmul_rate", lambda device, dtype, side, num_runs: rates[dtype])
    assert loading.pick_dtype("auto-fast", CPU) == dtype
    said = capsys.readouterr().err
    assert (
        f"auto-fast is {str(dtype).removeprefix('torch.')}: " in said
        and f"{narrow / 1e11:.2g} times" in said
        and "on cpu" in said
    )
    seen = []
    monkeypatch.setattr(
        loading.LiteLVLMForSegmentation, "from_pretrained", lambda name, dtype, device_map: seen.append(dtype)
    )
    with pytest.raises(AttributeError, match="NoneType"):  # nothing was loaded
        main(["segment", "example", "the red circle", "--dtype", "auto-fast", "--debug"])
    assert seen == [dtype]


def test_the_fast_dtype_is_measured_here(capsys):
    rates = {dtype: loading.matmul_rate(CPU, dtype, 256) for dtype in (torch.float32, torch.bfloat16)}
    assert min(rates.values()) > 1e6
    assert loading.pick_dtype("auto-fast", CPU) in rates
    assert "times as fast as in float32" in capsys.readouterr().err
    assert loading.pick_dtype("auto", CPU) == "auto" and loading.pick_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match=r"'bfloat16', 'float16'\."):
        loading.pick_dtype("auto-fast")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "model", "folder"], "a model that runs right here"),
        (["verify", "folder"], "a model that runs right here"),
        (["serve"], "'bfloat16', 'float16'."),
        (["annotate", "images", "rows.parquet", "--text", "a", "--engine", "ray"], "each machine"),
        (
            ["benchmark", "--preset", "cpu-small", "--device", "meta"],
            "leave it out, or --dtype auto-fast.",
        ),
    ],
)
def test_what_is_written_or_spread_has_a_dtype_that_depends_on_no_machine(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--dtype", "auto-fast"]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
