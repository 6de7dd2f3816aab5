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
What is measured of a model: time per stage, memory and operations of every candidate, and what pruning saves.

Everything is measured in one process on one model, the candidates in turn within each round, so that a machine that
slows down slows all of them alike.
"""

import statistics
from collections.abc import Iterable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from .candidates import ANSWERS, COMPILED, STAGES, TRANSFORMERS, Benchmark
from .counting import check_candidates, count_row
from .environment import describe_device, peak_resident_bytes, versions
from .presets import Preset
from .roofline import floor_ms, measure_device


def measure(
    model: LiteLVLMForSegmentation,
    preset: Preset,
    *,
    methods: Iterable[str] = ("litelvlm",),
    budgets: Iterable[int] | None = None,
    num_runs: int = 20,
    num_questions: int = 0,
    batch_sizes: Iterable[int] = (),
    compiles: bool = False,
) -> dict[str, Any]:
    """
    Measures every candidate and compares each with the un-pruned model in the same rounds.

    Args:
        model: on its device, in evaluation mode.
        preset: says how long prompt and answer are.
        methods: pruning methods.
        budgets: numbers of visual tokens to retain; by default a third and a ninth of all.
        num_runs (`int`): timed rounds, after two that are not.
        num_questions (`int`): if any, so many questions on one image are compared with as many calls.
        batch_sizes: if any, images per second at each of them, un-pruned and with the first method at each budget.
        compiles (`bool`): whether runs with SAM's encoder compiled are timed too.

    Returns:
        `dict[str, Any]`: `device`, `versions`, `rows` (one per candidate: per stage the median and the quartiles in
        milliseconds, memory in bytes, floating-point operations, and the floor of the roofline), `summary` (per
        budget, of the first method), and `questions` and `throughput` where asked for.

    Raises:
        ValueError: a method or budget that the model cannot take, no runs, numbers of questions or images that
            are too small, or `compiles` for a model without SAM.
    """
    if num_runs < 1:
        raise ValueError(f"`num_runs` is {num_runs}; allowed are integers of at least 1.")
    if num_questions < 0 or num_questions == 1:
        raise ValueError(f"`num_questions` is {num_questions}; allowed are 0, for none, and integers of at least 2.")
    sizes = list(batch_sizes)
    if too_small := [size for size in sizes if size < 1]:
        raise ValueError(f"`batch_sizes` holds {too_small[0]}; allowed are integers of at least 1.")
    if compiles and model.config.sam_config is None:
        raise ValueError("`compiles` is True, and the model has no SAM to compile; leave it out.")
    methods, budgets = check_candidates(model.config, methods, budgets)
    candidates: list[tuple[str, int | None]] = [(TRANSFORMERS, None), ("none", None)]
    candidates += [(method, budget) for method in methods for budget in budgets]
    on_device = torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext()
    with on_device, torch.inference_mode():
        rates = measure_device(model.device, model.dtype)
        # Both naive compositions run in the same rounds
        wide = None if model.dtype == torch.float32 else Benchmark(deepcopy(model).float(), preset)
        bench = Benchmark(model, preset)
        try:
            rows, wide_times = _measure_rows(bench, candidates, num_runs, rates, wide, COMPILED if compiles else {})
            report = {
                "device": describe_device(model.device) | rates,
                "versions": versions(),
                "dtype": str(model.dtype).removeprefix("torch."),
                "num_visual_tokens": model.config.num_patches,
                "num_text_tokens": preset.num_text_tokens,
                "num_new_tokens": preset.num_new_tokens,
                "num_runs": num_runs,
                "rows": rows,
                "summary": _summarise(rows, methods[0], budgets, wide_times),
                "transformers_float32": wide_times,
                "peak_resident_bytes": peak_resident_bytes(),
            }
            of_first: list[tuple[str, int | None]] = [("none", None), *((methods[0], budget) for budget in budgets)]
            if num_questions:
                report["questions"] = _measure_questions(bench, of_first, num_questions, num_runs)
            if sizes:
                report["throughput"] = _measure_throughput(bench, of_first, sizes, num_runs)
        finally:
            bench.clock.close()
    return report


def _measure_rows(
    bench: Benchmark,
    candidates: list[tuple[str, int | None]],
    num_runs: int,
    rates: dict[str, float],
    wide: Benchmark | None,
    compiled: dict[str, str | None],
) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """A row for each candidate, and the time of Transformers' classes in float32 end to end, if `wide` is given."""
    times: list[dict[str, list[float]]] = [{} for _ in candidates]
    wide_times: list[float] = []
    for number in range(-2, num_runs):
        for (method, budget), own in zip(candidates, times, strict=True):
            bench.run(method, budget)
            measured = bench.milliseconds()
            if bench.makes_masks and method != TRANSFORMERS:
                for name in (*ANSWERS, *compiled):
                    with bench.compiled() if name in compiled else nullcontext():
                        bench.run(method, budget, answer=compiled.get(name, name))
                    measured[name] = bench.milliseconds()["end_to_end"]
            for stage, value in measured.items():
                if number >= 0:
                    own.setdefault(stage, []).append(value)
        if wide is not None:
            wide.run(TRANSFORMERS, None)
            elapsed = wide.milliseconds()["end_to_end"]
            if number >= 0:
                wide_times.append(elapsed)
    rows = []
    for (method, budget), own in zip(candidates, times, strict=True):
        row: dict[str, Any] = {"method": method, "num_retained_tokens": budget}
        row["milliseconds"] = {stage: _spread(own[stage]) for stage in (*STAGES, *ANSWERS, *COMPILED) if stage in own}
        if method != TRANSFORMERS:
            row |= count_row(bench.config, bench.preset, method, budget) | bench.memory(method, budget)
            row["floor_milliseconds"] = _floors(bench, row, rates)
        rows.append(row)
    return rows, _spread(wide_times) if wide_times else None


