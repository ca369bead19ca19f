"""The OpenAI-compatible side of `python -m common.serve`: requests checked, texts turned into token ids, answers and
errors in OpenAI's shapes. Listens on 127.0.0.1 and nowhere else.
"""

import json
import math
import re
import secrets
import select
import socket
import sys
import threading
import time
from http import server

from common import batching, encoding
from common.console import InputError

LIMIT = 1_000_000  # bytes of a request
MAX_TOKENS = 128  # of an answer, where neither the request nor the run says
# What is not served, with the value that asks for nothing.
NEUTRAL = {
    "stream": False, "n": 1, "best_of": 1, "echo": False, "suffix": "", "logprobs": False, "top_logprobs": 0,
    "top_p": 1, "min_p": 0, "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {},
    "tools": [], "functions": [], "response_format": {"type": "text"},
}  # fmt: skip


class Refused(Exception):
    """A request that is not answered: HTTP status, reason, the field that is wrong or None, OpenAI's code or None."""


class Prompts:
    """Requests' texts as token ids, spelled as for training. chat: None for a checkpoint without a chat template."""

    def __init__(self, tokenizer, format):
        whole = encoding.Template("{document}")
        make = lambda kind: encoding.Encoder(tokenizer, whole, kind, sys.maxsize, 0)  # noqa: E731
        self.plain = make("plain")
        self.chat = make("chat") if tokenizer.chat_template else None
        self.ends = self.chat if format == "chat" and self.chat else self.plain  # how the model was taught to end
        self.turn = threading.Lock()  # tokenizers are not made for several threads

    def completion(self, sent):
        """(ids, the Encoder whose ends hold) of {"prompt"}."""
        if not is_text(sent.get("prompt")):
            raise Refused(400, "prompt: one text", "prompt")
        with self.turn:
            return self.plain.prompt(sent["prompt"]), self.ends

    def conversation(self, sent):
        """The same of {"messages"}."""
        import jinja2

        turns = sent.get("messages")
        if not self.chat:
            raise Refused(400, "this model has no chat template: use /v1/completions", "messages")
        if not isinstance(turns, list) or not turns or not all(map(is_turn, turns)):
            raise Refused(400, 'messages: a list of {"role": text, "content": text}', "messages")
        try:
            with self.turn:
                return self.chat.conversation(
                    [{name: turn[name] for name in ("role", "content")} for turn in turns]
                ), self.chat
        except jinja2.TemplateError as error:
            raise Refused(400, f"the model's chat template does not take these messages: {error}", "messages") from None


