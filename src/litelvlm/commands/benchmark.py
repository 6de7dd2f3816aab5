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
"""`litelvlm benchmark`: what pruning saves, stage by stage, on this machine."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .flags import add_command, add_device, add_dtype, add_methods

# Options that need a device which computes
TIMED = ("questions", "batch_sizes", "compile", "start_up")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands,
        "benchmark",
        help="measure what pruning saves on this machine",
        description="Times every stage with and without pruning, and counts memory and floating-point operations.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", help="a model of known size with random weights: cpu-small, glamm-7b and others")
    what.add_argument("--model", metavar="NAME", help="folder or Hub id of a model")
    add_dtype(parser, "as saved or of the preset")
    add_device(parser, "; meta only counts")
    add_methods(parser, "a third and a ninth")
    parser.add_argument("--runs", type=int, default=20, help="timed rounds (default: 20)")
    parser.add_argument(
        "--questions", type=int, default=0, metavar="Q", help="compare Q questions with Q calls, by the first method"
    )
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=int,
        default=[],
        metavar="B",
        help="measure images per second, by the first method",
    )
    parser.add_argument("--compile", action="store_true", help="time runs with SAM's encoder compiled too")
    parser.add_argument("--start-up", action="store_true", help="time new processes too, from the shell to the mask")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write results.json and plots")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ..benchmark.counting import count
    from ..benchmark.measuring import measure
    from ..benchmark.presets import PRESETS, Preset, build_model
    from ..benchmark.start_up import measure_start_up
    from ..configuration.configuration_litelvlm import check_choice
    from ..extras import required
    from ..hub import check_reachable
    from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
    from ..writing import write_text
    from .loading import parse_budget, pick_device, pick_dtype

    # The meta device holds no numbers: what runs on it is only counted
    device = torch.device("meta") if options.device == "meta" else pick_device(options.device)
    timed = [f"--{name.replace('_', '-')}" for name in TIMED if getattr(options, name)]
    timed += ["--dtype auto-fast"] if options.dtype == "auto-fast" else []
    if device.type == "meta" and timed:
        raise ValueError(f"--device meta only counts, and measures nothing; leave it out, or {', '.join(timed)}.")
    dtype = pick_dtype(options.dtype, None if device.type == "meta" else device)
    draws = options.output is not None and device.type != "meta"
    if draws:
        required("matplotlib")
    if options.preset is None:
        check_reachable(options.model)
        model = LiteLVLMForSegmentation.from_pretrained(options.model, dtype=dtype)
        preset = Preset(lambda: model.config, model.dtype)
    else:
        preset = PRESETS[check_choice("--preset", options.preset, PRESETS)]
        preset = preset if dtype == "auto" else replace(preset, dtype=dtype)
    config = preset.make_config()
    budgets = [parse_budget(text, config) for text in options.num_retained_tokens or []]
    if None in budgets:
        raise ValueError("--num-retained-tokens holds all, which is always measured; name numbers that prune.")
    choices: dict[str, Any] = {"methods": options.methods or ["litelvlm"], "budgets": budgets or None}
    report = {"preset": options.preset or str(options.model), "command": " ".join(["litelvlm", *sys.argv[1:]])}
    if device.type == "meta":
        report |= count(preset, **choices)
    else:
        if options.preset is not None:
            model = build_model(config, device, preset.dtype)
        report |= measure(
            model.to(device).eval(),
            preset,
            **choices,
            num_runs=options.runs,
            num_questions=options.questions,
            batch_sizes=options.batch_sizes,
            compiles=options.compile,
        )
        if options.start_up:
            report["start_up"] = measure_start_up()
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        write_text(options.output / "results.json", json.dumps(report, indent=1) + "\n")
    if draws:
        from ..benchmark.plots import plot_benchmark

        report["plots"] = [str(path) for path in plot_benchmark(report, options.output)]
    return report


def show(report: dict[str, Any]) -> None:
    from ..benchmark.candidates import TRANSFORMERS

    print(f"{report['preset']}, {report['dtype']}, {report['num_text_tokens']} text tokens")
    if "device" in report:
        show_times(report)
    rows = [row for row in report["rows"] if row["method"] != TRANSFORMERS]
    print(f"\n{'counted':20}" + "".join(f"{_name(row):>18}" for row in rows))
    lines = [("prompt tokens", [row["num_rows"] for row in rows])]
    for title, key, scale in (
        ("KV cache, MB", "kv_cache_bytes", 1e6),
        ("activations, MB", "activation_bytes", 1e6),
        ("peak memory, MB", "peak_bytes", 1e6),
        ("prefill GMACs, paper", "language_model_macs", 1e9),
    ):
        if key in rows[0]:
            lines.append((title, [row[key] / scale for row in rows]))
    for stage in ("plain_clip", "clip", "guide", "selection", "prefill", "sam_encoder", "mask_decoder", "total"):
        lines.append((f"{stage}, GFLOP", [row["flops"].get(stage, 0) / 1e9 for row in rows]))
    for title, values in lines:
        print(f"{title:20}" + "".join(f"{value:18,.1f}" for value in values))
    for budget, figures in report["summary"].items():
        print(f"\n{budget} of {report['num_visual_tokens']} visual tokens, against un-pruned in this run:")
        print("  " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    for entry in report.get("questions", []):
        together, speedup = entry["milliseconds"]["median"], entry["speedup"]
        print(
            f"{entry['number']} questions on one image, {_name(entry)}: {together:.1f} ms in one call, {speedup:.2f}x "
            "faster than a call each"
        )
    for entry in report.get("throughput", []):
        print(
            f"batch of {entry['batch_size']}, {_name(entry)}: {entry['images_per_second']:.2f} images per second, "
            f"prefill {entry['prefill_milliseconds']['median']:.1f} ms"
        )
    for name, figures in report.get("start_up", {}).items():
        times = f"{figures['median']:.2f} s ({figures['first']:.2f} s at first)"
        print(f"{name}: {times}, {figures['ratio']:.2f} times the bare imports")


def show_times(report: dict[str, Any]) -> None:
    from ..benchmark.candidates import ANSWERS, COMPILED, STAGES

    device, rows = report["device"], report["rows"]
    print(
        f"{device['name']}: copies {device['copy_bytes_per_second'] / 1e9:.1f} GB/s, matrix products "
        f"{device['matmul_flops_per_second'] / 1e9:.1f} GFLOP/s\n"
    )
    print(f"{'ms, ' + str(report['num_runs']) + ' runs':20}" + "".join(f"{_name(row):>18}" for row in rows))
    for stage in (*STAGES, *ANSWERS, *(COMPILED if "compiled" in rows[1]["milliseconds"] else ())):
        print(f"{stage:20}" + "".join(_cell(row["milliseconds"].get(stage)) for row in rows))
    for stage in rows[1]["floor_milliseconds"]:
        ratios = [row["milliseconds"][stage]["median"] / row["floor_milliseconds"][stage] for row in rows[1:]]
        print(f"{stage + '/floor':20}{'':18}" + "".join(f"{ratio:18.2f}" for ratio in ratios))
    if report["transformers_float32"] is not None:
        print(f"{'end_to_end, float32':20}" + _cell(report["transformers_float32"]))
    if report["peak_resident_bytes"] is not None:
        print(f"most memory of the process: {report['peak_resident_bytes'] / 1e9:.2f} GB")


def _name(row: dict[str, Any]) -> str:
    if row["method"] == "none":
        return "un-pruned"
    return row["method"] if row["num_retained_tokens"] is None else f"{row['method']} {row['num_retained_tokens']}"


def _cell(spread: dict[str, float] | None) -> str:
    if spread is None:
        return f"{'':18}"
    return f"{spread['median']:10.1f} ±{(spread['q3'] - spread['q1']) / 2:6.1f}"


__all__ = ["add_parser", "run", "show"]
