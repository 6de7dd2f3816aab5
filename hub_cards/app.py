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
A page: name something in an image, and see the tokens that are kept for it, its mask, and what each step costs.

`litelvlm demo` opens it, and it is a Space as it stands: of the model whose folder or Hub id the variable MODEL_ID
holds, and otherwise of the one in whose folder this file stands. It needs no more than the model's own code.
"""

import hashlib
import io
import json
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio
import numpy as np
import torch
from gradio.processing_utils import save_bytes_to_cache
from PIL import Image, ImageFilter
from transformers import AutoModel, AutoProcessor

MAX_CHARACTERS = 2000
MAX_NEW_TOKENS = 64
MAX_SECONDS = 60.0
MAX_STATES = 4
"""Images whose states a session keeps."""
MAX_SESSIONS = 64
MAX_WAITING = 16
"""Questions that may wait; all are answered one after the other."""
KEPT_SECONDS = 3600
SHOWN_EDGE = 1024
"""Longer edge of what is drawn, in pixels."""

SIMILARITY_AWARE, CONTEXT_AWARE, KEPT = "similarity-aware", "context-aware", "kept"
TOKEN_COLOURS = {SIMILARITY_AWARE: "#3498eb", CONTEXT_AWARE: "#f5be28", KEPT: "#f5be28"}
MASK_COLOURS = {
    f"mask {n}": ("#ff3ea5", "#3498eb", "#f5be28", "#3cb45a")[(n - 1) % 4] for n in range(1, MAX_NEW_TOKENS)
}

logger = logging.getLogger(__name__)

# Of images, by the content and what was looked at: the state, and the milliseconds it took. The last used is the last
States = OrderedDict[tuple[str, tuple[int, ...]], tuple[Any, float]]


@dataclass
class Run:
    """One way to answer a question: `milliseconds` per step, and for a model with masks what was `found`."""

    answer: str
    num_new_tokens: int
    milliseconds: dict[str, float]
    outputs: Any
    found: list[dict[str, Any]]


@dataclass
class Answer:
    """
    Args:
        image (`PIL.Image`): RGB, upright.
        method (`str`): the pruning method.
        run ([`Run`]): with that method.
        whole ([`Run`]): with all tokens.
        patches (`tuple[np.ndarray, np.ndarray]`, *optional*): similarity-aware and context-aware, `(S, S)`, bool;
            `None` for images in crops, which have no single map of patches.
        num_retained_tokens (`int`): that the language model saw.
        encoding_ms (`float`): for the image's state.
        is_kept (`bool`): whether that state is of a former question.
    """

    image: Image.Image
    method: str
    run: Run
    whole: Run
    patches: tuple[np.ndarray, np.ndarray] | None
    num_retained_tokens: int
    encoding_ms: float
    is_kept: bool


def load(model_id: str) -> tuple[Any, Any]:
    """Model and processor of a folder or Hub id."""
    model = AutoModel.from_pretrained(model_id, trust_remote_code=True, dtype="auto", device_map="auto")
    return model, AutoProcessor.from_pretrained(model_id, trust_remote_code=True)


def code_of(model: Any, name: str) -> ModuleType:
    """A module from beside the model's own, be that the installed package or what came with the weights."""
    return import_module(f"{type(model).__module__.rpartition('.')[0]}.{name}")


def list_methods(model: Any) -> list[str]:
    """Pruning methods that this model can be asked with, and `"none"`."""
    pruning = code_of(model, "pruning_litelvlm")
    names = pruning.list_pruning_methods(before=True if model.config.has_crops else None)
    if model.config.has_crops:
        names = [name for name in names if not pruning.get_pruning_method(name).vision_layers]
    return [*names, "none"]


def read_image(model: Any, path: str | None) -> tuple[Image.Image, str]:
    """
    An uploaded image, RGB and upright, and the hash of its file.

    Raises:
        ValueError: there is none, or it is no image within the limits.
    """
    if path is None:
        raise ValueError("There is no image; choose one.")
    try:
        content = Path(path).read_bytes()
    except OSError:
        raise ValueError("The image is not kept any more; choose it again.") from None
    try:
        image = code_of(model, "fetching_litelvlm").open_untrusted(content)
    except ValueError as error:
        raise ValueError(f"The file cannot be read as an image: {error}.") from error
    return code_of(model, "images_litelvlm").load_rgb(image), hashlib.sha256(content).hexdigest()


