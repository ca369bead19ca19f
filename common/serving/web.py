"""The uvicorn server of `python -m common serve`. Import this module only when the server starts, because it imports
uvicorn."""

import contextlib
import json
import logging
import signal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from common.serving import endpoint, openai_api

CLOSE_SECONDS = 2  # limit of the time that replies take after the server was told to end


class Protocol(H11Protocol):
    """Closes connections that send no complete request, and answers what is not HTTP with an error like OpenAI's."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.expect_request()

    def data_received(self, data):
        super().data_received(data)
        # uvicorn sets this timer for every request but the first.
        if self.cycle is None and self.timeout_keep_alive_task is None:
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
    """The server; Ctrl-C or SIGTERM stops running answers and ends it. It calls on_open() once it accepts requests."""

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
        logging.getLogger("uvicorn.error").disabled = True  # dropped replies are expected now
        self.worker.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self):
        """Handle signals as uvicorn does, but do not raise the signal again at the end, as uvicorn would."""
        previous_handlers = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)
