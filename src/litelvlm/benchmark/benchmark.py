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
`litelvlm benchmark`: what pruning saves, stage by stage, on this machine.

Everything is measured in one process on one model, the candidates in turn within each round, so that a change of the
machine's mood reaches all of them: Transformers' own LLaVA and SAM one after the other, this package un-pruned, and
each method at each budget. Random weights serve as well as trained ones; [SEG] is forced as the last token of every
answer.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image
from tokenizers import models as tokenizer_models
from transformers import (
    CLIPImageProcessor,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SamImageProcessor,
)

from ..configuration.configuration_litelvlm import LiteLVLMConfig
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from .costs import GUIDE_LENGTH, LiveMemory, kv_cache_bytes, language_model_macs, model_flops
from .presets import PRESETS, Preset, build_model
from .roofline import floor_ms, measure_device
from .timing import StageClock

# The candidate that Transformers' own classes make up
TRANSFORMERS = "transformers"

STAGES = (
    "image_processing",
    "clip",
    "guide",
    "selection",
    "prefill",
    "decode_per_token",
    "sam_encoder",
    "mask_decoder",
    "post_processing",
    "end_to_end",
)


class Benchmark:
    """
    A model with a picture and a question of given size, and the runs to be timed.

    Args:
        model: the model to measure, on its device.
        preset: says how long prompt and answer are.

    Raises:
        ValueError: the model's backbone is not LLaVA.
    """

    def __init__(self, model: LiteLVLMForSegmentation, preset: Preset):
        config = model.config
        if config.backbone_config.model_type != "llava":
            raise ValueError(
                f"The model's backbone is {config.backbone_config.model_type!r}; the benchmark compares with "
                "Transformers' LLaVA and measures 'llava' only."
            )
        self.model, self.config, self.preset = model, config, preset
        self.device: torch.device = model.device
        self.makes_masks = config.sam_config is not None
        self.processor = _make_processor(config)
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        self.picture = Image.fromarray(pixels)
        self.clock = StageClock(self.device)
        self._watch()

    def _watch(self) -> None:
        model, inner = self.model, self.model.model
        # The same weights inside Transformers' own classes
        with torch.device("meta"):
            self.lvlm = LlavaForConditionalGeneration(self.config.backbone_config).eval()
        self.lvlm.model, self.lvlm.lm_head = inner.backbone, model.lm_head
        for module, name in (
            (inner, "model"),
            (inner.backbone, "model"),
            (inner.backbone.vision_tower, "clip"),
            (inner.backbone.multi_modal_projector, "projector"),
            (inner.backbone.language_model, "language_model"),
            (inner.guide, "guide"),
        ):
            self.clock.watch(module, name)
        self.clock.watch_method(inner, "encode_image", "clip")
        if self.makes_masks:
            self.clock.watch(model.sam.vision_encoder, "sam_encoder")
            self.clock.watch_method(model.sam, "decode_masks", "mask_decoder")

    def prompt(self, num_questions: int = 1) -> dict[str, torch.Tensor]:
        """Random questions about one image each: the tensors that a processor would give, but for the pictures."""
        config, generator = self.config, torch.Generator().manual_seed(0)
        num_before = self.preset.num_text_tokens // 2
        length = self.preset.num_text_tokens + config.num_patches
        ids = torch.randint(3, config.get_text_config().vocab_size, (num_questions, length), generator=generator)
        for special in (config.image_token_id, config.seg_token_id):
            ids[ids == special] = 3
        ids[:, num_before : num_before + config.num_patches] = config.image_token_id
        guide = config.guide_config
        guide_ids = torch.randint(0, guide.vocab_size, (num_questions, 1, GUIDE_LENGTH), generator=generator)
        # CLIP's first configurations have an end token of 2 and mean the highest id
        end = guide.vocab_size - 1 if guide.eos_token_id == 2 else guide.eos_token_id
        guide_ids[guide_ids == end] = 0
        guide_ids[..., -1] = end
        prompt = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "guide_input_ids": guide_ids,
            "guide_attention_mask": torch.ones_like(guide_ids),
        }
        return {name: value.to(self.device) for name, value in prompt.items()}

    def process(self, num_images: int = 1) -> dict[str, torch.Tensor]:
        """The pictures as tensors on the device."""
        pictures = [self.picture] * num_images
        inputs = {"pixel_values": self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]}
        if self.makes_masks:
            prepared = self.processor.sam_image_processor(pictures, return_tensors="pt")
            inputs["sam_pixel_values"] = prepared["pixel_values"]
            for name in ("original_sizes", "reshaped_input_sizes"):
                inputs[name] = torch.as_tensor(prepared[name])
        for name in ("pixel_values", "sam_pixel_values"):
            if name in inputs:
                inputs[name] = inputs[name].to(self.device, self.model.dtype)
        return inputs

    def _generation(self) -> dict[str, Any]:
        """Answers of fixed length, with [SEG] as their last token."""
        length = {"max_new_tokens": self.preset.num_new_tokens, "eos_token_id": None, "pad_token_id": 0}
        return length | {"do_sample": False, "forced_eos_token_id": self.config.seg_token_id}

    def run(self, method: str, budget: int | None, num_questions: int = 1, num_images: int = 1) -> Any:
        """From a picture to its masks at full size (or to the answer, without a mask decoder), once."""
        if method == TRANSFORMERS:
            return self._run_transformers()
        prompt = self.prompt(num_questions)
        options = {"pruning_method": method, "num_retained_tokens": budget} | self._generation()
        with self.clock.stage("end_to_end"):
            with self.clock.stage("image_processing"):
                inputs = self.process(num_images)
            if not self.makes_masks:
                return self.model.generate(**prompt, **inputs, **options)
            output = self.model.segment(**prompt, **inputs, **options)
            with self.clock.stage("post_processing"):
                return [mask.cpu() for mask in self.processor.post_process_masks(output, inputs)]

    def _run_transformers(self) -> Any:
        """LLaVA of Transformers, then its SAM, as they come; [SEG]'s hidden state out of the whole history."""
        prompt = self.prompt()
        prompt = {name: prompt[name] for name in ("input_ids", "attention_mask")}
        with self.clock.stage("end_to_end"):
            with self.clock.stage("image_processing"):
                inputs = self.process()
            output = self.lvlm.generate(
                **prompt,
                pixel_values=inputs["pixel_values"],
                output_hidden_states=self.makes_masks,
                return_dict_in_generate=True,
                **self._generation(),
            )
            if not self.makes_masks:
                return output.sequences
            sam = self.model.sam
            embedding = self.model.seg_head(output.hidden_states[-1][-1][:, -1:])
            image_embeddings = sam.get_image_embeddings(inputs["sam_pixel_values"])
            output.pred_masks = list(sam.decode_masks(embedding, image_embeddings)[0])
            with self.clock.stage("post_processing"):
                return [mask.cpu() for mask in self.processor.post_process_masks(output, inputs)]

    def milliseconds(self) -> dict[str, float]:
        """The stages of the run that just ended."""
        spans = self.clock.spans()
        total = {name: sum(end - start for start, end in calls) for name, calls in spans.items()}
        times = {name: total[name] for name in STAGES if name in total}
        forwards, prefill = spans["model"], spans["language_model"][0]
        times["prefill"] = prefill[1] - prefill[0]
        if len(forwards) > 1:
            times["decode_per_token"] = (forwards[-1][1] - forwards[0][1]) / (len(forwards) - 1)
        if "guide" in total:
            # All that stands between the question and the language model, but what an un-pruned model has too
            inside = sum(end - start for start, end in spans["clip"] if start >= forwards[0][0])
            times["selection"] = prefill[0] - forwards[0][0] - total["guide"] - total["projector"] - inside
        return times

    def memory(self, method: str, budget: int | None) -> dict[str, int]:
        """Bytes of what the prefill makes (its cache included) at its peak, and of a whole run with the weights."""
        prompt, inputs = self.prompt(), self.process()
        options = {"pruning_method": method, "num_retained_tokens": budget}
        state = self.model.encode_image(inputs["pixel_values"])
        weights = {p.data_ptr(): p.nbytes for p in self.model.parameters()}
        return {
            "activation_bytes": self._peak_bytes(
                lambda: self.model(**prompt, image_state=state, logits_to_keep=1, use_cache=True, **options)
            ),
            "peak_bytes": sum(weights.values()) + self._peak_bytes(lambda: self.run(method, budget)),
        }

    def _peak_bytes(self, run: Any) -> int:
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
                torch.cuda.reset_peak_memory_stats(self.device)
                before = torch.cuda.memory_allocated(self.device)
                run()
                torch.cuda.synchronize(self.device)
                return torch.cuda.max_memory_allocated(self.device) - before
            with LiveMemory() as memory:
                run()
            return memory.peak_bytes
        finally:
            self.clock.spans()


