"""What OpenAI's clients ask for over HTTP: `/v1/audio/transcriptions`, `/v1/audio/translations`, `/v1/models`.

The application runs in the server's event loop; each recording is transcribed in a thread of its own, which hands its
events over as they are found (`Actions.transcribe`). They are not bounded but by the longest recording that is taken.
Errors are OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
"""

import asyncio
import json
import logging
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from aiohttp import BodyPartReader, web

from streamer.errors import StreamerError
from streamer.events import Event, Transcript
from streamer.server import answers
from streamer.server.access import Credentials, Request, asker
from streamer.server.actions import Actions, BusyError, Upload, UploadRefusedError
from streamer.server.addresses import Entrance
from streamer.settings.server import ServerSettings

MAX_FIELD = 64 * 2**10  # bytes, of everything but the file
MAX_FIELDS = 64
SEND_FILE_S = 600.0  # how long a client may take to send its recording
FORMATS: Final = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES: Final = frozenset({"word", "segment"})

Task = Literal["transcribe", "translate"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer that says what is wrong. `param`: the field at fault; `retry_s`: when to try again."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_s = status, param, code, retry_s

    def answer(self) -> dict[str, Any]:
        """The body, as OpenAI writes it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class _Wish:
    """The form of a request, without the file."""

    languages: tuple[str, ...]
    prompt: str
    answer: str
    granularities: frozenset[str]
    stream: bool


async def open_http(settings: ServerSettings, entrance: Entrance, actions: Actions) -> web.AppRunner:
    """The application, ready to take connections: `runner.server()` makes one for each."""
    app = web.Application(middlewares=[_guard(entrance)])
    app.on_response_prepare.append(_headers)
    limit = settings.upload_max_mb * 2**20

    async def transcriptions(request: web.Request) -> web.StreamResponse:
        return await _recording(request, actions, limit, "transcribe")

    async def translations(request: web.Request) -> web.StreamResponse:
        return await _recording(request, actions, limit, "translate")

    async def models(request: web.Request) -> web.StreamResponse:
        facts = actions.model()
        known = [] if facts is None else [{"id": facts.name, "object": "model", "created": 0, "owned_by": "streamer"}]
        return web.json_response({"object": "list", "data": known})

    app.router.add_post("/v1/audio/transcriptions", transcriptions)
    app.router.add_post("/v1/audio/translations", translations)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    return runner


def _guard(entrance: Entrance) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Who may not come in, and whatever else is wrong, gets an error in OpenAI's form."""
        try:
            _check(entrance, request)
            return await handler(request)
        except ApiError as error:
            return _refusal(error)
        except web.HTTPException as error:
            there = "there are POST /v1/audio/transcriptions, POST /v1/audio/translations, GET /v1/models"
            return _refusal(ApiError(error.status, f"{request.method} {request.path}: {error.reason}; {there}"))
        except Exception:  # noqa: BLE001 - the top of a task: one request's failure is only its own
            _log.exception("a request below /v1/ failed")
            return _refusal(ApiError(500, "internal error"))

    return guard


def _check(entrance: Entrance, request: web.Request) -> None:
    head, access = request.headers, entrance.access
    forwarded = head.getall("X-Forwarded-For", []) or head.getall("Forwarded", [])
    address, local = asker(request.remote or "", forwarded, entrance.proxies)
    asked = Request(
        head.getall("Host", []),
        head.getall("Origin", []),
        head.getall("Authorization", []),
        request.rel_url.raw_query_string,
        head.getall("Cookie", []),
        address,
        local,
    )
    if wait_s := entrance.wait_s(asked):
        seconds = max(1, round(wait_s))
        raise ApiError(429, f"too many wrong tokens; try in {seconds} s", code="rate_limit_exceeded", retry_s=seconds)
    if access.credentials(asked) is Credentials.WRONG:
        entrance.addresses.tried(address)
    if refusal := access.refusal(asked):
        wrong_token = access.host_allowed(asked) and access.origin_allowed(asked)
        entrance.refused("token" if wrong_token else "host or origin")
        raise ApiError(401 if wrong_token else 403, refusal, code="invalid_api_key" if wrong_token else None)


def _refusal(error: ApiError) -> web.Response:
    wait = {} if error.retry_s is None else {"Retry-After": str(error.retry_s)}
    return web.json_response(error.answer(), status=error.status, headers=wait)


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    response.headers["Connection"] = "close"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "streamer"


async def _recording(request: web.Request, actions: Actions, limit: int, task: Task) -> web.StreamResponse:
    if not request.content_type.startswith("multipart/"):
        raise ApiError(400, "the request must be multipart/form-data with a file in it", "file")
    if (request.content_length or 0) > limit + MAX_FIELDS * MAX_FIELD:
        raise _too_large(limit)
    with tempfile.NamedTemporaryFile(prefix="streamer-upload-") as file:
        try:
            async with asyncio.timeout(SEND_FILE_S):
                name, fields = await _form(request, file.file, limit)
        except TimeoutError:
            raise ApiError(408, "the recording took too long to come", "file") from None
        wish = _wish(fields)
        upload = Upload(Path(file.name), name, task, wish.languages, wish.prompt)
        async with aclosing(_events(actions, upload)) as found:
            if wish.stream:
                return await _stream(request, found)
            events = [event async for some in found for event in some]
    names = facts.languages if (facts := actions.model()) else {}
    match wish.answer:
        case "json":
            return web.json_response(answers.brief(events))
        case "verbose_json":
            return web.json_response(answers.verbose(events, task, names, wish.granularities))
        case "text":
            return web.Response(text=answers.joined(answers.finals(events)) + "\n")
        case "srt":
            return web.Response(text=answers.captions(events, "srt"))
        case _:
            return web.Response(text=answers.captions(events, "vtt"), content_type="text/vtt")


async def _form(request: web.Request, file: IO[bytes], limit: int) -> tuple[str, dict[str, list[str]]]:
    """What the client calls its recording, whose bytes go to `file`; and the other fields."""
    name, fields, size = "", dict[str, list[str]](), 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise ApiError(400, "the form must consist of plain fields, each with a name")
            if part.name == "file":
                name = part.filename or "file"
                while data := await part.read_chunk(2**16):
                    size += len(data)
                    if size > limit:
                        raise _too_large(limit)
                    file.write(data)
                continue
            value = b""
            while data := await part.read_chunk(2**16):
                value += data
                if len(value) > MAX_FIELD:
                    raise ApiError(400, f"{part.name}: must be at most {MAX_FIELD} bytes", part.name)
            fields.setdefault(part.name.removesuffix("[]"), []).append(value.decode("utf-8", "replace"))
            if sum(map(len, fields.values())) > MAX_FIELDS:
                raise ApiError(400, f"the form must have at most {MAX_FIELDS} fields")
    except (ValueError, web.RequestPayloadError) as error:
        raise ApiError(400, f"the form cannot be read: {' '.join(str(error).split())}") from None
    if not size:
        raise ApiError(400, "file: is missing or empty; give an audio or video file", "file")
    file.flush()
    return name, fields


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"Maximum content size limit ({limit}) exceeded: server.upload_max_mb", "file")


