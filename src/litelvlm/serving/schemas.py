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
"""What requests and answers look like, for FastAPI and its OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..hub_cards.handler import MAX_CHARACTERS, MAX_NEW_TOKENS
from .settings import MAX_TEXTS

MAX_MESSAGES = 32


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(_check_not_blank)]
NewTokens = Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)]


class _Options(BaseModel):
    """By default as the model's configuration says."""

    model_config = ConfigDict(strict=True, extra="forbid")

    num_retained_tokens: int | None = Field(None, ge=1, le=2**31, description="visual tokens to keep")
    pruning_method: str | None = Field(None, max_length=MAX_CHARACTERS, description="how they are chosen")


class SegmentRequest(_Options):
    image: str = Field(description="in base64, as a data URL, or as the URL of an allowed host")
    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS, description="each is asked about the image")
    answer: Text | None = Field(None, description='taken as given, such as "It is [SEG].": nothing is decoded')
    max_new_tokens: NewTokens = Field(32, description="length of each answer")
    mask_format: Literal["rle", "png"] = Field("rle", description="COCO's run lengths, or PNGs in base64")


class RunLengths(BaseModel):
    size: list[int] = Field(description="height and width")
    counts: str = Field(description="COCO's compressed run lengths")


class Mask(BaseModel):
    segmentation: RunLengths | str = Field(description="run lengths, or a PNG in base64 of 255 inside and 0 outside")
    score: float = Field(description="mean probability of the mask's pixels")
    bbox: list[int] | None = Field(description="left, top, width, height; null for an empty mask")
    area: int = Field(description="pixels")


class Result(BaseModel):
    text: str
    answer: str
    reason: str | None = Field(description="why there is no mask")
    masks: list[Mask]


class SegmentResponse(BaseModel):
    results: list[Result] = Field(description="of each text, in their order")
    tokens: int = Field(description="visual tokens that the language model saw")
    milliseconds: float = Field(description="from the last byte of the request to the answer")


class TextPart(BaseModel):
    type: Literal["text"]
    text: str = Field(max_length=MAX_CHARACTERS)


class ImageUrl(BaseModel):
    url: str = Field(description="a data URL, or the URL of an allowed host")


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    """What else clients write into a message, such as `name`, is not read."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_CHARACTERS)] | list[Part]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False


class ChatRequest(_Options):
    """Answers are greedy, so that of sampling only what asks for none is taken."""

    model: str = Field(description="as GET /v1/models names it")
    messages: list[Message] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="with an image, or with several where the model answers in text about them",
    )
    max_tokens: NewTokens | None = None
    max_completion_tokens: NewTokens | None = None
    temperature: float | None = Field(None, ge=0, le=0)
    top_p: float | None = Field(None, ge=1, le=1)
    n: int | None = Field(None, ge=1, le=1)
    user: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class Answer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    masks: list[Mask] = Field(description="beside OpenAI's fields: a mask for each [SEG]")


class Choice(BaseModel):
    index: int = 0
    message: Answer
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int = Field(description="before pruning")
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "litelvlm"


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class State(BaseModel):
    status: str


class Error(BaseModel):
    message: str
    type: str
    code: int
    param: Any = None


class ErrorResponse(BaseModel):
    """As OpenAI's."""

    error: Error


__all__ = [
    "Answer",
    "ChatRequest",
    "ChatResponse",
    "Choice",
    "ErrorResponse",
    "Mask",
    "Models",
    "SegmentRequest",
    "SegmentResponse",
    "State",
    "Usage",
]