@torch.inference_mode()
def ask(
    model: Any,
    processor: Any,
    states: States,
    path: str | None,
    text: str,
    method: str,
    num_retained_tokens: int,
) -> Answer:
    """
    Answers a question about an image twice, with a pruning method and with all tokens.

    Args:
        states: of the session; the image's is taken from there, or put there.
        path (`str`): of the image.
        text (`str`): what to segment.
        method (`str`): one of [`list_methods`].
        num_retained_tokens (`int`): the budget; `"none"` has no use for it.

    Raises:
        ValueError: what was given is missing or beyond the limits.
    """
    image, digest = read_image(model, path)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"The text has {len(text)} characters; allowed are {MAX_CHARACTERS}.")
    budget = None if method == "none" else num_retained_tokens
    model.config.resolve_pruning(budget, method)  # before the image is encoded
    inputs = processor(images=image, text=text).to(model.device)
    names = code_of(model, "outputs_litelvlm").IMAGE_INPUTS
    images = {name: inputs.pop(name) for name in names if name in inputs}
    state, encoding_ms, is_kept = encode(model, states, images, digest, method)
    run = answer(model, processor, inputs, state, method, budget)
    whole = run if method == "none" else answer(model, processor, inputs, state, "none", None)
    patches = None
    if not model.config.has_crops:
        retained_patches = code_of(model, "pruning_litelvlm").retained_patches
        similarity_aware, context_aware = retained_patches(model.config, method, inputs, run.outputs)
        patches = similarity_aware.numpy(), context_aware.numpy()
    counts = run.outputs.num_retained_tokens
    retained = model.config.num_patches if counts is None else int(counts[0])
    return Answer(image, method, run, whole, patches, retained, encoding_ms, is_kept)


def encode(
    model: Any, states: States, images: dict[str, torch.Tensor], digest: str, method: str
) -> tuple[Any, float, bool]:
    """The state of an image, the milliseconds that it took, and whether it was there already."""
    layers = getattr(code_of(model, "pruning_litelvlm").get_pruning_method(method), "vision_layers", ())
    if is_kept := (digest, layers) in states:
        states.move_to_end((digest, layers))
    else:
        started = now()
        # LiteLVLM's signals serve all methods that do not look into the vision tower, and "none"
        state = model.encode_image(**images, pruning_method=method if layers else "litelvlm")
        states[digest, layers] = state, now() - started
        while len(states) > MAX_STATES:
            states.popitem(last=False)
    return (*states[digest, layers], is_kept)


def answer(model: Any, processor: Any, inputs: Any, state: Any, method: str, budget: int | None) -> Run:
    """One answer, timed by looking at the clock when the prompt is read and when the masks are begun."""
    moments: list[float] = []
    first: list[Any] = []

    def note_prompt(module: Any, arguments: Any, outputs: Any) -> None:
        if not first:  # what follows are single tokens of the answer
            first.append(outputs)
            moments.append(now())

    hooks = [model.model.register_forward_hook(note_prompt)]
    makes_masks = model.config.sam_config is not None
    if makes_masks:
        hooks.append(model.seg_head.register_forward_pre_hook(lambda *_: moments.append(now())))
    options: dict[str, Any] = {"max_new_tokens": MAX_NEW_TOKENS, "max_time": MAX_SECONDS, "pruning_method": method}
    if budget is not None:
        options["num_retained_tokens"] = budget
    try:
        started = now()
        outputs = (model.segment if makes_masks else model.generate)(**inputs, **options, image_state=state)
        moments = [started, *moments, now()]
    finally:
        for hook in hooks:
            hook.remove()
    steps = ["Read the prompt", "Write the answer", "Decode the masks"][: len(moments) - 1]
    milliseconds = {step: moments[i + 1] - moments[i] for i, step in enumerate(steps)}
    found = processor.post_process_instance_segmentation(outputs, inputs)[0] if makes_masks else []
    (text,) = processor.decode_answers(outputs, inputs)
    sequences = getattr(outputs, "sequences", outputs)
    return Run(text, sequences.shape[1] - inputs["input_ids"].shape[1], milliseconds, first[0], found)


