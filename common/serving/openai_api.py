"""OpenAI's API: check requests, turn them into token ids, and shape replies and errors."""

import difflib
import math
import secrets
import sys
import threading
import time

from common import encoding
from common.serving import batching

MAX_TOKENS = 128  # limit of an answer if neither the request nor the run sets one
COMMON = ("model", "max_tokens", "temperature", "top_k", "seed", "stop", "stream", "stream_options", "user")
FIELDS = {
    "/v1/completions": ("prompt", *COMMON),
    "/v1/chat/completions": ("messages", "max_completion_tokens", *COMMON),
}
# Fields that are not supported, each with the value that changes nothing and is therefore accepted.
NEUTRAL = {
    "n": 1, "best_of": 1, "echo": False, "suffix": "", "logprobs": False, "top_logprobs": 0, "top_p": 1, "min_p": 0,
    "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {}, "tools": [],
    "functions": [], "response_format": {"type": "text"},
}  # fmt: skip


class Refused(Exception):
    """A refused request. args: HTTP status, reason, name of the wrong field or None, OpenAI's code or None."""


class Prompts:
    """Turns the texts of requests into token ids, as training does. chat: the Encoder of conversations; None for a
    checkpoint without a chat template."""

    def __init__(self, tokenizer, format):
        template = encoding.Template("{document}")
        encoder_for = lambda kind: encoding.Encoder(tokenizer, template, kind, sys.maxsize, 0)  # noqa: E731
        self.plain = encoder_for("plain")
        self.chat = encoder_for("chat") if tokenizer.chat_template else None
        self.ends = (
            self.chat if format == "chat" and self.chat else self.plain
        )  # its end tokens are those of the training
        self.turn = threading.Lock()  # tokenizers are not safe in several threads

    def completion(self, body):
        """(token ids, the Encoder that knows the end tokens) of a body {"prompt"}. Raises Refused."""
        if not is_text(body.get("prompt")):
            raise Refused(400, "prompt: one text", "prompt")
        with self.turn:
            return self.plain.whole(body["prompt"]), self.ends

    def conversation(self, body):
        """(token ids, the Encoder that knows the end tokens) of a body {"messages"}. Raises Refused."""
        import jinja2

        turns = body.get("messages")
        if not self.chat:
            raise Refused(400, "this model has no chat template: use /v1/completions", "messages")
        if not isinstance(turns, list) or not turns or not all(map(is_turn, turns)):
            raise Refused(400, 'messages: a list of {"role": text, "content": text}', "messages")
        turns = [{name: turn[name] for name in ("role", "content")} for turn in turns]
        try:
            with self.turn:
                return self.chat.conversation(turns), self.chat
        except jinja2.TemplateError as error:
            raise Refused(400, f"the model's chat template does not take these messages: {error}", "messages") from None


def is_text(value):
    """Whether `value` is a text that UTF-8 can encode; JSON can hold half a surrogate pair."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def is_turn(value):
    """Whether `value` is a turn with a role and a content, and OpenAI's other fields of a turn are empty."""
    if not isinstance(value, dict) or not is_text(value.get("role")) or not is_text(value.get("content")):
        return False
    return not any(value_of_other for name, value_of_other in value.items() if name not in ("role", "content"))


def is_whole(value):
    return type(value) is int  # bool is a kind of int


def given(body, name, is_valid, expected, default=None):
    """The field `name` of a request's body; `default` if it is missing or null.

    is_valid: a function of the value; expected: the valid values in words. Raises Refused if the value is not valid."""
    value = body.get(name)
    if value is None:
        return default
    if not is_valid(value):
        raise Refused(400, f"{name}: {expected}", name)
    return value


def is_temperature(value):
    return type(value) in (int, float) and math.isfinite(value) and (value == 0 or 0.01 <= value <= 2)


def is_stop(value):
    return is_text(value) or (isinstance(value, list) and len(value) <= 4 and all(map(is_text, value)))


def is_bool(value):
    return isinstance(value, bool)


