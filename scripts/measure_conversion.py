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
"""
Converts a checkpoint of LISA's layout at the size of a 7B or 13B Llama, made of zeros, and prints the peak memory.

    python scripts/measure_conversion.py --size 13b --folder /some/disk

Needs disk for the checkpoint twice (13b: 52 GB). The bound to keep is the largest file plus 2 GB.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from litelvlm.conversion.weights import CheckpointReader

SIZES = {"tiny": (256, 512, 4), "7b": (4096, 11008, 32), "13b": (5120, 13824, 40)}  # width, MLP width, layers
GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "lisa_tiny"


def write_checkpoint(folder: Path, size: str, shard_bytes: int) -> None:
    """The golden checkpoint with a larger language model; everything that depends on its width is new."""
    width, mlp_width, num_layers = SIZES[size]
    config = json.loads((GOLDEN / "checkpoint" / "config.json").read_text())
    changes = {"hidden_size": width, "intermediate_size": mlp_width, "num_hidden_layers": num_layers}
    changes |= {"num_attention_heads": width // 128, "num_key_value_heads": width // 128, "vocab_size": 32003}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32003, width)}
    for i in range(num_layers):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (mlp_width, width) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (width, mlp_width)}
        shapes |= {f"{layer}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (32003, width)}
    shapes |= {"model.mm_projector.weight": (width, 48), "model.mm_projector.bias": (width,)}
    shapes |= {"model.text_hidden_fcs.0.0.weight": (width, width), "model.text_hidden_fcs.0.0.bias": (width,)}
    shapes |= {"model.text_hidden_fcs.0.2.weight": (256, width)}
    golden = CheckpointReader(GOLDEN / "checkpoint")
    kept = [key for key in golden.meta if key.startswith("model.visual_model.") or key.endswith("0.2.bias")]
    shapes |= {key: tuple(golden.meta[key].shape) for key in kept}

    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for key, shape in shapes.items():
        filled += 2 * torch.Size(shape).numel()
        if filled > shard_bytes:
            shards.append({})
            filled = 2 * torch.Size(shape).numel()
        shards[-1][key] = shape
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        torch.save({key: torch.zeros(shape, dtype=torch.float16) for key, shape in shard.items()}, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder, emptied afterwards")
    parser.add_argument("--shard-gigabytes", type=float, default=5.0, help="of the files read and written")
    options = parser.parse_args()
    source, dest = options.folder / "source", options.folder / "converted"
    write_checkpoint(source, options.size, int(options.shard_gigabytes * 1e9))
    largest = max(path.stat().st_size for path in source.glob("*.bin")) / 1e9
    total = sum(path.stat().st_size for path in source.glob("*.bin")) / 1e9
    started = time.time()
    command = [sys.executable, "-m", "litelvlm", "convert", str(source), str(dest), "--clip", str(GOLDEN / "clip")]
    command += ["--seg-token-id", "32000", "--max-shard-size", f"{options.shard_gigabytes}GB"]
    subprocess.run(command, check=True)
    # Of children that have ended: only the conversion, in KiB
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(
        f"{options.size}: {total:.1f} GB in files of up to {largest:.2f} GB; peak memory {peak:.2f} GB, bound "
        f"{largest + 2:.2f} GB; {time.time() - started:.0f} s"
    )
    for folder in (source, dest):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