def warm_up(model: Any, processor: Any) -> None:
    """What a device does once, with the first question, is no part of any answer's time."""
    inputs = processor(images=Image.new("RGB", (64, 64)), text="anything").to(model.device)
    if model.config.sam_config is not None:
        model.segment(**inputs, max_new_tokens=2)
    else:
        model.generate(**inputs, max_new_tokens=2)


def now() -> float:
    """Milliseconds, once the device has done its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return 1000 * time.perf_counter()


def draw_tokens(shown: Answer, cropped: bool) -> tuple[Image.Image, list[tuple[np.ndarray, str]]]:
    """For `gradio.AnnotatedImage`: the image, dark where a patch was pruned, and the patches of each kind."""
    image = shrink(shown.image)
    if shown.patches is None:
        return image, []
    kinds = (SIMILARITY_AWARE, CONTEXT_AWARE) if shown.method == "litelvlm" else (SIMILARITY_AWARE, KEPT)
    layers = [spread_patches(kept, image.size, cropped) for kept in shown.patches]
    drawn = [(layer, kind) for layer, kind in zip(layers, kinds, strict=True) if layer.any()]
    return darken(image, layers[0] + layers[1] > 0), drawn


def spread_patches(kept: np.ndarray, size: tuple[int, int], cropped: bool) -> np.ndarray:
    """Opacity of each pixel, `(height, width)`: that of its patch, and more at the patch's edge."""
    indices = []
    for length in reversed(size):
        span = min(size) if cropped else length
        # -1 and S are outside of what the vision tower sees
        index = np.floor((np.arange(length) + 0.5 - (length - span) / 2) * len(kept) / span)
        indices.append(index.clip(-1, len(kept)).astype(int))
    rows, columns = indices
    is_edge = (np.diff(rows, prepend=-2) != 0)[:, None] | (np.diff(columns, prepend=-2) != 0)
    return np.pad(kept, 1)[rows[:, None] + 1, columns + 1] * np.where(is_edge, 0.9, 0.4)