def is_text(value):
    """Is it a text that can be encoded? JSON can spell half a character."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def is_turn(value):
    return isinstance(value, dict) and is_text(value.get("role")) and is_text(value.get("content"))


def is_whole(value):
    return type(value) is int  # bool is a kind of int


def given(sent, name, fits, wanted, default=None):
    """The field `name` of a request, or `default` where it is missing or null. Raises Refused if it does not fit."""
    value = sent.get(name)
    if value is None:
        return default
    if not fits(value):
        raise Refused(400, f"{name}: {wanted}", name)
    return value


def is_temperature(value):
    return type(value) in (int, float) and math.isfinite(value) and (value == 0 or 0.01 <= value <= 2)


def is_stop(value):
    return is_text(value) or (isinstance(value, list) and len(value) <= 4 and all(map(is_text, value)))


def decoding(sent):
    """As generation.GREEDY has it."""
    temperature = given(sent, "temperature", is_temperature, "0 (greedy), or from 0.01 to 2")
    top_k = given(sent, "top_k", lambda k: is_whole(k) and k >= -1, "a whole number; 0 or -1: all tokens")
    top_k = top_k if top_k and top_k > 0 and temperature != 0 else None
    return {"temperature": temperature or None, "top_k": top_k, "num_beams": 1}


def request_of(sent, name, ids, ends, usual, room):
    """The batching.Request that the fields of a request make. usual: tokens of an answer if it does not say; room:
    tokens of the context. Raises Refused."""
    given(sent, "model", lambda model: isinstance(model, str), "a text")
    if sent.get("model") not in (None, name):
        raise Refused(404, f"the model served here is {name}", "model", "model_not_found")
    for field, nothing in NEUTRAL.items():
        if sent.get(field) not in (None, nothing):
            raise Refused(400, f"{field} is not supported here", field)
    field = "max_completion_tokens" if sent.get("max_tokens") is None else "max_tokens"
    tokens = given(sent, field, lambda n: is_whole(n) and n > 0, "a whole number above 0")
    if not ids:
        raise Refused(400, "the prompt is empty", "prompt")
    if len(ids) + (tokens or 1) > room:
        asked = f"{len(ids)} of the prompt and {tokens or 1} of the answer"
        reason = f"the model's context holds {room} tokens, this takes {len(ids) + (tokens or 1)}: {asked}"
        raise Refused(400, reason, "messages" if "messages" in sent else "prompt", "context_length_exceeded")
    seed = given(sent, "seed", lambda n: is_whole(n) and 0 <= n < 2**32, "0 <= seed < 2**32")
    how = decoding(sent)
    drawn = how["temperature"] or how["top_k"]
    return batching.Request(ids, ends, how, tokens or min(usual, room - len(ids)), seed if drawn else None)


def cut_at(text, stops):
    """(text up to the first of `stops`, whether there was one)."""
    places = [text.find(stop) for stop in stops if stop and stop in text]
    return (text[: min(places)], True) if places else (text, False)


class Server(server.ThreadingHTTPServer):
    """Bound to this machine only, and not open before the model is there."""

    request_queue_size = 128

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), Handler, bind_and_activate=False)
        try:
            self.server_bind()
        except (OSError, OverflowError) as error:
            self.server_close()
            raise InputError(f"port {port}: {error}; name another with --port") from None

    def open(self, served, prompts, worker, room):
        self.served, self.prompts, self.worker, self.room = served, prompts, worker, room
        self.began = int(time.time())
        self.usual = served.settings.get("max_new_tokens") or MAX_TOKENS
        self.server_activate()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client may hang up when it likes
            super().handle_error(request, client_address)


class Handler(server.BaseHTTPRequestHandler):
    """Turns requests into replies; every error has OpenAI's shape {"error": {"message", "type", "param", "code"}}."""

    timeout = 30  # seconds: a connection on which nothing comes is closed
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "serve", ""

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        routes = {
            "/health": ("GET", self.health),
            "/v1/models": ("GET", self.models),
            "/v1/completions": ("POST", self.completions),
            "/v1/chat/completions": ("POST", self.chat),
        }
        try:
            body = self.body()
            self.check()
            method, work = routes.get(self.path.partition("?")[0], (None, None))
            if not work:
                raise Refused(404, f"there is nothing here; there are: {', '.join(routes)}")
            if method != self.command:
                raise Refused(405, f"use {method}")
            self.reply(200, work(body))
        except Refused as refused:
            self.refuse(*refused.args)

    def body(self):
        """What was sent, as bytes. What is too long is read and dropped, so that the sender gets to read why."""
        length = self.headers["Content-Length"] or ("" if "Transfer-Encoding" in self.headers else "0")
        if not re.fullmatch("[0-9]{1,15}", length):
            self.close_connection = True
            raise Refused(411, "send a Content-Length")
        if int(length) <= LIMIT:
            return self.rfile.read(int(length))
        self.close_connection = True
        left = min(int(length), 16 * LIMIT)
        while left and (dropped := len(self.rfile.read(min(left, 65536)))):
            left -= dropped
        raise Refused(413, f"a request has at most {LIMIT} bytes")

    def check(self):
        """Refuse what a web page sends: any name can be made to lead here, and any page can post here."""
        host, port = self.headers["Host"], self.server.server_port
        if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            raise Refused(403, f"this is 127.0.0.1:{port} and has no other name")
        if self.headers["Origin"] not in (None, f"http://{host}"):
            raise Refused(403, "this comes from a web page")

    def health(self, _):
        return {"status": "ok", "model": self.server.served.name, "waiting": len(self.server.worker.waiting)}

    def models(self, _):
        about = {"object": "model", "created": self.server.began, "owned_by": "local"}
        about["max_model_len"] = self.server.room
        return {"object": "list", "data": [{"id": self.server.served.name, **about}]}

    def completions(self, body):
        text, rest = self.answer(body, self.server.prompts.completion)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": rest.pop("finish_reason")}
        return {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "choices": [choice], **rest}

    def chat(self, body):
        text, rest = self.answer(body, self.server.prompts.conversation)
        said = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": rest.pop("finish_reason")}
        return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion", "choices": [choice], **rest}

    def answer(self, body, read):
        """(text, what else both kinds of reply have). read: the method of Prompts for this kind."""
        home = self.server
        try:
            sent = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(sent, dict):
            raise Refused(400, "the body is not a JSON object")
        ids, ends = read(sent)
        stops = given(sent, "stop", is_stop, "a text, or up to 4 of them", [])
        request = request_of(sent, home.served.name, ids, ends, home.usual, home.room)
        try:
            home.worker.submit(request)
        except batching.Full:
            raise Refused(503, f"{home.worker.room} requests wait already: try again", None, "queue_full") from None
        while not request.ready.wait(0.25):
            if self.hung_up():
                home.worker.drop(request)
                raise ConnectionAbortedError
        if not request.answer:
            if home.worker.closed:
                raise Refused(503, "the server ends", None, "shutting_down")
            raise Refused(500, "the model failed on this batch; the server's own output says why", None, "batch_failed")
        text, was_cut = cut_at(request.answer["text"], [stops] if isinstance(stops, str) else stops)
        written = request.answer["tokens"]
        return text, {
            "created": int(time.time()),
            "model": home.served.name,
            "finish_reason": "stop" if was_cut or request.answer["stopped"] else "length",
            "usage": {"prompt_tokens": len(ids), "completion_tokens": written, "total_tokens": len(ids) + written},
        }

    def hung_up(self):
        """Did the client close the connection?"""
        watched = select.poll()
        watched.register(self.connection, select.POLLIN)
        try:
            return bool(watched.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def refuse(self, status, reason, field=None, code=None):
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.reply(status, {"error": {"message": reason, "type": kind, "param": field, "code": code}})

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")  # seconds
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code, message=None, explain=None):
        """What http.server itself refuses: a method it does not know, a request it cannot read."""
        self.close_connection = True
        self.refuse(int(code), message or explain or "this request cannot be read")

    def log_message(self, *words):
        """Nothing: the address stays in sight."""