def decoding(body):
    """The decoding options of a request, in the form of generation.GREEDY. Raises Refused."""
    temperature = given(body, "temperature", is_temperature, "0 (greedy), or from 0.01 to 2")
    top_k = given(body, "top_k", lambda k: is_whole(k) and k >= -1, "a whole number; 0 or -1: all tokens")
    top_k = top_k if top_k and top_k > 0 and temperature != 0 else None
    return {"temperature": temperature or None, "top_k": top_k, "num_beams": 1}


def check_fields(body, allowed):
    """Raises Refused for a field that is unknown or not supported: ignoring it would hide that it has no effect."""
    for name, value in body.items():
        if name in NEUTRAL:
            if value not in (None, NEUTRAL[name]):
                raise Refused(400, f"{name} is not supported here", name)
        elif name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1)
            advice = f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(allowed)}"
            printable = name[:50].encode("utf-8", "backslashreplace").decode()  # half a character has no UTF-8
            raise Refused(400, f"unknown field {printable}: {advice}", printable)


def request_of(body, name, ids, encoder, default_tokens, context):
    """The batching.Request of a request's body.

    name: of the model that is served; ids: token ids of the prompt; encoder: knows the end tokens; default_tokens:
    limit of the answer's tokens if the body sets none; context: limit on the tokens of prompt and answer together.
    Raises Refused."""
    given(body, "model", lambda model: isinstance(model, str), "a text")
    if body.get("model") not in (None, name):
        raise Refused(404, f"the model served here is {name}", "model", "model_not_found")
    field = "max_completion_tokens" if body.get("max_tokens") is None else "max_tokens"
    tokens = given(body, field, lambda n: is_whole(n) and n > 0, "a whole number above 0")
    if not ids:
        raise Refused(400, "the prompt is empty", "prompt")
    if len(ids) + (tokens or 1) > context:
        parts = f"{len(ids)} of the prompt and {tokens or 1} of the answer"
        reason = f"the model's context holds {context} tokens, this takes {len(ids) + (tokens or 1)}: {parts}"
        raise Refused(400, reason, "messages" if "messages" in body else "prompt", "context_length_exceeded")
    seed = given(body, "seed", lambda n: is_whole(n) and 0 <= n < 2**32, "0 <= seed < 2**32")
    stops = given(body, "stop", is_stop, "a text, or up to 4 of them", [])
    streams = given(body, "stream", is_bool, "true or false", False)
    decoding_options = decoding(body)
    return batching.Request(
        ids,
        encoder,
        decoding_options,
        tokens or min(default_tokens, context - len(ids)),
        seed if decoding_options["temperature"] or decoding_options["top_k"] else None,
        (stops,) if isinstance(stops, str) else tuple(stops),
        streams,
    )


def usage_wanted(body):
    """Where a stream reports its usage: "beside", in the chunk with finish_reason; "behind", in a chunk after that one
    (OpenAI's include_usage); or None, nowhere. Raises Refused."""
    options = given(body, "stream_options", lambda value: isinstance(value, dict), 'like {"include_usage": true}', {})
    if options and not body.get("stream"):
        raise Refused(400, "stream_options: only with stream", "stream_options")
    check_fields(options, ("include_usage",))
    include_usage = given(options, "include_usage", is_bool, "true or false")
    return {None: "beside", True: "behind", False: None}[include_usage]


class Shape:
    """Replies in OpenAI's shape, whole or in chunks. chat: for /v1/chat/completions, else for /v1/completions."""

    def __init__(self, chat, model):
        self.chat = chat
        self.made = {"created": int(time.time()), "model": model}
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"

    def whole(self, text, reason, usage):
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        return self.reply(kind, [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]) | {"usage": usage}

    def chunk(self, piece, reason=None, first=False):
        """One chunk of a stream. piece: its text, None for a chunk without text; first: the chunk names the role."""
        delta = {"role": "assistant", "content": ""} if first else {} if piece is None else {"content": piece}
        content = {"delta": delta} if self.chat else {"text": piece or ""}
        return self.part([{"index": 0, **content, "logprobs": None, "finish_reason": reason}])

    def part(self, choices):
        return self.reply("chat.completion.chunk" if self.chat else "text_completion", choices)

    def reply(self, kind, choices):
        return {"id": self.id, "object": kind, **self.made, "choices": choices}


def error_body(status, reason, field=None, code=None):
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": " ".join(reason.split()), "type": kind, "param": field, "code": code}}