def draw_masks(shown: Answer) -> tuple[Image.Image, list[tuple[np.ndarray, str]]]:
    """For `gradio.AnnotatedImage`: the image, dark outside of the masks, and the masks."""
    image = shrink(shown.image)
    reach = max(2, min(image.size) // 128)
    masks: list[tuple[np.ndarray, str]] = []
    inside = np.zeros((image.height, image.width), dtype=bool)
    for number, entry in enumerate(shown.run.found, 1):
        mask = Image.fromarray(entry["mask"].cpu().numpy()).resize(image.size, Image.Resampling.NEAREST).convert("L")
        grown = np.asarray(mask.filter(ImageFilter.MaxFilter(2 * reach + 1))) > 0
        is_mask = np.asarray(mask) > 0
        masks.append((np.where(is_mask, 0.5, 1.0) * grown, f"mask {number}"))
        inside |= is_mask
    return darken(image, inside), masks


def shrink(image: Image.Image) -> Image.Image:
    """A copy that is small enough to be shown."""
    image = image.copy()
    image.thumbnail((SHOWN_EDGE, SHOWN_EDGE))
    return image


def darken(image: Image.Image, inside: np.ndarray) -> Image.Image:
    """The image, dark outside of pixels `(height, width)`, bool; as it is where there are none."""
    pixels = np.asarray(image, dtype=np.float32)
    bright = np.where(inside[..., None] | ~inside.any(), pixels, 0.45 * pixels)
    return Image.fromarray(bright.round().astype(np.uint8))


def describe(shown: Answer, config: Any) -> str:
    """The numbers of an answer as Markdown; nothing in it was written by who asks."""
    kept = f"**{shown.num_retained_tokens} of {config.num_patches}** visual tokens kept"
    if shown.patches is None:
        kept += "; the image is cut into crops, which have no single map of patches"
    elif shown.method == "litelvlm":
        kept += ": " + ", ".join(
            f"{int(patches.sum())} {kind}"
            for patches, kind in zip(shown.patches, (SIMILARITY_AWARE, CONTEXT_AWARE), strict=True)
        )
    masks = [
        f"{int(entry['mask'].sum())} pixels (score {entry['score']:.2f}, predicted IoU {entry['predicted_iou']:.2f})"
        for entry in shown.run.found
    ]
    if config.sam_config is None:
        return f"{kept}. No mask: this model answers in text only."
    return f"{kept}. {'Mask: ' + ', '.join(masks) if masks else 'No mask: the answer holds no [SEG]'}."


def tabulate(shown: Answer, num_patches: int) -> list[list[str]]:
    """A line for each step: its name, the time with the method, and the time with all tokens."""
    encoding = "kept from before" if shown.is_kept else f"{shown.encoding_ms:.0f} ms"
    lines = [["Encode the image, once", encoding, encoding]]
    for step in shown.run.milliseconds:
        lines.append([step, *(f"{run.milliseconds[step]:.0f} ms" for run in (shown.run, shown.whole))])
        if step == "Write the answer":
            lines[-1][0] += f" ({shown.run.num_new_tokens} tokens; {shown.whole.num_new_tokens} with all)"
    totals = [sum(run.milliseconds.values()) for run in (shown.run, shown.whole)]
    return [*lines, ["Sum without the image", *(f"{total:.0f} ms" for total in totals)]]


def write_files(shown: Answer, path: str, folder: str, to_coco: Callable[..., Any] | None) -> list[str | None]:
    """Paths of a PNG, 255 inside any mask and 0 outside, and of COCO's JSON; `None` for what there is not."""
    if not shown.run.found:
        return [None, None]
    name, buffer = Path(path), io.BytesIO()
    inside = torch.stack([entry["mask"].cpu() for entry in shown.run.found]).any(dim=0)
    Image.fromarray(inside.numpy().astype(np.uint8) * 255).save(buffer, "PNG")
    files = [save_bytes_to_cache(buffer.getvalue(), f"{name.stem}-mask.png", folder)]
    if to_coco is None:
        return [*files, None]
    coco = json.dumps(to_coco([shown.run.found], [shown.image.size[::-1]], [name.name]))
    return [*files, save_bytes_to_cache(coco.encode(), f"{name.stem}-coco.json", folder)]


def build(
    model: Any, processor: Any, examples: list[list[str]] | None = None, to_coco: Callable[..., Any] | None = None
) -> gradio.Blocks:
    """
    The page.

    Args:
        model, processor: of one checkpoint.
        examples (`list[list[str]]`, *optional*): paths of images, each with a text.
        to_coco (*optional*): `litelvlm.outputs.to_coco`, where the package is; without, no JSON is offered.

    Raises:
        ValueError: a Qwen-VL, whose images have no number of tokens that a page could offer to choose from.
    """
    if model.config.has_external_guide:
        raise ValueError("The demo shows what is kept of one number of tokens, but a Qwen-VL's images have their own.")
    warm_up(model, processor)
    config = model.config
    num_patches, methods = config.num_patches, list_methods(model)
    cropped = bool(getattr(processor.image_processor, "do_center_crop", False))

    def show(path: str | None, text: str, method: str, budget: float | None, states: States) -> list[Any]:
        try:
            if budget is None:
                raise ValueError(f"The number of visual tokens is missing; allowed are 1 to {num_patches}.")
            shown = ask(model, processor, states, path, text, method, int(budget))
        except ValueError as error:
            raise gradio.Error(str(error).splitlines()[0], print_exception=False) from None
        except Exception:
            # A stranger learns nothing of this machine from it
            logger.exception("A question could not be answered.")
            message = "The question could not be answered; the server's log says why."
            raise gradio.Error(message, print_exception=False) from None
        files = write_files(shown, str(path), mask_file.GRADIO_CACHE, to_coco)
        return [
            draw_tokens(shown, cropped),
            draw_masks(shown),
            shown.run.answer,
            describe(shown, config),
            gradio.Dataframe(value=tabulate(shown, num_patches), headers=headers(shown.method, budget), visible=True),
            *(gradio.DownloadButton(value=file, interactive=file is not None) for file in files),
            states,
        ]

    def show_again(path: str | None, text: str, *others: Any) -> Any:
        return show(path, text, *others) if path and text.strip() else [gradio.skip()] * len(outputs)

    def forget(path: str | None = None) -> list[Any]:
        disabled = gradio.DownloadButton(value=None, interactive=False)
        return [None, None, "", "", gradio.Dataframe(visible=False), disabled, disabled, gradio.skip()]

    def refuse() -> None:
        raise gradio.Error("The file cannot be read as an image; choose another.", print_exception=False)

    def headers(method: str, budget: float) -> list[str]:
        own = "none" if method == "none" else f"{method}, {int(budget)} tokens"
        return ["Step", own, f"all {num_patches} tokens"]

    with gradio.Blocks(
        title="LiteLVLM", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS), fill_width=True
    ) as page:
        gradio.Markdown(
            "# LiteLVLM\nName something in an image. The language model sees only the visual tokens that are kept for "
            "it, and answers with a mask."
        )
        states = gradio.State(OrderedDict(), time_to_live=KEPT_SECONDS)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300):
                image = gradio.Image(
                    # As a file: Gradio decodes no image whose mode is left as it is, so the limits come first
                    type="filepath",
                    image_mode=None,
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_id="image",
                )
                text = gradio.Textbox(
                    label="What to segment", placeholder="the red circle", max_length=MAX_CHARACTERS, max_lines=3
                )
                button = gradio.Button("Segment", variant="primary")
                budget = gradio.Slider(
                    1, num_patches, config.num_retained_tokens, step=1, label="Visual tokens kept", elem_id="budget"
                )
                method = gradio.Dropdown(methods, value=config.pruning_method, label="Pruning method")
                if examples:
                    shown_examples = gradio.Examples(examples, [image, text], cache_examples=False)
            with gradio.Column(scale=5, min_width=480):
                with gradio.Row():
                    tokens = gradio.AnnotatedImage(
                        label="Tokens kept", color_map=TOKEN_COLOURS, elem_id="tokens", format="png"
                    )
                    masks = gradio.AnnotatedImage(label="Mask", color_map=MASK_COLOURS, elem_id="masks", format="png")
                words = gradio.Textbox(label="Answer", interactive=False, elem_id="answer")
                numbers = gradio.Markdown()
                table = gradio.Dataframe(
                    headers=headers(config.pruning_method, config.num_retained_tokens),
                    label="Time",
                    interactive=False,
                    visible=False,
                    elem_id="times",
                )
                with gradio.Row():
                    mask_file = gradio.DownloadButton("Mask (PNG)", interactive=False)
                    coco_file = gradio.DownloadButton("COCO (JSON)", interactive=False, visible=to_coco is not None)
        inputs = [image, text, method, budget, states]
        outputs = [tokens, masks, words, numbers, table, mask_file, coco_file, states]
        # One model: whatever asks it waits in one queue
        options: dict[str, Any] = {"outputs": outputs, "concurrency_id": "model", "api_visibility": "private"}
        asked = [
            gradio.on([button.click, text.submit], show, inputs, **options),
            gradio.on([budget.release, method.input], show_again, inputs, **options, trigger_mode="always_last"),
        ]
        if examples:
            asked.append(shown_examples.load_input_event.then(show, inputs, **options))
        for event in asked:  # the mask of another question must not stand beside what was refused
            event.failure(forget, None, outputs, queue=False, api_visibility="private")
        image.clear(forget, None, outputs, queue=False, api_visibility="private")
        # What Gradio cannot read as an image fails before any function of ours is called
        uploaded = image.upload(forget, image, outputs, api_visibility="private")
        uploaded.failure(refuse, None, None, api_visibility="private")
    return page


def launch(page: gradio.Blocks, max_bytes: int, **options: Any) -> Any:
    """Serves the page within its limits; `options` are further ones of `gradio.Blocks.launch`."""
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)
    return page.launch(
        max_file_size=max_bytes,
        state_session_capacity=MAX_SESSIONS,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        **options,
    )


if __name__ == "__main__":
    loaded = load(os.environ.get("MODEL_ID") or str(Path(__file__).parent))
    launch(build(*loaded), code_of(loaded[0], "fetching_litelvlm").UNTRUSTED_BYTES)