def _floors(bench: Benchmark, row: dict[str, Any], rates: dict[str, float]) -> dict[str, float]:
    """Least milliseconds, by the roofline, of the stages that are mostly matrix products; each weight is read once."""
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


def _summarise(
    rows: list[dict[str, Any]], method: str, budgets: list[int], wide: dict[str, float] | None
) -> dict[str, dict[str, float]]:
    def median(row: dict[str, Any], stage: str) -> float:
        return row["milliseconds"][stage]["median"]

    naive = {"transformers": median(rows[0], "end_to_end")} | ({} if wide is None else {"float32": wide["median"]})
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
        for stage in ("end_to_end", *ANSWERS, *COMPILED):
            if stage in row["milliseconds"]:
                summary[str(budget)] |= {f"{stage}_vs_{name}": ms / median(row, stage) for name, ms in naive.items()}
    return summary


def _measure_questions(
    bench: Benchmark, candidates: list[tuple[str, int | None]], number: int, num_runs: int
) -> list[dict[str, Any]]:
    """
    Several questions on one image, by each candidate: in one call, which encodes the image once, and in a call for
    each, all of which take as long as the one that is timed.
    """
    times = _time_in_turn(
        bench, [((*candidate, asked), num_runs) for candidate in candidates for asked in (number, 1)]
    )
    entries = []
    for (name, budget), of_all, of_one in zip(candidates, times[::2], times[1::2], strict=True):
        together, alone = (_spread([run["end_to_end"] for run in own]) for own in (of_all, of_one))
        entry: dict[str, Any] = {"number": number, "method": name, "num_retained_tokens": budget}
        speedup = number * alone["median"] / together["median"]
        entries.append(entry | {"speedup": speedup, "milliseconds": together, "one_question_milliseconds": alone})
    return entries


def _measure_throughput(
    bench: Benchmark, candidates: list[tuple[str, int | None]], batch_sizes: list[int], num_runs: int
) -> list[dict[str, Any]]:
    """
    Images per second, each with a question of its own, by each candidate, at several batch sizes in turn, over
    `num_runs` images or more: a GPU has enough to do for pruning to show only when there are several.
    """
    batches = [(size, *candidate) for size in batch_sizes for candidate in candidates]
    # As many images at every size
    times = _time_in_turn(
        bench, [((name, budget, size, size), -(-num_runs // size)) for size, name, budget in batches]
    )
    entries = []
    for (size, name, budget), own in zip(batches, times, strict=True):
        whole, prefill = (_spread([run[stage] for run in own]) for stage in ("end_to_end", "prefill"))
        entry: dict[str, Any] = {"batch_size": size, "method": name, "num_retained_tokens": budget}
        rate = 1000 * size / whole["median"]
        entries.append(entry | {"images_per_second": rate, "milliseconds": whole, "prefill_milliseconds": prefill})
    return entries


def _time_in_turn(bench: Benchmark, runs: list[tuple[tuple[Any, ...], int]]) -> list[list[dict[str, float]]]:
    """The stages' milliseconds of runs in turn, by their arguments and how often, after one that is not counted."""
    times: list[list[dict[str, float]]] = [[] for _ in runs]
    for i in range(-1, max(number for _, number in runs)):
        for (arguments, number), own in zip(runs, times, strict=True):
            if i >= number:
                continue
            bench.run(*arguments)
            measured = bench.milliseconds()
            if i >= 0:
                own.append(measured)
    return times


def _spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, high = np.percentile(values, [25, 75]).tolist()
    return {"median": statistics.median(values), "q1": low, "q3": high}


__all__ = ["measure"]
