"""What OpenAI's API has: requests checked and turned into token ids, replies and errors in its shapes."""

import difflib
import math
import secrets
import sys
import threading
import time

from common import encoding
from common.serving import batching

MAX_TOKENS = 128  # of an answer, where neither the request nor the run says
COMMON = ("model", "max_tokens", "temperature", "top_k", "seed", "stop", "stream", "stream_options", "user")
FIELDS = {
    "/v1/completions": ("prompt", *COMMON),
    "/v1/chat/completions": ("messages", "max_completion_tokens", *COMMON),
}
# What is not served, with the value that asks for nothing.
NEUTRAL = {
    "n": 1, "best_of": 1, "echo": False, "suffix": "", "logprobs": False, "top_logprobs": 0, "top_p": 1, "min_p": 0,
    "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {}, "tools": [],
    "functions": [], "response_format": {"type": "text"},
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
        turns = [{name: turn[name] for name in ("role", "content")} for turn in turns]
        try:
            with self.turn:
                return self.chat.conversation(turns), self.chat
        except jinja2.TemplateError as error:
            raise Refused(400, f"the model's chat template does not take these messages: {error}", "messages") from None


def is_text(value):
    """Is it a text that can be encoded? JSON can spell half a character."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def is_turn(value):
    """A turn as this model has it; what else OpenAI's turns can hold must be empty."""
    if not isinstance(value, dict) or not is_text(value.get("role")) or not is_text(value.get("content")):
        return False
    return not any(more for name, more in value.items() if name not in ("role", "content"))


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


def is_bool(value):
    return isinstance(value, bool)


def decoding(sent):
    """As generation.GREEDY has it."""
    temperature = given(sent, "temperature", is_temperature, "0 (greedy), or from 0.01 to 2")
    top_k = given(sent, "top_k", lambda k: is_whole(k) and k >= -1, "a whole number; 0 or -1: all tokens")
    top_k = top_k if top_k and top_k > 0 and temperature != 0 else None
    return {"temperature": temperature or None, "top_k": top_k, "num_beams": 1}


def check_fields(sent, known):
    """Refuse what would change an answer if it were known here, so that nobody believes that it did."""
    for name, value in sent.items():
        if name in NEUTRAL:
            if value not in (None, NEUTRAL[name]):
                raise Refused(400, f"{name} is not supported here", name)
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            shown = name[:50].encode("utf-8", "backslashreplace").decode()  # half a character has no UTF-8
            raise Refused(400, f"unknown field {shown}: {advice}", shown)


def request_of(sent, name, ids, ends, usual, context):
    """The batching.Request that the fields of a request make. usual: tokens of an answer if it does not say; context:
    tokens of prompt and answer together. Raises Refused."""
    given(sent, "model", lambda model: isinstance(model, str), "a text")
    if sent.get("model") not in (None, name):
        raise Refused(404, f"the model served here is {name}", "model", "model_not_found")
    field = "max_completion_tokens" if sent.get("max_tokens") is None else "max_tokens"
    tokens = given(sent, field, lambda n: is_whole(n) and n > 0, "a whole number above 0")
    if not ids:
        raise Refused(400, "the prompt is empty", "prompt")
    if len(ids) + (tokens or 1) > context:
        asked = f"{len(ids)} of the prompt and {tokens or 1} of the answer"
        reason = f"the model's context holds {context} tokens, this takes {len(ids) + (tokens or 1)}: {asked}"
        raise Refused(400, reason, "messages" if "messages" in sent else "prompt", "context_length_exceeded")
    seed = given(sent, "seed", lambda n: is_whole(n) and 0 <= n < 2**32, "0 <= seed < 2**32")
    stops = given(sent, "stop", is_stop, "a text, or up to 4 of them", [])
    streams = given(sent, "stream", is_bool, "true or false", False)
    how = decoding(sent)
    return batching.Request(
        ids,
        ends,
        how,
        tokens or min(usual, context - len(ids)),
        seed if how["temperature"] or how["top_k"] else None,
        (stops,) if isinstance(stops, str) else tuple(stops),
        streams,
    )


def usage_wanted(sent):
    """Where a stream tells its usage: "beside" the reason why it ended, in a chunk "behind" that one, as OpenAI's
    include_usage has it, or nowhere (None)."""
    options = given(sent, "stream_options", lambda value: isinstance(value, dict), 'like {"include_usage": true}', {})
    if options and not sent.get("stream"):
        raise Refused(400, "stream_options: only with stream", "stream_options")
    check_fields(options, ("include_usage",))
    told = given(options, "include_usage", is_bool, "true or false")
    return {None: "beside", True: "behind", False: None}[told]


class Shape:
    """OpenAI's shapes of the two kinds of answers, whole and in chunks."""

    def __init__(self, chat, model):
        self.chat = chat
        self.made = {"created": int(time.time()), "model": model}
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"

    def whole(self, text, reason, usage):
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        return self.reply(kind, [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]) | {"usage": usage}

    def chunk(self, piece, reason=None, first=False):
        """piece: None for a chunk without text."""
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
