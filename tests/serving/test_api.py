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
"""The HTTP interface: what it answers, what it refuses, and that it says why."""

import asyncio
import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from litelvlm import EXAMPLE_IMAGE, load_tiny
from litelvlm.data.masks import decode_segmentation
from litelvlm.serving.gate import Gate, read_token
from litelvlm.serving.settings import MAX_BODY_BYTES, RefusedError
from litelvlm.serving.worker import Worker

from .conftest import GIVEN, IMAGE, NAME, Local

QUESTION = "Can you segment the red circle in this image?"


def message(image=IMAGE, text=QUESTION):
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


ASKED = {"role": "user", "content": "Where?"}
TURNS = [{"role": role, "content": "x" * 2000} for role in ("assistant", "user") * 4]


def chat(**values):
    return {"model": NAME, "messages": [message()], "max_tokens": 16} | values


@pytest.fixture(scope="module")
def expected(embedded):
    """The mask of the given answer, as the package finds it."""
    model, processor = embedded
    inputs = processor(EXAMPLE_IMAGE, "the red circle")
    output = model.segment(**inputs, answer="It is [SEG].", processor=processor)
    return processor.post_process_instance_segmentation(output, inputs)[0][0]


def test_masks_are_those_of_a_call_of_segment(client, expected):
    answer = client.post("/v1/segment", json=GIVEN).json()
    assert answer.keys() == {"results", "tokens", "milliseconds"} and answer["tokens"] == 85
    (result,) = answer["results"]
    assert result.keys() == {"text", "answer", "reason", "masks"}
    assert (result["text"], result["answer"], result["reason"]) == ("the red circle", "It is [SEG].", None)
    (mask,) = result["masks"]
    pixels = decode_segmentation(mask["segmentation"], 512, 512)
    assert (pixels != expected["mask"].numpy()).mean() < 1e-3
    left, top, right, bottom = expected["box"]
    assert mask["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=1)
    assert mask["area"] == pixels.sum() and mask["score"] == pytest.approx(expected["score"], abs=1e-3)


def test_forms_data_urls_and_png_say_the_same_as_json(client):
    plain = client.post("/v1/segment", json=GIVEN | {"num_retained_tokens": 40}).json()["results"][0]["masks"][0]
    form = {"texts": ["the red circle", "the green star"], "answer": "It is [SEG].", "num_retained_tokens": "40"}
    file = {"files": {"image": EXAMPLE_IMAGE.read_bytes()}}
    # Of a field without a name of a file httpx makes a form too
    field = {"files": {"image": (None, f"data:image/png;base64,{IMAGE}")}}
    for image in (file, field):
        answer = client.post("/v1/segment", data=form | {"mask_format": "png"}, **image)
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert answer.json()["tokens"] == 40 and [result["text"] for result in results] == form["texts"]
        png = results[0]["masks"][0]["segmentation"]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        assert set(np.unique(pixels)) == {0, 255}
        assert ((pixels > 0) != decode_segmentation(plain["segmentation"], 512, 512)).mean() < 1e-3


def test_answer_without_a_mask_says_why(client):
    result = client.post("/v1/segment", json={"image": IMAGE, "texts": ["x"], "max_new_tokens": 1}).json()["results"][
        0
    ]
    assert result["masks"] == [] and result["reason"] == "the answer holds no [SEG]"


def test_chat_answers_in_openais_form_with_masks_beside_it(client):
    answer = client.post("/v1/chat/completions", json=chat()).json()
    assert answer["object"] == "chat.completion" and answer["model"] == NAME and answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop" and "[SEG]" in choice["message"]["content"]
    asked = {"image": IMAGE, "texts": ["the red circle"], "max_new_tokens": 16}
    assert choice["message"]["masks"] == client.post("/v1/segment", json=asked).json()["results"][0]["masks"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 256
    short = client.post("/v1/chat/completions", json=chat(max_tokens=2)).json()
    assert short["choices"][0]["finish_reason"] == "length" and short["usage"]["completion_tokens"] == 2


def test_model_without_masks_chats_whole_and_in_pieces_and_refuses_to_segment(make_client):
    model, processor = load_tiny(sam_config=None)
    processor.with_masks = False
    client = make_client(Local(Worker(model, processor)))
    whole = client.post("/v1/chat/completions", json=chat(max_tokens=4)).json()["choices"][0]
    assert whole["message"]["content"] and whole["message"]["masks"] == [] and whole["finish_reason"] == "length"
    streamed = client.post("/v1/chat/completions", json=chat(max_tokens=4, stream=True)).text
    lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == whole["message"]["content"]
    # About several images the answer is another
    other = base64.b64encode(io_of(Image.open(EXAMPLE_IMAGE).rotate(90))).decode()
    asked = chat(max_tokens=4, messages=[message(), ASKED | {"role": "assistant"}, message(other)])
    several = client.post("/v1/chat/completions", json=asked).json()
    one = client.post("/v1/chat/completions", json=chat(max_tokens=4)).json()
    assert several["choices"][0]["message"]["content"]
    assert several["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"] + 256
    refused = client.post("/v1/segment", json=GIVEN)
    assert refused.status_code == 422 and "answers in text only" in refused.json()["error"]["message"]


def test_streamed_chat_is_the_whole_one_in_pieces(client):
    whole = client.post("/v1/chat/completions", json=chat()).json()
    asked = chat(stream=True, stream_options={"include_usage": True})
    with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    *chunks, usage = (json.loads(line) for line in lines)
    assert usage["usage"] == whole["usage"] and usage["choices"] == []
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert len(deltas) > 3 and deltas[0]["role"] == "assistant"
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert deltas[-1]["masks"] == whole["choices"][0]["message"]["masks"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_stream_that_fails_says_so_in_the_stream(make_client):
    class Failing(Local):
        async def stream(self, question):
            yield "It"
            raise RefusedError(503, "What worked at this request was lost; try again.")

    answer = make_client(Failing(None)).post("/v1/chat/completions", json=chat(stream=True))
    *_, last = (line for line in answer.text.splitlines() if line)
    assert answer.status_code == 200 and "was lost" in json.loads(last.removeprefix("data: "))["error"]["message"]


def io_of(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def file_of(width, height):
    return base64.b64encode(io_of(Image.new("1", (width, height)))).decode()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("status", "message", "body"),
    [
        (422, "`texts`: List should have at least 1 item", {"texts": []}),
        (422, "`texts`: List should have at most 16 items", {"texts": ["x"] * 17}),
        (422, "`texts[1]`: String should have at most 2000", {"texts": ["x", "x" * 2001]}),
        (422, "`texts[0]`: it is empty", {"texts": [" "]}),
        (422, "`texts`: Input should be a valid", {"texts": "the red circle"}),
        (422, "`image`: Field required", {"image": None}),
        (422, "neither base64 nor an allowed URL", {"image": "x"}),
        (422, "it is empty", {"image": "data:image/png;base64,"}),
        (422, "base64", {"image": IMAGE[:1000] + "****" + IMAGE[1000:]}),
        (422, "cannot identify an image", {"image": base64.b64encode(b"no image").decode()}),
        (422, "neither base64", {"image": "file:///etc/passwd"}),
        (422, "fetches no URLs", {"image": "http://127.0.0.1/x.png"}),
        (413, "more than 20 MiB", {"image": "A" * (20 * 2**20 * 4 // 3 + 4000)}),
        (413, "9600 x 9600 pixels are more", {"image": file_of(9600, 9600)}),
        (413, "pixels", {"image": file_of(20000, 20000)}),
        (422, "holds no [SEG]", {"answer": "nothing"}),
        (422, "`num_retained_tokens`: Input should be greater", {"num_retained_tokens": 0}),
        (422, "`num_retained_tokens` is 257", {"num_retained_tokens": 257}),
        (422, "`num_retained_tokens`: Input should be less", {"num_retained_tokens": 10**30}),
        (422, "`max_new_tokens`: Input should be less", {"max_new_tokens": 513}),
        (422, "`max_new_tokens`: Input should be a valid integer", {"max_new_tokens": True}),
        (422, "`pruning_method` is 'x'", {"pruning_method": "x"}),
        (422, "`mask_format`: Input should be 'rle' or 'png'", {"mask_format": "svg"}),
        (422, "`image_state`: Extra inputs are not permitted", {"image_state": 1}),
    ],
)
def test_request_beyond_the_limits_is_told_which(status, message, body, client):
    asked = {name: value for name, value in (GIVEN | body).items() if value is not None}
    answer = client.post("/v1/segment", json=asked)
    assert answer.status_code == status and message in answer.json()["error"]["message"]
    assert len(answer.text) < 1000  # what was sent is not sent back


@pytest.mark.parametrize(
    ("status", "message", "body"),
    [
        (404, "There is no model 'gpt' here, only 'litelvlm-tiny'", {"model": "gpt"}),
        (422, "hold 0 images; allowed are 1 to 8", {"messages": [{"role": "user", "content": "hello"}]}),
        (422, "hold 9 images; allowed are 1 to 8", {"messages": [message()] * 9}),
        (422, "A message of the system holds an image", {"messages": [message() | {"role": "system"}, ASKED]}),
        (422, "holds 2 images, but a mask is one of the only", {"messages": [message()] * 2}),
        (422, "base64", {"messages": [message(), message("x")]}),
        (422, "not the user's", {"messages": [message(), {"role": "assistant", "content": "x"}]}),
        (422, "18000 characters; allowed are 16000 in all", {"messages": [message(text="x" * 2000), *TURNS]}),
        (422, "`temperature`", {"temperature": 0.7}),
        (422, "`n`", {"n": 2}),
        (422, "`tools`: Extra inputs", {"tools": []}),
        (422, "Input tag 'audio'", {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}),
        (422, "allowed are integers from 1 to 256", {"num_retained_tokens": 300, "stream": True}),
    ],
)
def test_chat_beyond_what_is_offered_is_told_which(status, message, body, client):
    answer = client.post("/v1/chat/completions", json=chat(**body))
    assert answer.status_code == status and message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"image": "\\ud800", "texts": ["\\ud800"]}',
        json.dumps({"image": IMAGE, "texts": ["x"], "\ud800": 1}).encode(),
        b"[" * 100_000,  # deeper than any parser goes
    ],
)
@pytest.mark.parametrize("path", ["/v1/segment", "/v1/chat/completions"])
def test_body_that_is_no_request_is_refused(body, path, client):
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"]["message"]


def test_form_that_cannot_be_read_is_refused(client):
    answer = client.post("/v1/segment", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 400
    answer = client.post("/v1/segment", data={"image": IMAGE}, files={"texts": b"the red circle"})
    assert (
        answer.status_code == 422 and "`texts[0]`: Input should be a valid string" in answer.json()["error"]["message"]
    )


@pytest.mark.parametrize("name", ["image", "num_retained_tokens"])
def test_field_of_a_form_that_comes_twice_is_refused(name, client):
    form = [("image", (None, IMAGE)), ("num_retained_tokens", (None, "40")), ("answer", (None, "It is [SEG]."))]
    form += [("texts", (None, "a")), ("texts", (None, "b"))]
    assert client.post("/v1/segment", files=form).status_code == 200
    answer = client.post("/v1/segment", files=form + [field for field in form if field[0] == name])
    assert answer.status_code == 422 and f"`{name}` is given several times" in answer.json()["error"]["message"]


def test_body_is_counted_as_it_arrives(client):
    announced = client.post("/v1/segment", content=b"A" * (MAX_BODY_BYTES + 1))
    streamed = client.post("/v1/segment", content=(b"A" * 2**20 for _ in range(40)))
    for answer in (announced, streamed):
        assert answer.status_code == 413 and f"{MAX_BODY_BYTES} bytes" in answer.json()["error"]["message"]


def test_body_that_does_not_arrive_is_not_waited_for(make_client):
    client = make_client(max_seconds=0.2)

    async def receive():
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": b"{", "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/v1/segment", "method": "POST", "headers": [], "query_string": b""}
    gate = client.app.build_middleware_stack()
    while not isinstance(gate, Gate):
        gate = gate.app
    started = time.monotonic()
    asyncio.run(gate(scope, receive, send))
    assert sent[0]["status"] == 408 and b"within 0.2 seconds" in sent[1]["body"]
    assert time.monotonic() - started < 5


def test_answer_that_takes_too_long_is_a_504_and_is_given_up(make_client):
    given_up = []

    class Slow(Local):
        async def answer(self, question):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                given_up.append(question)
                raise

        async def stream(self, question):
            await self.answer(question)
            yield ""

    client = make_client(Slow(None), max_seconds=0.2)
    for path, body in (
        ("/v1/segment", GIVEN),
        ("/v1/chat/completions", chat()),
        ("/v1/chat/completions", chat(stream=True)),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 504 and "longer than 0.2 seconds" in answer.json()["error"]["message"]
    assert len(given_up) == 3


def test_failure_is_a_500_that_tells_nothing_of_the_inside(make_client):
    class Broken(Local):
        async def answer(self, question):
            raise RuntimeError("the secret of this machine")

    answer = make_client(Broken(None)).post("/v1/segment", json=GIVEN)
    assert (
        answer.status_code == 500 and "secret" not in answer.text and answer.json()["error"]["type"] == "server_error"
    )


def test_token_is_asked_for_everywhere_but_where_the_service_is_watched(make_client):
    client = make_client(token="correct-horse")
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse"}, {"Authorization": ""}):
        for method, path in (("POST", "/v1/segment"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/x")):
            answer = client.request(method, path, headers=given)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    for given in ("Bearer correct-horse", "bearer correct-horse"):
        assert client.get("/v1/models", headers={"Authorization": given}).json()["data"][0]["id"] == NAME
    assert client.post("/v1/segment", json=GIVEN, headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "schlüsselwort", "a\nbcdefgh"])
def test_token_that_no_header_can_hold_is_refused(token):
    with pytest.raises(ValueError, match="8 characters or more"):
        read_token(token)


def test_urls_are_fetched_from_allowed_hosts_at_public_addresses_only(make_client, serve_bytes, monkeypatch):
    address = serve_bytes(b"HTTP/1.1 200 OK\r\n\r\n", EXAMPLE_IMAGE.read_bytes())
    host, _, port = address.partition(":")
    client = make_client(allowed_hosts=("localhost", host))

    def ask(url):
        return client.post("/v1/segment", json=GIVEN | {"image": url})

    assert "'example.org' is not an allowed host" in ask("http://example.org/x.png").text
    assert "has no public address" in ask(f"http://{address}/x.png").text
    assert serve_bytes.requests == []
    monkeypatch.setattr("litelvlm.modeling.fetching_litelvlm.is_public", lambda address: True)
    assert ask(f"http://{address}/x.png").status_code == 200 and len(serve_bytes.requests) == 1
    # A redirect leads to nobody who is not named either
    elsewhere = serve_bytes(f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:{port}/\r\n\r\n".encode())
    answer = ask(f"http://{elsewhere}/")
    assert answer.status_code == 422 and "'127.0.0.2' is not an allowed host" in answer.text
    assert ask(f"http://{serve_bytes(b'nonsense')}/").status_code == 422


def test_metrics_count_requests_by_status_and_hold_no_names_of_strangers(client):
    client.post("/v1/segment", json={})
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert 'litelvlm_requests_total{path="/v1/segment",status="422"}' in text
    assert 'litelvlm_requests_total{path="other",status="404"}' in text and "such" not in text
    assert 'litelvlm_request_seconds_bucket{le="0.25",path="/v1/segment"}' in text


def test_service_that_is_being_stopped_takes_nothing_but_says_that_it_lives(make_client):
    class Stopping(Local):
        def accept(self):
            raise RefusedError(503, "The server is being stopped.")

        async def is_ready(self):
            return False

    client = make_client(Stopping(None))
    assert client.post("/v1/segment", json=GIVEN).status_code == 503 == client.get("/readyz").status_code
    assert client.get("/healthz").json() == {"status": "alive"}


def test_no_request_that_the_document_allows_makes_the_server_fail(make_client, worker):
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    api = make_client().app
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.status_code_conformance,
        schemathesis.checks.response_schema_conformance,
    ]
    # What chance does not find: beside these the rest of a request is looked at
    real = {"/v1/segment": {"image": IMAGE}, "/v1/chat/completions": {"model": NAME, "messages": [message()]}}
    seen = set()
    for operation in schema.get_all_operations():
        operation = operation.ok()

        @hypothesis.settings(max_examples=5, deadline=None, database=None, derandomize=True)
        @hypothesis.given(case=operation.as_strategy(), is_real=hypothesis.strategies.booleans())
        def send(case, is_real):
            if is_real and isinstance(case.body, dict):
                case.body = case.body | real[case.path]
            response = case.call()
            case.validate_response(response, checks=checks)

        send()
        seen.add(operation.path)
    assert seen >= {"/v1/segment", "/v1/chat/completions", "/healthz"}
