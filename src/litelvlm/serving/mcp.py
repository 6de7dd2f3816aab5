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
"""A model as a tool of agents, by the Model Context Protocol."""

import io
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import torch
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.utilities.types import Image as ToolImage
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from PIL import Image
from pydantic import BaseModel, Field

from .. import __version__
from ..hub_cards.handler import MAX_SECONDS, check_text, decode_image, shorten
from ..modeling.fetching_litelvlm import UNTRUSTED_BYTES, open_untrusted
from ..modeling.images_litelvlm import load_rgb
from ..modeling.modeling_litelvlm import LiteLVLMForSegmentation
from ..modeling.processing_litelvlm import LiteLVLMProcessor
from ..outputs.formats import describe_mask
from ..visualization import overlay_masks
from . import schemas
from .asking import Answer, ask
from .schemas import RunLengths
from .settings import MAX_TEXTS

OVERLAY_PIXELS = 1024
"""Of the longer edge of the image that an agent is shown."""


class Mask(schemas.Mask):
    segmentation: RunLengths


class Result(BaseModel):
    text: str
    answer: str
    reason: str | None = Field(description="why there is no mask")
    masks: list[Mask]


class Results(BaseModel):
    results: list[Result] = Field(description="of each text, in their order")


def build_server(
    model: LiteLVLMForSegmentation, processor: LiteLVLMProcessor, folders: Sequence[Path] = (), **options: Any
) -> MCPServer:
    """
    A server with one tool, `segment`.

    Args:
        model: with masks.
        processor: of the model.
        folders: whose images may be named by their paths; by default none.
        options: those of `segment`, for every call.

    Raises:
        ValueError: a model that makes no masks, or a folder that is not there.
    """
    if model.config.sam_config is None:
        raise ValueError("The model answers in text only, so it has no masks to offer; name one with masks.")
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"--allow-folder is {str(folder)!r}, which is no folder here.")
    allowed = [folder.resolve() for folder in folders]
    source = "The image in base64 or as a data URL." + (
        f" Or its path in {' or '.join(map(str, allowed))}, with its ending." if allowed else ""
    )
    if "answer" not in options:
        options["max_time"] = MAX_SECONDS
    one_at_a_time = threading.Lock()  # calls come in threads
    server = MCPServer("litelvlm", version=__version__, log_level="WARNING")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    def segment(
        image: Annotated[str, Field(description=source)],
        texts: Annotated[
            list[str],
            Field(
                description='What to segment, each by itself, such as "the dog on the left".',
                min_length=1,
                max_length=MAX_TEXTS,
            ),
        ],
    ) -> Annotated[CallToolResult, Results]:
        """Segments what texts refer to in an image: masks, boxes and scores, and the image with the masks over it."""
        try:
            for text in texts:
                check_text("texts", text)
            picture = load_rgb(read_image(image, allowed))
            with one_at_a_time:
                started = monotonic()
                answers = ask(model, processor, picture, texts, **options)
            # What was generated until then is cut off anywhere
            if monotonic() - started > MAX_SECONDS:
                raise ValueError(f"The answers take longer than {MAX_SECONDS:g} seconds; ask fewer texts at a time.")
        except ValueError as error:
            raise ToolError(str(error)) from error
        results = Results(results=[_describe(answer) for answer in answers])
        said = TextContent(type="text", text="\n".join(map(_say, results.results)))
        return CallToolResult(content=[said, _draw(picture, answers)], structured_content=results.model_dump())

    return server


def read_image(source: str, folders: Sequence[Path]) -> Image.Image:
    """
    An image of an agent: base64, which has no dot, a data URL, or a path.

    Raises:
        ValueError: it is none of these, beyond the limits, or in no folder that is allowed, be it there or not.
    """
    if source.startswith(("http:", "https:")):  # also where an endpoint would fetch it
        raise ValueError(f"`image` is {shorten(source)}, but no URLs are fetched; give its content in base64.")
    if source.startswith("data:") or not (source.startswith("file:") or "." in source):
        return decode_image(source)
    if not folders:
        raise ValueError(f"`image` is {shorten(source)}; allowed are base64 and data URLs, and no paths.")
    name = unquote(urlsplit(source).path) if source.startswith("file:") else source
    try:
        # Links are followed first, so that none leads out
        places = [(folder, (folder / name).resolve()) for folder in folders]
        path = next((path for folder, path in places if path.is_relative_to(folder) and path.is_file()), None)
        if path is None:
            raise ValueError(f"there is no such file in {' or '.join(map(str, folders))}")
        with open(path, "rb") as file:
            return open_untrusted(file.read(UNTRUSTED_BYTES + 1))
    except (OSError, ValueError) as error:
        raise ValueError(f"`image` is {shorten(source)}, which cannot be read: {error}") from error


def _describe(answer: Answer) -> Result:
    masks = [Mask(**describe_mask(entry) | {"score": round(entry["score"], 4)}) for entry in answer.found]
    return Result(text=answer.text, answer=answer.answer, reason=answer.reason, masks=masks)


def _say(result: Result) -> str:
    """What a language model reads; run lengths would be noise to it."""
    masks = [f"box {mask.bbox} (left, top, width, height), score {mask.score:.2f}" for mask in result.masks]
    return f"{result.text}: {result.answer} {'; '.join(masks) or f'no mask: {result.reason}'}"


def _draw(picture: Image.Image, answers: Sequence[Answer]) -> Any:
    """The image with the masks over it; small, as agents pay for what they see."""
    drawn = picture.copy()
    drawn.thumbnail((OVERLAY_PIXELS, OVERLAY_PIXELS))
    masks = [entry["mask"].cpu() for answer in answers for entry in answer.found]
    if masks:
        shrunk = torch.nn.functional.interpolate(torch.stack(masks)[None].float(), drawn.size[::-1])
        drawn = overlay_masks(drawn, shrunk[0].bool())
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return ToolImage(data=buffer.getvalue(), format="png").to_image_content()


__all__ = ["build_server", "read_image"]
