"""The address of `python -m common serve`: routes, bodies that are read, answers that are sent whole or in pieces.
Imported once something is served: it takes starlette in.
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
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from common.console import InputError
from common.serving import batching
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

BODY_BYTES = 1_000_000  # of a request
BODY_SECONDS = 10  # that the body of a request may take to arrive
IDLE_SECONDS = 30  # a connection on which no request comes is closed
BACKLOG = 2048  # connections that the kernel keeps until they are accepted; it may have a lower limit of its own


def error_reply(status, *words):
    headers = {503: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(status)  # seconds
    return JSONResponse(error_body(status, *words), status, headers)


class Guard:
    """Refuses what a web page sends: any name can be made to lead here, and any page can post here."""

    def __init__(self, app, port):
        self.app, self.port = app, port

    async def __call__(self, scope, receive, send):
        headers = Headers(scope=scope)
        host, reply = headers.get("host"), self.app
        if host not in (f"127.0.0.1:{self.port}", f"localhost:{self.port}"):
            reply = error_reply(403, f"this is 127.0.0.1:{self.port} and has no other name")
        elif headers.get("origin") not in (None, f"http://{host}"):
            reply = error_reply(403, "this comes from a web page")
        await reply(scope, receive, send)


class Endpoint:
    """The routes. served: serve.Served; context: tokens that prompt and answer may take together."""

    def __init__(self, served, prompts, worker, context):
        self.served, self.prompts, self.worker, self.context = served, prompts, worker, context
        self.began = int(time.time())
        self.usual = served.max_new_tokens or MAX_TOKENS

    def app(self, port):
        """The ASGI application."""

        async def refused(_, error):
            return error_reply(*error.args)

        async def not_found(request, error):
            if error.status_code == 405:
                return error_reply(405, f"use {error.headers['Allow']}")
            return error_reply(error.status_code, f"there is nothing here; there are: {', '.join(routes)}")

        async def broken(*_):
            return error_reply(500, "a defect of the server; its own output says which")

        routes = {"/health": self.health, "/v1/models": self.models}
        routes |= dict.fromkeys(FIELDS, self.complete)
        app = Starlette(
            routes=[Route(path, do, methods=["POST" if path in FIELDS else "GET"]) for path, do in routes.items()],
            exception_handlers={Refused: refused, HTTPException: not_found, Exception: broken},
        )
        return Guard(app, port)

    async def health(self, _):
        return JSONResponse({"status": "ok", "model": self.served.name, "waiting": len(self.worker.waiting)})

    async def models(self, _):
        about = {"object": "model", "created": self.began, "owned_by": "local", "max_model_len": self.context}
        return JSONResponse({"object": "list", "data": [{"id": self.served.name, **about}]})

    async def complete(self, http):
        """An answer to POST /v1/completions or /v1/chat/completions."""
        sent, path = await read(http), http.scope["path"]
        check_fields(sent, FIELDS[path])
        usage_place = usage_wanted(sent)
        chat = path.endswith("chat/completions")
        tokenise = self.prompts.conversation if chat else self.prompts.completion
        ids, ends = await run_in_threadpool(tokenise, sent)
        request = request_of(sent, self.served.name, ids, ends, self.usual, self.context)
        shape, pieces = Shape(chat, self.served.name), self.submit(request)
        try:
            # The status is not sent before something is written, so that a failure has a status of its own.
            first = await next_piece(pieces, http)
            if first is HUNG_UP:
                self.worker.drop(request)
                return Response()  # nobody reads it
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
        """A queue of the request's pieces of text, with None at the end. Raises Refused."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def listen(piece):
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        request.listen = listen
        try:
            self.worker.submit(request)
        except batching.Full:
            reason = f"{self.worker.max_waiting} requests wait already: try again"
            raise Refused(503, reason, None, "queue_full") from None
        return pieces

    async def events(self, request, shape, piece, pieces, usage_place):
        """Server-sent events: the chunks of an answer, of which `piece` is the first text, then [DONE]."""
        event = lambda value: f"data: {json.dumps(value)}\n\n"  # noqa: E731
        more = {"usage": None} if usage_place == "behind" else {}  # OpenAI has it so
        try:
            if shape.chat:
                yield event(shape.chunk(None, first=True) | more)
            while piece is not None:
                yield event(shape.chunk(piece) | more)
                piece = await pieces.get()
            if not request.answer:
                yield event(error_body(*self.failed().args))
                return
            reason, usage = self.end(request)
            yield event(shape.chunk(None, reason) | ({"usage": usage} if usage_place == "beside" else more))
            if usage_place == "behind":
                yield event(shape.part([]) | {"usage": usage})
            yield "data: [DONE]\n\n"
        finally:  # the client may have hung up
            self.worker.drop(request)

    def end(self, request):
        """(why the answer ended, its usage), as OpenAI has them."""
        read, written = len(request.prompt), request.answer["tokens"]
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return "stop" if request.answer["stopped"] else "length", usage

    def failed(self):
        if self.worker.closed:
            return Refused(503, "the server ends", None, "shutting_down")
        return Refused(500, "the model failed on this batch; the server's own output says why", None, "batch_failed")


HUNG_UP = object()


async def next_piece(pieces, http):
    """What comes next, or HUNG_UP if the client closes the connection before."""
    wait = asyncio.ensure_future
    piece, end = wait(pieces.get()), wait(disconnected(http))
    try:
        await asyncio.wait({piece, end}, return_when=asyncio.FIRST_COMPLETED)
        return piece.result() if piece.done() else HUNG_UP
    finally:
        piece.cancel()
        end.cancel()


async def disconnected(http):
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def read(http):
    """The JSON object that was sent. Raises Refused."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in http.stream():
                body += part
                if len(body) > BODY_BYTES:  # what is still to come is dropped by uvicorn
                    raise Refused(413, f"a request has at most {BODY_BYTES} bytes")
    except TimeoutError:
        raise Refused(408, f"the body is shorter than was told, or took more than {BODY_SECONDS} s") from None
    except ClientDisconnect:
        raise Refused(400, "the connection was closed") from None
    try:
        sent = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(sent, dict):
        raise Refused(400, "the body is not a JSON object")
    return sent


def bind(port):
    """A socket of this machine only, taken before the model is loaded and opened when it is there."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        taken.close()
        raise InputError(f"port {port}: {error}; name another with --port") from None
    return taken
