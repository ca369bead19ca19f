"""The HTTP routes of `python -m common serve`: they read JSON bodies and send answers, whole or as a stream.

Import this module only when something is served, because it imports starlette.
"""

import asyncio
import contextlib
import json
import socket
import time

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from common.console import InputError
from common.serving import batching, private, tryout
from common.serving.openai_api import (
    FIELDS,
    MAX_TOKENS,
    Refused,
    Shape,
    check_fields,
    error_body,
    request_of,
    usage_wanted,
)

BODY_BYTES = 1_000_000  # limit of a request's body
BODY_SECONDS = 10  # limit of the time that a request's body takes to arrive
IDLE_SECONDS = 30  # a connection without a request is closed after this time
BACKLOG = 2048  # connections that wait to be accepted; the kernel may set a lower limit


def error_reply(status, *words):
    headers = {503: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(status)  # seconds
    return JSONResponse(error_body(status, *words), status, headers)


class Guard:
    """Refuses requests of web pages, and of other names than this machine's own."""

    def __init__(self, app, port):
        self.app, self.port = app, port

    async def __call__(self, scope, receive, send):
        reason = private.foreign(Headers(scope=scope), self.port)
        await (error_reply(403, reason) if reason else self.app)(scope, receive, send)


class Endpoint:
    """The routes. served: serve.Served; prompts: openai_api.Prompts; worker: batching.Worker; context: limit on the
    tokens of prompt and answer together."""

    def __init__(self, served, prompts, worker, context):
        self.served, self.prompts, self.worker, self.context = served, prompts, worker, context
        self.began = int(time.time())
        self.usual = served.max_new_tokens or MAX_TOKENS

    def app(self, port):
        """The ASGI application."""

        async def on_refused(_, error):
            return error_reply(*error.args)

        async def on_not_found(request, error):
            if error.status_code == 405:
                return error_reply(405, f"use {error.headers['Allow']}")
            return error_reply(error.status_code, f"there is nothing here; there are: {', '.join(routes)}")

        async def on_defect(*_):
            return error_reply(500, "a defect of the server; its own output says which")

        routes = {"/": self.page, "/health": self.health, "/v1/models": self.models}
        routes |= dict.fromkeys(FIELDS, self.complete)
        app = Starlette(
            routes=[
                Route(path, handler, methods=["POST" if path in FIELDS else "GET"]) for path, handler in routes.items()
            ],
            exception_handlers={Refused: on_refused, HTTPException: on_not_found, Exception: on_defect},
        )
        return Guard(app, port)

    async def page(self, _):
        html, headers = tryout.page(self.served)
        return HTMLResponse(html, headers=headers)

    async def health(self, _):
        return JSONResponse({"status": "ok", "model": self.served.name, "waiting": len(self.worker.waiting)})

    async def models(self, _):
        description = {"object": "model", "created": self.began, "owned_by": "local", "max_model_len": self.context}
        return JSONResponse({"object": "list", "data": [{"id": self.served.name, **description}]})

    async def complete(self, http):
        """Answer POST /v1/completions or /v1/chat/completions. Raises Refused."""
        body, path = await read(http), http.scope["path"]
        check_fields(body, FIELDS[path])
        usage_place = usage_wanted(body)
        chat = path.endswith("chat/completions")
        tokenise = self.prompts.conversation if chat else self.prompts.completion
        ids, encoder = await run_in_threadpool(tokenise, body)
        request = request_of(body, self.served.name, ids, encoder, self.usual, self.context)
        shape, pieces = Shape(chat, self.served.name), self.submit(request)
        try:
            # Wait for the first piece before sending a status, so that a failure gets its own status.
            first = await next_piece(pieces, http)
            if first is HUNG_UP:
                self.worker.drop(request)
                return Response()  # the client hung up: nobody reads this
            if request.ready.is_set() and not request.answer:
                raise self.failed()
            if not request.streams:
                return JSONResponse(shape.whole(request.answer["text"], *self.end(request)))
        except BaseException:
            self.worker.drop(request)
            raise
        events = self.events(request, shape, first, pieces, usage_place)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    def submit(self, request):
        """Submit the request; returns an asyncio.Queue of its pieces of text, with None at the end. Raises Refused."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def listen(piece):
            with contextlib.suppress(RuntimeError):  # the server has ended and closed the loop
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        request.listen = listen
        try:
            self.worker.submit(request)
        except batching.Full:
            reason = f"{self.worker.max_waiting} requests wait already: try again"
            raise Refused(503, reason, None, "queue_full") from None
        return pieces

    async def events(self, request, shape, piece, pieces, usage_place):
        """Yield server-sent events: the chunks of an answer, then [DONE]. piece: the answer's first text."""
        event = lambda value: f"data: {json.dumps(value)}\n\n"  # noqa: E731
        no_usage = {"usage": None} if usage_place == "behind" else {}  # as OpenAI sends it
        try:
            if shape.chat:
                yield event(shape.chunk(None, first=True) | no_usage)
            while piece is not None:
                yield event(shape.chunk(piece) | no_usage)
                piece = await pieces.get()
            if not request.answer:
                yield event(error_body(*self.failed().args))
                return
            reason, usage = self.end(request)
            yield event(shape.chunk(None, reason) | ({"usage": usage} if usage_place == "beside" else no_usage))
            if usage_place == "behind":
                yield event(shape.part([]) | {"usage": usage})
            yield "data: [DONE]\n\n"
        finally:  # the client may have hung up
            self.worker.drop(request)

    def end(self, request):
        """(finish_reason, usage) of an answer, as OpenAI names and counts them."""
        read, written = len(request.prompt), request.answer["tokens"]
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return "stop" if request.answer["stopped"] else "length", usage

    def failed(self):
        if self.worker.closed:
            return Refused(503, "the server ends", None, "shutting_down")
        return Refused(500, "the model failed on this batch; the server's own output says why", None, "batch_failed")


HUNG_UP = object()


async def next_piece(pieces, http):
    """The next piece of text, or HUNG_UP if the client closes the connection before it comes."""
    start = asyncio.ensure_future
    piece, hang_up = start(pieces.get()), start(disconnected(http))
    try:
        await asyncio.wait({piece, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        return piece.result() if piece.done() else HUNG_UP
    finally:
        piece.cancel()
        hang_up.cancel()


async def disconnected(http):
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def read(http):
    """The JSON object in the request's body. Raises Refused if the body is too large, late, cut off or not JSON."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in http.stream():
                body += part
                if len(body) > BODY_BYTES:  # uvicorn drops the rest
                    raise Refused(413, f"a request has at most {BODY_BYTES} bytes")
    except TimeoutError:
        raise Refused(408, f"the body is shorter than was told, or took more than {BODY_SECONDS} s") from None
    except ClientDisconnect:
        raise Refused(400, "the connection was closed") from None
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    return value


def bind(port):
    """A socket bound to 127.0.0.1:port. It is bound before the model is loaded, so that a port in use fails at once,
    and listens once the server runs. Raises InputError."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"port {port}: {error}; name another with --port") from None
    return listener