def _wish(fields: dict[str, list[str]]) -> _Wish:
    """The fields, checked. Any `model` will do: there is one. What would change the answer and cannot be is refused."""

    def last(name: str, usual: str = "") -> str:
        return fields.get(name, [usual])[-1].strip()

    answer, stream = last("response_format", "json"), last("stream", "false").lower() in ("true", "1")
    granularities = frozenset(one.strip() for one in fields.get("timestamp_granularities", []))
    if answer not in FORMATS:
        raise ApiError(400, f"response_format: must be {', '.join(FORMATS)}; is {answer[:40]!r}", "response_format")
    if granularities - GRANULARITIES:
        raise ApiError(400, "timestamp_granularities: must be word or segment", "timestamp_granularities")
    if granularities and answer != "verbose_json":
        needs = "timestamp_granularities: needs response_format verbose_json"
        raise ApiError(400, needs, "timestamp_granularities")
    if stream and answer not in ("json", "text"):
        raise ApiError(400, f"stream: is for json and text, not for {answer}", "stream")
    if fields.get("include"):
        raise ApiError(400, "include: log probabilities of single tokens are not told here", "include")
    try:
        temperature = float(last("temperature", "0") or 0)
    except ValueError:
        temperature = -1.0
    if temperature != 0:
        needs = "temperature: must be 0, with which higher ones are tried where the text is unlikely or repeats itself"
        raise ApiError(400, needs, "temperature")
    languages = (*fields.get("language", [])[-1:], *fields.get("languages", []))
    return _Wish(tuple(one for one in languages if one.strip()), last("prompt"), answer, granularities, stream)


async def _events(actions: Actions, upload: Upload) -> AsyncGenerator[Sequence[Event], None]:
    """What a thread of its own finds in the recording, as it is found; it ends early where nobody waits any more.

    Raises ApiError.
    """
    loop, found = asyncio.get_running_loop(), asyncio.Queue[Sequence[Event] | Exception | None]()
    unwanted = threading.Event()

    def put(item: Sequence[Event] | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop ended
            loop.call_soon_threadsafe(found.put_nowait, item)

    def transcribe() -> None:
        try:
            for events in actions.transcribe(upload):
                put(events)
                if unwanted.is_set():
                    return
            put(None)
        except Exception as error:  # noqa: BLE001 - the top of the thread: the client is told
            put(error)

    threading.Thread(target=transcribe, name="upload", daemon=True).start()
    try:
        while (item := await found.get()) is not None:
            if isinstance(item, Exception):
                raise _told(item) from item
            yield item
    finally:
        unwanted.set()


def _told(error: Exception) -> ApiError:
    match error:
        case UploadRefusedError():
            return ApiError(400, str(error), error.field)
        case BusyError():
            return ApiError(503, str(error), code="try_again")
        case StreamerError():
            return ApiError(500, str(error))
    _log.error("a recording could not be transcribed", exc_info=error)
    return ApiError(500, "internal error")


async def _stream(request: web.Request, found: AsyncGenerator[Sequence[Event], None]) -> web.StreamResponse:
    """Server-sent events: `transcript.text.delta` for each passage, `transcript.text.done` at the end, or an error.

    What is wrong before the first of them is an answer of its own, with its status.
    """
    events: list[Event] = list(await anext(found, ()))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)

    async def say(message: dict[str, Any]) -> None:
        await response.write(f"data: {json.dumps(message)}\n\n".encode())

    async def say_new(some: Sequence[Event], said: Sequence[Transcript]) -> None:
        for number, passage in enumerate(answers.finals(some)):
            space = answers.joint(passage.language) if said or number else ""
            await say({"type": "transcript.text.delta", "delta": space + passage.text})

    try:
        await say_new(events, ())
        async for some in found:
            await say_new(some, answers.finals(events))
            events += some
        text = answers.joined(answers.finals(events))
        await say({"type": "transcript.text.done", "text": text, "streamer": answers.extension(events)})
    except ApiError as error:
        await say(error.answer())
    await response.write_eof()
    return response
