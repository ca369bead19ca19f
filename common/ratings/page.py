"""The page on which one person rates, and its server, which answers requests of this machine only."""

import asyncio
import hashlib
import json
import os
import secrets
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from common.ratings import store
from common.runs import records
from common.serving import private

BODY_BYTES = 200  # limit of a rating; the page sends about 40
BODY_SECONDS = 5  # limit of the time that a rating takes to arrive
END_SECONDS = 2  # limit of the time that a request takes after Ctrl-C


class Study:
    """The shuffled answers of all records for one rater, and the scores so far.

    items: {id: (record, row, texts)} in the order of the page, which depends on the rater and the item only; an id does
    not reveal the record. scores: {id: 1 to 5}.
    """

    def __init__(self, paths, rater, file):
        self.rater, self.file = rater, Path(file).resolve()
        self.scores, items, ratings = {}, {}, store.read(self.file)
        for path, rows in store.same_rows(paths).items():
            absolute_path, ratings_folder = Path(path).resolve(), self.file.parent
            record = os.path.relpath(absolute_path, ratings_folder)  # relative, so that both can move together
            for row, texts in enumerate(rows):
                key = hashlib.sha256(json.dumps([rater, record, row]).encode()).hexdigest()[:16]
                items[key] = (record, row, texts)
                if (str(absolute_path), row, rater) in ratings:
                    self.scores[key] = ratings[str(absolute_path), row, rater]
        self.items = dict(sorted(items.items()))

    def rate(self, key, score):
        record, row, _ = self.items[key]
        rating = {"record": record, "row": row, "rater": self.rater, "score": score, "rated_at": records.now()}
        store.append(self.file, rating)
        self.scores[key] = score

    def shown(self):
        return [{"id": key, **texts, "score": self.scores.get(key)} for key, (_, _, texts) in self.items.items()]

    def left(self):
        return f"{len(self.items) - len(self.scores)} of {len(self.items)} answers are left to rate for {self.rater}"


class Guard:
    """Refuses requests that come neither from the page nor from the printed address, and adds headers to every reply.
    It compares the token, too, because this machine may have other users."""

    def __init__(self, app, port, token):
        self.app, self.port, self.token = app, port, token

    async def __call__(self, scope, receive, send):
        scope["nonce"], added = private.page_headers()

        async def send_guarded(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(added)
            await send(message)

        reason = self.reason(scope)
        await (PlainTextResponse(reason, 403) if reason else self.app)(scope, receive, send_guarded)

    def reason(self, scope):
        """Why this request is refused, or None."""
        headers = Headers(scope=scope)
        if foreign := private.foreign(headers, self.port):
            return foreign
        token = headers.get("x-token") or QueryParams(scope["query_string"]).get("token", "")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return "this is not the address that the command printed when it was last started"
        return None


def application(study, port, token):
    """The ASGI application. GET /?token=…: the page. GET /items: the answers. POST /rate {"id", "score"}: a rating."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    async def page(request):
        return HTMLResponse(html.replace("NONCE", request.scope["nonce"]))

    async def items(request):
        return json_reply(study.shown())

    async def rate(request):
        key, score = await rating_of(request, study.items)
        try:
            await run_in_threadpool(study.rate, key, score)
        except OSError as error:
            raise HTTPException(500, f"{study.file.name}: {error.strerror}") from None
        return json_reply({"score": score})

    async def on_refused(request, error):
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    routes = [Route("/", page), Route("/items", items), Route("/rate", rate, methods=["POST"])]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: on_refused}), port, token)


def json_reply(value):
    """A reply of JSON in ASCII, because answers of models may hold half a surrogate pair, which UTF-8 cannot encode."""
    return Response(json.dumps(value), media_type="application/json")


async def rating_of(request, items):
    """(id, score) of a request to /rate. Raises HTTPException if the body is not a rating of one of `items`."""
    length = request.headers.get("content-length", "")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    if not length.isdecimal() or int(length) > BODY_BYTES:
        raise HTTPException(413, f"send a Content-Length of at most {BODY_BYTES}")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = store.parsed(await request.body())
    except TimeoutError:
        raise HTTPException(408, "the rating did not arrive", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the rating did not arrive") from None
    key, score = (body.get("id"), body.get("score")) if isinstance(body, dict) else (None, None)
    if not isinstance(key, str) or score is None:
        raise HTTPException(400, "send an id and a score")
    if key not in items:
        raise HTTPException(404, "no such answer; reload the page")
    if not store.is_score(score):
        raise HTTPException(400, "a score is 1, 2, 3, 4 or 5")
    return key, score


class Server:
    """The server of one study's page, at `url`. port: 0 for any free one. Raises OSError or OverflowError if it cannot
    have the port."""

    def __init__(self, study, port):
        self.socket = socket.create_server(("127.0.0.1", port))
        port, token = self.socket.getsockname()[1], secrets.token_urlsafe(16)
        self.url, self.app = f"http://127.0.0.1:{port}/?token={token}", application(study, port, token)

    def run(self):
        """Answer requests until Ctrl-C or SIGTERM, then raise KeyboardInterrupt."""
        config = uvicorn.Config(
            self.app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # so that the address stays in sight
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=END_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[self.socket])
