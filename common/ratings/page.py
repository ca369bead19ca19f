"""The page on which one person rates: what it shows, and its server, which answers this machine alone."""

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

BODY_BYTES = 200  # of a rating; the page sends about 40
BODY_SECONDS = 5  # that a rating may take to arrive
END_SECONDS = 2  # that a request may still take after Ctrl-C
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Study:
    """What one rater is shown: the answers of all records, shuffled, and the scores given so far.

    items: {id: (record, row, texts)} in the order shown, fixed by rater and item; an id does not tell the record.
    scores: {id: 1 to 5}.
    """

    def __init__(self, paths, rater, file):
        self.rater, self.file = rater, Path(file).resolve()
        self.scores, items, given = {}, {}, store.read(self.file)
        for path, rows in store.same_rows(paths).items():
            whole, home = Path(path).resolve(), self.file.parent
            record = os.path.relpath(whole, home)  # both may be moved together
            for row, texts in enumerate(rows):
                key = hashlib.sha256(json.dumps([rater, record, row]).encode()).hexdigest()[:16]
                items[key] = (record, row, texts)
                if (str(whole), row, rater) in given:
                    self.scores[key] = given[str(whole), row, rater]
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
    """Refuses what comes neither from the page nor from the printed address, and adds HEADERS to every answer.

    The host is compared because any name can be made to lead here, the origin because any page can post here, the
    token because this machine may have other users.
    """

    def __init__(self, app, port, token):
        self.app, self.hosts, self.token = app, (f"127.0.0.1:{port}", f"localhost:{port}"), token

    async def __call__(self, scope, receive, send):
        scope["nonce"] = secrets.token_urlsafe(12)

        async def send_guarded(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value.format(scope["nonce"])
            await send(message)

        reason = self.reason(scope)
        await (PlainTextResponse(reason, 403) if reason else self.app)(scope, receive, send_guarded)

    def reason(self, scope):
        """Why this request is refused, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host not in self.hosts:
            return "this machine has another name"
        if headers.get("origin") not in (None, f"http://{host}"):
            return "this comes from another page"
        token = headers.get("x-token") or QueryParams(scope["query_string"]).get("token", "")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return "this is not the address that the command printed when it was last started"
        return None


def application(study, port, token):
    """GET /?token=…: the page. GET /items: what to rate. POST /rate {"id", "score"}: one rating."""
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

    async def refused(request, error):
        return PlainTextResponse(error.detail, error.status_code, error.headers)

    routes = [Route("/", page), Route("/items", items), Route("/rate", rate, methods=["POST"])]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: refused}), port, token)


def json_reply(value):
    """JSON in ASCII: answers of models may hold halves of characters, which UTF-8 does not have."""
    return Response(json.dumps(value), media_type="application/json")


async def rating_of(request, items):
    """(id, score) that a request to /rate holds; HTTPException if it is none."""
    length = request.headers.get("content-length", "")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    if not length.isdecimal() or int(length) > BODY_BYTES:
        raise HTTPException(413, f"send a Content-Length of at most {BODY_BYTES}")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            sent = store.parsed(await request.body())
    except TimeoutError:
        raise HTTPException(408, "the rating did not arrive", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the rating did not arrive") from None
    key, score = (sent.get("id"), sent.get("score")) if isinstance(sent, dict) else (None, None)
    if not isinstance(key, str) or score is None:
        raise HTTPException(400, "send an id and a score")
    if key not in items:
        raise HTTPException(404, "no such answer; reload the page")
    if not store.is_score(score):
        raise HTTPException(400, "a score is 1, 2, 3, 4 or 5")
    return key, score


class Server:
    """The page of one study at `url`. OSError or OverflowError if the port cannot be had; 0: any that is free."""

    def __init__(self, study, port):
        self.socket = socket.create_server(("127.0.0.1", port))
        port, token = self.socket.getsockname()[1], secrets.token_urlsafe(16)
        self.url, self.app = f"http://127.0.0.1:{port}/?token={token}", application(study, port, token)

    def run(self):
        """Answers until Ctrl-C or SIGTERM, then raises KeyboardInterrupt."""
        config = uvicorn.Config(
            self.app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # the address stays in sight
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=END_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[self.socket])
