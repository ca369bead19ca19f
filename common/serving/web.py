"""uvicorn as `python -m common serve` runs it: this file is imported when the server starts, it takes uvicorn in."""

import contextlib
import json
import logging
import signal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from common.serving import endpoint, openai_api

CLOSE_SECONDS = 2  # that replies may take once the server ends


class Protocol(H11Protocol):
    """Closes connections on which no whole request comes, and answers what is not HTTP in OpenAI's shape."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.expect_request()

    def data_received(self, data):
        super().data_received(data)
        if self.cycle is None and self.timeout_keep_alive_task is None:  # uvicorn sees to all but the first request
            self.expect_request()

    def expect_request(self):
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def send_400_response(self, msg):
        body = json.dumps(openai_api.error_body(400, "this is not a request of HTTP/1.1")).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


class Server(uvicorn.Server):
    """Ctrl-C or SIGTERM breaks off what is being written and ends it. on_open() is called once it can be asked."""

    def __init__(self, app, worker, on_open):
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                backlog=endpoint.BACKLOG,
                timeout_keep_alive=endpoint.IDLE_SECONDS,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self.worker, self.on_open = worker, on_open

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.on_open()

    async def shutdown(self, sockets=None):
        logging.getLogger("uvicorn.error").disabled = True  # replies that nobody takes are no news now
        self.worker.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self):
        """As uvicorn does, which also raises the signal again once it has ended."""
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