def _make_processor(config: LiteLVLMConfig) -> LiteLVLMProcessor:
    """Pictures as the configuration wants them; no text is tokenised, so the tokenizers know none."""
    blank = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizer_models.WordLevel({"?": 0}, unk_token="?"))
    )
    side = config.backbone_config.vision_config.image_size
    clip = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    if config.sam_config is None:
        return LiteLVLMProcessor(clip, blank, blank, with_masks=False)
    side = config.sam_config.vision_config.image_size
    square = {"height": side, "width": side}
    sam = SamImageProcessor(
        size={"longest_edge": side},
        pad_size=square,
        mask_size={"longest_edge": side // 4},
        mask_pad_size={name: edge // 4 for name, edge in square.items()},
    )
    return LiteLVLMProcessor(clip, blank, blank, sam)


def measure(
    model: LiteLVLMForSegmentation,
    preset: Preset,
    *,
    methods: Iterable[str] = ("litelvlm",),
    budgets: Iterable[int] | None = None,
    num_runs: int = 20,
    num_questions: int = 0,
    batch_sizes: Iterable[int] = (),
) -> dict[str, Any]:
    """
    Measures every candidate and compares each with the un-pruned model of the same run.

    Args:
        model: on its device, in evaluation mode.
        preset: says how long prompt and answer are.
        methods: pruning methods.
        budgets: visual tokens to retain; by default a third and a ninth of all.
        num_runs (`int`): timed rounds, after two that are not.
        num_questions (`int`): if above 1, so many questions on one image are compared with as many calls.
        batch_sizes: if any, images per second at each of them, with the first method at the first budget.

    Returns:
        `dict[str, Any]`: `device`, `versions`, `rows` (one per candidate: per stage the median and the quartiles in
        milliseconds, memory in bytes, floating-point operations, and the floor of the roofline), `summary` (per
        budget, of the first method), and `questions` and `throughput` where asked for.

    Raises:
        ValueError: a method or budget that the model cannot take, or no runs.
    """
    if num_runs < 1:
        raise ValueError(f"`num_runs` is {num_runs}; allowed are integers of at least 1.")
    methods, budgets = _check_candidates(model.config, methods, budgets)
    candidates: list[tuple[str, int | None]] = [(TRANSFORMERS, None), ("none", None)]
    candidates += [(method, budget) for method in methods for budget in budgets]
    on_device = torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext()
    with on_device, torch.inference_mode():
        rates = measure_device(model.device, model.dtype)
        bench = Benchmark(model, preset)
        try:
            rows = _measure_rows(bench, candidates, num_runs, rates)
            report = {
                "device": _describe_device(model.device) | rates,
                "versions": _versions(),
                "dtype": str(model.dtype).removeprefix("torch."),
                "num_visual_tokens": model.config.num_patches,
                "num_text_tokens": preset.num_text_tokens,
                "num_new_tokens": preset.num_new_tokens,
                "num_runs": num_runs,
                "rows": rows,
                "summary": _summarise(rows, methods[0], budgets),
            }
            if num_questions > 1:
                report["questions"] = _measure_questions(bench, methods[0], budgets[0], num_questions, num_runs)
            sizes = list(batch_sizes)
            if sizes:
                report["throughput"] = _measure_throughput(bench, methods[0], budgets[0], sizes, num_runs)
        finally:
            bench.clock.close()
    return report


def count(
    preset: Preset, *, methods: Iterable[str] = ("litelvlm",), budgets: Iterable[int] | None = None
) -> dict[str, Any]:
    """
    What `measure` reports of a preset without running it, and without any weights in memory: rows, cache bytes and
    operations, and `flops_ratio` per budget.

    Raises:
        ValueError: a method or budget that the model cannot take.
    """
    config = preset.make_config()
    methods, budgets = _check_candidates(config, methods, budgets)
    candidates: list[tuple[str, int | None]] = [("none", None)]
    candidates += [(method, budget) for method in methods for budget in budgets]
    rows = [
        {"method": method, "num_retained_tokens": budget} | _count(config, preset, method, budget)
        for method, budget in candidates
    ]
    prefill = [row["flops"]["prefill"] for row in rows]
    return {
        "dtype": str(preset.dtype).removeprefix("torch."),
        "versions": _versions(),
        "num_visual_tokens": config.num_patches,
        "num_text_tokens": preset.num_text_tokens,
        "rows": rows,
        "summary": {
            str(budget): {"flops_ratio": prefill[0] / own} for budget, own in zip(budgets, prefill[1:], strict=False)
        },
    }


def _count(config: LiteLVLMConfig, preset: Preset, method: str, budget: int | None) -> dict[str, Any]:
    num_rows = preset.num_text_tokens + (config.num_patches if budget is None else budget)
    return {
        "num_rows": num_rows,
        "kv_cache_bytes": kv_cache_bytes(config, num_rows, preset.dtype),
        "language_model_macs": language_model_macs(config, num_rows),
        "flops": model_flops(config, preset.num_text_tokens, budget, method),
    }


def _check_candidates(
    config: LiteLVLMConfig, methods: Iterable[str], budgets: Iterable[int] | None
) -> tuple[list[str], list[int]]:
    """Methods and budgets, by default a third and a ninth of all tokens."""
    methods = list(methods)
    budgets = [config.num_patches // 3, config.num_patches // 9] if budgets is None else list(budgets)
    for method in methods:
        for budget in budgets:
            if config.resolve_budget(budget, method) is None:
                raise ValueError("The method 'none' is always measured; name methods that prune.")
    return methods, budgets


def _measure_rows(
    bench: Benchmark, candidates: list[tuple[str, int | None]], num_runs: int, rates: dict[str, float]
) -> list[dict[str, Any]]:
    times: list[dict[str, list[float]]] = [{} for _ in candidates]
    for number in range(-2, num_runs):
        for candidate, own in zip(candidates, times, strict=True):
            bench.run(*candidate)
            for stage, value in bench.milliseconds().items():
                if number >= 0:
                    own.setdefault(stage, []).append(value)
    rows = []
    for (method, budget), own in zip(candidates, times, strict=True):
        row: dict[str, Any] = {"method": method, "num_retained_tokens": budget}
        row["milliseconds"] = {stage: _spread(own[stage]) for stage in STAGES if stage in own}
        if method != TRANSFORMERS:
            row |= _count(bench.config, bench.preset, method, budget) | bench.memory(method, budget)
            row["floor_milliseconds"] = _floors(bench, row, rates)
        rows.append(row)
    return rows


def _floors(bench: Benchmark, row: dict[str, Any], rates: dict[str, float]) -> dict[str, float]:
    """The roofline's least time of the stages that are mostly matrix products: each weight is read once."""
    backbone, flops = bench.model.model.backbone, row["flops"]
    head = bench.model.lm_head.weight.nbytes
    weights = {
        "clip": sum(p.nbytes for p in backbone.vision_tower.parameters()),
        "prefill": sum(p.nbytes for p in backbone.language_model.layers.parameters()),
    }
    if bench.makes_masks:
        weights["sam_encoder"] = sum(p.nbytes for p in bench.model.sam.vision_encoder.parameters())
    floors = {stage: floor_ms(flops[stage], num_bytes, rates) for stage, num_bytes in weights.items()}
    decode_bytes = weights["prefill"] + head + row["kv_cache_bytes"]
    floors["decode_per_token"] = floor_ms(flops["prefill"] / row["num_rows"], decode_bytes, rates)
    return floors


def _summarise(rows: list[dict[str, Any]], method: str, budgets: list[int]) -> dict[str, dict[str, float]]:
    def median(row: dict[str, Any], stage: str) -> float:
        return row["milliseconds"][stage]["median"]

    full = next(row for row in rows if row["method"] == "none")
    summary = {}
    for budget in budgets:
        row = next(row for row in rows if (row["method"], row["num_retained_tokens"]) == (method, budget))
        summary[str(budget)] = {
            "prefill_speedup": median(full, "prefill") / median(row, "prefill"),
            "selection_share": median(row, "selection") / median(row, "prefill"),
            "end_to_end_speedup": median(full, "end_to_end") / median(row, "end_to_end"),
            "activation_ratio": full["activation_bytes"] / row["activation_bytes"],
            "flops_ratio": full["flops"]["prefill"] / row["flops"]["prefill"],
        }
    return summary


def _measure_questions(bench: Benchmark, method: str, budget: int, number: int, num_runs: int) -> dict[str, Any]:
    """Several questions on one image: in one call, which encodes the image once, and in a call for each."""
    together, apart = [], []
    for i in range(-1, num_runs):
        bench.run(method, budget, num_questions=number)
        shared = bench.milliseconds()["end_to_end"]
        single = 0.0
        for _ in range(number):
            bench.run(method, budget)
            single += bench.milliseconds()["end_to_end"]
        if i >= 0:
            together.append(shared)
            apart.append(single)
    speedup = statistics.median(apart) / statistics.median(together)
    result: dict[str, Any] = {"number": number, "num_retained_tokens": budget, "speedup": speedup}
    return result | {"one_call": _spread(together), "a_call_each": _spread(apart)}


def _measure_throughput(
    bench: Benchmark, method: str, budget: int, batch_sizes: list[int], num_runs: int
) -> list[dict[str, Any]]:
    """Images per second, each with a question of its own, at several batch sizes in turn."""
    times: dict[int, list[float]] = {size: [] for size in batch_sizes}
    for i in range(-1, num_runs):
        for size in batch_sizes:
            bench.run(method, budget, num_questions=size, num_images=size)
            elapsed = bench.milliseconds()["end_to_end"]
            if i >= 0:
                times[size].append(elapsed)
    return [
        {"batch_size": size, "images_per_second": 1000 * size / statistics.median(own), "milliseconds": _spread(own)}
        for size, own in times.items()
    ]


def _spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, high = np.percentile(values, [25, 75]).tolist()
    return {"median": statistics.median(values), "q1": low, "q3": high}


def _describe_device(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    return {
        "type": device.type,
        "name": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


# --- the command ---------------------------------------------------------------------------------------------------


def add_commands(commands: Any) -> None:
    """Adds `benchmark` to the command line's sub-parsers."""
    benchmark = commands.add_parser(
        "benchmark",
        help="measure what pruning saves on this machine",
        description="Times every stage with and without pruning, and counts memory and floating-point operations.",
    )
    what = benchmark.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", choices=list(PRESETS), help="a model of this size with random weights")
    what.add_argument("--model", metavar="DIR", help="folder or Hub id of a model")
    benchmark.add_argument("--methods", nargs="+", default=["litelvlm"], metavar="NAME", help="(default: litelvlm)")
    benchmark.add_argument(
        "--budgets", nargs="+", type=int, metavar="K", help="tokens to keep (default: a third and a ninth)"
    )
    benchmark.add_argument("--runs", type=int, default=20, help="timed rounds (default: 20)")
    benchmark.add_argument("--questions", type=int, default=0, metavar="Q", help="compare Q questions with Q calls")
    benchmark.add_argument(
        "--batch-sizes", nargs="+", type=int, default=[], metavar="B", help="measure images per second too"
    )
    benchmark.add_argument("--device", default="cpu", help="such as cpu or cuda:0; meta only counts (default: cpu)")
    benchmark.add_argument("--output", type=Path, metavar="FOLDER", help="write results.json and plots")
    benchmark.add_argument("--json", action="store_true", help="print one JSON object")
    benchmark.set_defaults(run=benchmark_command, show=print_benchmark)


def benchmark_command(options: argparse.Namespace) -> dict[str, Any]:
    """Runs `litelvlm benchmark`."""
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device is {options.device} but no GPU is available here; allowed is cpu.")
    choices = {"methods": options.methods, "budgets": options.budgets}
    if options.preset is not None:
        preset = PRESETS[options.preset]
    else:
        model = LiteLVLMForSegmentation.from_pretrained(options.model, dtype="auto")
        preset = Preset(lambda: model.config, model.dtype)
    report = {"preset": options.preset or str(options.model), "command": " ".join(["litelvlm", *sys.argv[1:]])}
    if device.type == "meta":
        report |= count(preset, **choices)
    else:
        if options.preset is not None:
            model = build_model(preset.make_config(), device, preset.dtype)
        report |= measure(
            model.to(device).eval(),
            preset,
            **choices,
            num_runs=options.runs,
            num_questions=options.questions,
            batch_sizes=options.batch_sizes,
        )
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
        if device.type != "meta":
            report["plots"] = _write_plots(report, options.output)
    return report


def _write_plots(report: dict[str, Any], folder: Path) -> list[str]:
    """Plots need matplotlib, of the extra `eval`; figures alone do not."""
    try:
        from .benchmark_plots import plot_benchmark
    except ImportError:
        return []
    return [str(path) for path in plot_benchmark(report, folder)]


def print_benchmark(report: dict[str, Any]) -> None:
    rows = report["rows"]
    print(f"{report['preset']}, {report['dtype']}, {report['num_text_tokens']} text tokens")
    if "device" in report:
        _print_times(report)
    rows = [row for row in rows if row["method"] != TRANSFORMERS]
    print(f"\n{'counted':20}" + "".join(f"{_name(row):>18}" for row in rows))
    lines = [("rows", [row["num_rows"] for row in rows])]
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
    if "questions" in report:
        asked = report["questions"]
        print(
            f"\n{asked['number']} questions on one image, in one call: {asked['speedup']:.2f}x faster than a call each"
        )
    for entry in report.get("throughput", []):
        print(f"batch of {entry['batch_size']}: {entry['images_per_second']:.2f} images per second")


def _print_times(report: dict[str, Any]) -> None:
    device, rows = report["device"], report["rows"]
    print(
        f"{device['name']}: copies {device['copy_bytes_per_second'] / 1e9:.1f} GB/s, matrix products "
        f"{device['matmul_flops_per_second'] / 1e9:.1f} GFLOP/s\n"
    )
    print(f"{'ms, ' + str(report['num_runs']) + ' runs':20}" + "".join(f"{_name(row):>18}" for row in rows))
    for stage in STAGES:
        print(f"{stage:20}" + "".join(_cell(row["milliseconds"].get(stage)) for row in rows))
    for stage in rows[1]["floor_milliseconds"]:
        ratios = [row["milliseconds"][stage]["median"] / row["floor_milliseconds"][stage] for row in rows[1:]]
        print(f"{stage + '/floor':20}{'':18}" + "".join(f"{ratio:18.2f}" for ratio in ratios))


def _name(row: dict[str, Any]) -> str:
    if row["method"] == "none":
        return "un-pruned"
    return row["method"] if row["num_retained_tokens"] is None else f"{row['method']} {row['num_retained_tokens']}"


def _cell(spread: dict[str, float] | None) -> str:
    if spread is None:
        return f"{'':18}"
    return f"{spread['median']:10.1f} ±{(spread['q3'] - spread['q1']) / 2:6.1f}"


__all__ = ["Benchmark", "add_commands", "count", "measure"]
