"""The local address: what it answers is what generation.generate writes, alone, in company and streamed; what it
refuses; what it outlives. Servers run as users start them, on a tiny random model."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import browser
import httpx
import pytest

from common import files, generation
from common.console import InputError
from common.runs import identity, records
from common.serving import batching, serve, tryout
from common.settings import Execution, Settings

ROOT = Path(__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
TEXTS = [f"Ann: who is there? {'no ' * (7 * i % 23)}Bob: it is me, number {i}" for i in range(20)]
NAME = "summarization_tiny_qlora_0"
TOKENS = 12


class Server:
    """`python -m common serve` (or other words behind python), ready to be asked."""

    def __init__(self, *words, start=("-m", "common", "serve")):
        command = [sys.executable, *start, *map(str, words), "--port", "0"]
        self.process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = []
        while not self.said or "http://" not in self.said[-1]:
            self.said.append(self.process.stdout.readline())
            assert self.said[-1], self.process.stderr.read()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/v1,", self.said[-1])[1])

    def ask(self, path, body=None, method=None, **headers):
        """(status, headers, body read as JSON). body: bytes, or what JSON has."""
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        reply = connection.getresponse()
        found = reply.status, dict(reply.headers), json.loads(reply.read())
        connection.close()
        return found

    def complete(self, prompt, **more):
        return self.ask("/v1/completions", {"prompt": prompt, "max_tokens": TOKENS, **more})

    def stream(self, path, body):
        """The events of a streamed answer, the last one being "[DONE]"."""
        with self.streaming(path, body) as events:
            return list(events)

    @contextlib.contextmanager
    def streaming(self, path, body):
        """The same as they come; leaving the context hangs up."""
        address = f"http://127.0.0.1:{self.port}{path}"
        with httpx.stream("POST", address, json=body | {"stream": True}, timeout=60) as reply:
            assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
            lines = (line.removeprefix("data: ") for line in reply.iter_lines() if line)
            yield (line if line == "[DONE]" else json.loads(line) for line in lines)

    def kill(self):
        self.process.kill()
        self.process.communicate()


def at_once(calls):
    """What each of the functions returns, all called at the same time."""
    gate = threading.Barrier(len(calls))

    def one(call):
        gate.wait()
        return call()

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def made_run(base, form="chat", **settings):
    """run.json of a training on the model in `base`."""
    made = identity.Identity(
        kind="training",
        task="summarization",
        checkpoint=str(base),
        revision=None,
        format=form,
        wording={"text": "{document}", "cue": "", "answer": " {answer}", "example": "", "extra": ""},
        data={"name": "a", "text_column": None, "target_column": None, "sha256": dict.fromkeys(SPLITS)},
        settings=Settings(**settings).fields(),
        precision="float32",
    )
    head = {"schema_version": records.SCHEMA_VERSION, "id": made.id, "identity": made.fields()}
    return head | {"source": "study", "started_at": records.now()}


SPLITS = ("train", "validation", "test")


def record(run):
    """The record of a training."""
    unknown = ("reason", "metrics_before", "confusion", "training", "estimate", "inference")
    return {
        **{name: run[name] for name in ("schema_version", "id", "identity", "started_at")},
        **dict.fromkeys(unknown),
        "metrics": {"rouge1": {"value": 1, "ci95": None, "n": 1}},
        **{"status": "done", "model": "Tiny", "script": "a/b.py", "command": "python a/b.py"},
        "data": {"source": "", "kind": "study", "n": dict.fromkeys(SPLITS, 1), "dropped": {}, "truncated": {}},
        "cost": {"usd": None, "price_per_hour": None, "instance": None},
        "environment": records.environment() | {"threads": 1, "precision": "float32"},
        "finished_at": records.now(),
    }


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """experiments/NAME of a model folder, with an adapter on a tiny chat model, its record in results/."""
    import tiny
    import torch

    from common import checkpoints, qlora

    home = tmp_path_factory.mktemp("model")
    base = tiny.write(home / "base", chat="zephyr")
    folder = home / "experiments" / NAME
    model = qlora.base(checkpoints.find(str(base)), Execution(folder=folder))
    settings = Settings(targets=("q_proj", "v_proj"), lora_r=8, lora_alpha=16, dropout=0.1, max_new_tokens=9)
    adapted = qlora.new_adapter(model, settings)
    torch.manual_seed(1)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)  # zeros at first: an adapter that does nothing
    adapted.save_pretrained(folder / "adapter")
    run = made_run(base, max_new_tokens=9)
    run["identity"]["revision"] = checkpoints.find(str(base)).revision
    run["id"] = identity.digest(run["identity"])
    files.write_json(folder / "run.json", run)
    files.write_json(folder / "training.json", {})
    files.write_json(folder / "labels.json", [])
    files.write_json(home / "results" / f"{NAME}.json", record(run))
    return folder


@pytest.fixture(scope="module")
def served(experiment):
    server = Server(experiment, "--batch_size", "8")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def reference(experiment):
    """reference(prompts, encoder, **keywords) -> what generation.generate writes with the adapter on."""
    from common import checkpoints, qlora

    base = checkpoints.find(str(experiment.parent.parent / "base"))
    model = qlora.trained(base, Execution(folder=experiment), experiment)

    def write(prompts, encoder, **keywords):
        found = {}
        keep = lambda rows, answers, seconds: found.update(zip(rows, answers, strict=True))  # noqa: E731
        generation.generate(model, encoder, prompts, TOKENS, 1, keep, **keywords)
        return [found[i] for i in range(len(prompts))]

    return write


@pytest.fixture(scope="module")
def encoders(experiment):
    """(plain, chat) of the tiny chat model: the text and nothing else."""
    from common import checkpoints, encoding, qlora

    tokenizer = qlora.tokenizer(checkpoints.find(str(experiment.parent.parent / "base")))
    make = lambda kind: encoding.Encoder(tokenizer, encoding.Template("{document}"), kind, 10_000, 2048)  # noqa: E731
    return make("plain"), make("chat")


# what it answers


def test_answers_are_those_of_generate_alone_and_when_twenty_ask_at_once(served, reference, encoders):
    prompts = [encoders[0].prompt(text) for text in TEXTS]
    expected = reference(prompts, encoders[0])
    alone = [served.complete(text) for text in TEXTS[:4]]
    together = at_once([lambda text=text: served.complete(text) for text in TEXTS])
    for replies in (alone, together):
        for (status, _, reply), prompt, answer in zip(replies, prompts, expected, strict=False):
            assert status == 200
            ended = "stop" if answer["stopped"] else "length"
            choice = {"index": 0, "text": answer["text"], "logprobs": None, "finish_reason": ended}
            assert reply["choices"] == [choice]
            counts = (len(prompt), answer["tokens"])
            assert tuple(reply["usage"].values()) == (*counts, sum(counts))
            assert (reply["object"], reply["model"]) == ("text_completion", NAME)
    assert len({answer["text"] for answer in expected}) > 5


def test_a_chat_is_asked_in_the_models_own_template(served, reference, encoders):
    (answer,) = reference([encoders[1].prompt(TEXTS[0])], encoders[1])
    turn = {"role": "user", "content": TEXTS[0]}
    status, _, reply = served.ask("/v1/chat/completions", {"messages": [turn], "max_completion_tokens": TOKENS})
    assert status == 200
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": answer["text"]}
    assert reply["usage"]["prompt_tokens"] == len(encoders[1].prompt(TEXTS[0]))
    assert reply["object"] == "chat.completion"
    more = {"messages": [turn, {"role": "assistant", "content": "yes"}, turn], "max_tokens": 1}
    longer = served.ask("/v1/chat/completions", more)[2]
    assert longer["usage"]["prompt_tokens"] > 2 * reply["usage"]["prompt_tokens"]


def test_a_seed_draws_the_same_whoever_else_asks(served, reference, encoders):
    decoding = {"temperature": 1.5, "top_k": 50, "num_beams": 1}
    (expected,) = reference([encoders[0].prompt(TEXTS[1])], encoders[0], decoding=decoding, seed=7)
    asked = {"temperature": 1.5, "top_k": 50, "seed": 7}
    calls = [lambda: served.complete(TEXTS[1], **asked)] * 3 + [lambda: served.complete(TEXTS[2], temperature=1.5)] * 3
    found = [reply["choices"][0]["text"] for _, _, reply in at_once(calls)]
    assert found[:3] == [expected["text"]] * 3
    assert expected["text"] not in found[3:]
    greedy = served.complete(TEXTS[1])[2]["choices"]
    assert served.complete(TEXTS[1], temperature=0, top_k=50, seed=7)[2]["choices"] == greedy


def test_an_answer_ends_at_a_stop_text_and_is_as_long_as_scoring_has_it(served):
    saved = 0
    for text in TEXTS[:5]:
        whole = served.complete(text)[2]["choices"][0]["text"]
        cut = served.complete(text, stop=["not there", whole[5:8]])[2]
        assert cut["choices"][0]["text"] == whole[: whole.index(whole[5:8])].rstrip()
        assert cut["choices"][0]["finish_reason"] == "stop"
        saved += TOKENS - cut["usage"]["completion_tokens"]
    assert saved > TOKENS  # nothing is written behind a stop text
    assert served.ask("/v1/completions", {"prompt": "a"})[2]["usage"]["completion_tokens"] == 9


# streams


def joined(events):
    """(text, finish_reason, usage) of the events of a stream, whose shape is OpenAI's."""
    assert events[-1] == "[DONE]"
    *chunks, last = events[:-1]
    assert len({chunk["id"] for chunk in events[:-1]}) == 1
    assert all(chunk["choices"][0]["finish_reason"] is None and "usage" not in chunk for chunk in chunks)
    texts = [chunk["choices"][0]["text"] for chunk in events[:-1]]
    assert all(texts[:-1])
    return "".join(texts), last["choices"][0]["finish_reason"], last["usage"]


def test_a_stream_is_the_whole_answer_in_pieces_alone_and_when_twenty_ask_at_once(served, reference, encoders):
    expected = reference([encoders[0].prompt(text) for text in TEXTS], encoders[0])
    ask = lambda text: served.stream("/v1/completions", {"prompt": text, "max_tokens": TOKENS})  # noqa: E731
    alone = [ask(text) for text in TEXTS[:4]]
    streamed = [lambda text=text: ask(text) for text in TEXTS[::2]]
    whole = [lambda text=text: served.complete(text)[2] for text in TEXTS[1::2]]
    together = at_once(streamed + whole)[: len(streamed)]
    for replies, answers in ((alone, expected), (together, expected[::2])):
        for events, answer in zip(replies, answers, strict=False):
            text, reason, usage = joined(events)
            assert text == answer["text"]
            assert reason == ("stop" if answer["stopped"] else "length")
            assert usage["completion_tokens"] == answer["tokens"]
    assert max(len(events) for events in alone) > TOKENS / 2  # pieces, not the whole at once


def test_a_chat_streams_in_openais_shape(served):
    body = {"messages": [{"role": "user", "content": TEXTS[0]}], "max_tokens": TOKENS}
    whole = served.ask("/v1/chat/completions", body)[2]
    *chunks, done = served.stream("/v1/chat/completions", body)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    first, *middle, last = [chunk["choices"][0] for chunk in chunks]
    assert first["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"]["content"] for choice in middle)
    assert text == whole["choices"][0]["message"]["content"]
    assert (last["delta"], last["finish_reason"]) == ({}, whole["choices"][0]["finish_reason"])
    assert chunks[-1]["usage"] == whole["usage"]
    asked = body | {"stream_options": {"include_usage": True}}
    *chunks, last, _ = served.stream("/v1/chat/completions", asked)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {chunk["usage"] for chunk in chunks} == {None}
    asked["stream_options"] = {"include_usage": False}
    assert all("usage" not in chunk for chunk in served.stream("/v1/chat/completions", asked)[:-1])


def test_a_seeds_stream_and_the_stop_texts_of_streams_are_those_of_whole_answers(served):
    drawn = {"prompt": TEXTS[1], "max_tokens": 40, "temperature": 1.5, "seed": 3}
    whole = served.ask("/v1/completions", drawn)[2]["choices"][0]["text"]
    assert joined(served.stream("/v1/completions", drawn))[0] == whole
    for start in range(1, len(whole) - 4, 9):
        asked = drawn | {"stop": ["not there", whole[start : start + 4]]}
        answer = served.ask("/v1/completions", asked)[2]
        text, reason, usage = joined(served.stream("/v1/completions", asked))
        assert text == answer["choices"][0]["text"] == whole[: whole.index(whole[start : start + 4])].rstrip()
        assert (reason, usage) == ("stop", answer["usage"])


class Ends:
    """Stands in for an encoding.Encoder."""

    def __init__(self, tokenizer, stop=()):
        self.tokenizer, self.stop = tokenizer, stop


def byte_fallback():
    """A tokenizer that writes characters it does not know as one token a byte, as Llama's does."""
    import tokenizers
    import transformers

    vocabulary = {"<unk>": 0, "</s>": 1} | {f"<0x{byte:02X}>": byte + 2 for byte in range(256)}
    vocabulary |= {piece: len(vocabulary) + i for i, piece in enumerate(["▁", "a", "b", "▁a", "e", "n", "d"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    decoders = tokenizers.decoders
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback"])
def test_pieces_of_random_tokens_add_up_to_the_text_and_hold_no_half_character_or_stop_text(tokenizer, kind):
    from common.serving.text_stream import TextStream

    tokenizer = tokenizer if kind == "byte-level" else byte_fallback()
    draw, bytes_first = random.Random(0), range(3, 259)  # bytes: mostly no characters at all
    for number in range(300):
        ids = [draw.choice(bytes_first) if draw.random() < 0.5 else draw.randrange(len(tokenizer)) for _ in range(25)]
        if number % 2:
            ids = tokenizer("a \N{GRINNING FACE}\N{EURO SIGN} b end", add_special_tokens=False)["input_ids"] + ids
        ids = [token for token in ids if token > 2]
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        plain = whole.strip()
        at = draw.randrange(len(plain) - 3) if number % 3 else None
        stops = () if at is None else ("\N{SNOWMAN}", plain[at : at + 3])
        text, pieces = TextStream(Ends(tokenizer), stops), []
        for token in ids:
            text.add(token)
            pieces.append(text.piece())
            if text.ended:
                break
        pieces.append(text.piece(last=True))
        expected = plain if at is None else plain[: plain.index(stops[1])].rstrip()
        assert "".join(pieces) == expected == text.answer()["text"]
        assert text.answer()["stopped"] == (at is not None)
        assert text.tokens <= len(ids)


def test_a_stop_text_that_is_complete_first_ends_the_answer_however_tokens_are_cut(tokenizer):
    from common.serving.text_stream import TextStream

    ids = tokenizer("one two three four", add_special_tokens=False)["input_ids"]
    for stops in (("two three", "wo t"), ("wo t", "two three")):
        text = TextStream(Ends(tokenizer), stops)
        pieces = []
        for token in ids:
            if not text.ended:
                text.add(token)
                pieces.append(text.piece())
        assert "".join(pieces) == "one t"


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_a_row_that_leaves_its_batch_writes_no_more_and_the_others_write_the_same(load, tokenizer, temperature):
    from common import encoding

    model, encoder = load(), encoding.Encoder(tokenizer, encoding.Template("{document}"), "plain", 10_000)
    prompts = [encoder.prompt(text) for text in TEXTS[:3]]
    decoding = {"temperature": temperature, "top_k": None, "num_beams": 1}
    config = generation.configuration(decoding, TOKENS, [], tokenizer.pad_token_id)  # nobody ends by itself
    runs = []
    for leaves in (None, 1):
        written = {0: [], 1: [], 2: []}

        def on_token(rows, ids, written=written, leaves=leaves):
            for row, token in zip(rows, ids, strict=True):
                written[row].append(token)
            return [row for row in rows if row == leaves and len(written[row]) == 3]

        generation.batch(model, encoder, prompts, config, 5, on_token=on_token)
        runs.append(written)
    whole, left = runs
    assert [len(ids) for ids in left.values()] == [TOKENS, 3, TOKENS]
    assert (left[0], left[1], left[2]) == (whole[0], whole[1][:3], whole[2])


# what it refuses

REFUSED = {
    "not JSON": (400, b'{"prompt": ', None),
    "half a character": (400, b'{"prompt": "\\ud800"}', "prompt"),
    "not UTF-8": (400, b'{"prompt": "\xff"}', None),
    "nested": (400, b"[" * 100_000, None),
    "a list": (400, [1], None),
    "no prompt": (400, {}, "prompt"),
    "several prompts": (400, {"prompt": ["a", "b"]}, "prompt"),
    "too long": (400, {"prompt": "no " * 3000}, "prompt"),
    "too long with its answer": (400, {"prompt": "no", "max_tokens": 2047}, "prompt"),
    "stream": (400, {"prompt": "a", "stream": 1}, "stream"),
    "options of no stream": (400, {"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    "unknown options": (400, {"prompt": "a", "stream": True, "stream_options": {"usage": True}}, "usage"),
    "misspelt": (400, {"prompt": "a", "temprature": 0.5}, "temprature"),
    "unknown": (400, {"prompt": "a", "min_tokens": 3}, "min_tokens"),
    "unknown and null": (400, {"prompt": "a", "guided_json": None}, "guided_json"),
    "unknown half a character": (400, b'{"prompt": "a", "\\ud800": 1}', "\\ud800"),
    "another address's": (400, {"prompt": "a", "messages": []}, "messages"),
    "several answers": (400, {"prompt": "a", "n": 2}, "n"),
    "top_p": (400, {"prompt": "a", "top_p": 0.9}, "top_p"),
    "no tokens": (400, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    "true tokens": (400, {"prompt": "a", "max_tokens": True}, "max_tokens"),
    "cold": (400, {"prompt": "a", "temperature": -1}, "temperature"),
    "no number": (400, b'{"prompt": "a", "temperature": NaN}', "temperature"),
    "seed": (400, {"prompt": "a", "seed": 2**32}, "seed"),
    "top_k": (400, {"prompt": "a", "top_k": 1.5}, "top_k"),
    "stop": (400, {"prompt": "a", "stop": [1]}, "stop"),
    "other model": (404, {"prompt": "a", "model": "gpt"}, "model"),
    "too many bytes": (413, b" " * 3_000_000, None),
}


def is_error(reply):
    assert list(reply) == ["error"]
    assert list(reply["error"]) == ["message", "type", "param", "code"]
    assert "\n" not in reply["error"]["message"]
    return reply["error"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_in_openais_shape(served, name):
    expected, body, field = REFUSED[name]
    status, headers, reply = served.ask("/v1/completions", body)
    assert (status, headers["content-type"]) == (expected, "application/json")
    error = is_error(reply)
    assert (error["param"], error["type"]) == (field, "invalid_request_error")
    assert served.complete("a", max_tokens=1)[0] == 200


def test_an_unknown_field_is_told_the_nearest_that_there_is(served):
    told = served.ask("/v1/completions", {"prompt": "a", "temprature": 0.5})[2]["error"]["message"]
    assert told == "unknown field temprature: did you mean temperature?"
    told = served.ask("/v1/chat/completions", {"messages": [], "max_completion_token": 5})[2]["error"]["message"]
    assert told.endswith("did you mean max_completion_tokens?")
    neutral = {"n": 1, "top_p": 1.0, "stream": False, "logit_bias": {}, "presence_penalty": None, "user": "me"}
    assert served.complete("a", **neutral)[0] == 200


MESSAGES = [
    None,
    [],
    "hi",
    [{"role": "user"}],
    [{"role": "user", "content": ["x"]}],
    [{"role": "user", "content": "\ud800"}],
    [{"role": "user", "content": "a", "tool_calls": [{"id": 1}]}],
]


@pytest.mark.parametrize("messages", MESSAGES, ids=range(len(MESSAGES)))
def test_messages_that_are_none(served, messages):
    status, _, reply = served.ask("/v1/chat/completions", {"messages": messages})
    assert (status, is_error(reply)["param"]) == (400, "messages")


@pytest.mark.parametrize("path, method, status", [("/x", "GET", 404), ("/v1/models", "POST", 405), ("/v1", "PUT", 404)])
def test_unknown_places_and_methods(served, path, method, status):
    found, _, reply = served.ask(path, method=method)
    assert found == status
    is_error(reply)


def test_the_page_asks_in_the_wording_of_the_training(tmp_path):
    wording = {"text": "Which of:\n{labels}\n\n{examples}### Text:\n{document}", "cue": "\n\n### Answer:"}
    named = serve.Served(
        "</script><script>alert(1)</script>", None, tmp_path, "plain", "float32", 9, wording, ("a", "b")
    )
    html, headers = tryout.page(named)
    told = json.loads(re.search(r'type="application/json"[^>]*>(.*?)</script>', html)[1])
    assert told == {
        "name": named.name,
        "chat": False,
        "before": "Which of:\na\nb\n\n### Text:\n",
        "after": wording["cue"],
    }
    nonce = re.search(r"script-src 'nonce-([^']+)'", headers["Content-Security-Policy"])[1]
    assert html.count(f'nonce="{nonce}"') == 3
    assert not re.search(r"https?://|src=", html)
    chat = dataclasses.replace(named, format="chat")
    assert tryout.frame(chat)[1] == ""
    assert tryout.frame(dataclasses.replace(named, wording=None)) == (None, None)


def test_a_text_typed_into_the_page_gets_the_answer_of_the_api(served, tmp_path):
    with browser.opened(tmp_path) as page:
        page.open(f"http://127.0.0.1:{served.port}/")
        page.value("document.getElementById('text').value = 'Ann: keys? Bob: on the <b>shelf</b>'")
        page.value("document.getElementById('form').requestSubmit()")
        page.until("document.getElementById('state').textContent.endsWith(' s')")
        shown = page.value("document.getElementById('answer').textContent")
        messages = [{"role": "user", "content": "Ann: keys? Bob: on the <b>shelf</b>"}]
        reply = served.ask("/v1/chat/completions", {"messages": messages})[2]
        assert shown == reply["choices"][0]["message"]["content"]
        served.process.send_signal(signal.SIGSTOP)  # the server is slow: the page says so and takes no second question
        page.value("document.getElementById('form').requestSubmit()")
        assert page.value("document.getElementById('ask').disabled")
        served.process.send_signal(signal.SIGCONT)
        page.until("!document.getElementById('ask').disabled")


def test_only_this_machine_and_no_web_page(served):
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", served.port), timeout=5):
        pass
    assert served.ask("/v1/models", Host=f"evil.example:{served.port}")[0] == 403
    status, _, reply = served.ask("/v1/completions", {"prompt": "a"}, Origin="http://evil.example")
    assert (status, is_error(reply)["message"]) == (403, "this comes from a web page")


def test_a_connection_can_be_used_again(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    for body, status in ((b'{"prompt": "a", "max_tokens": 1}', 200), (b"{}", 400), (b'{"prompt": "b"}', 200)):
        connection.request("POST", "/v1/completions", body)
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (status, True)
    connection.close()


def test_what_nobody_waits_for_is_not_written(served):
    began = time.monotonic()
    served.complete("a", max_tokens=400)
    whole = time.monotonic() - began
    for tokens in range(2000, 2010):  # not alike: one after another they would take 50 times as long
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": tokens}))
        connection.close()
    began = time.monotonic()
    assert served.complete("a")[0] == 200
    assert time.monotonic() - began < 10 * whole + 1


def test_who_hangs_up_in_mid_answer_frees_the_slot(served):
    began = time.monotonic()
    served.complete("a", max_tokens=400)
    whole = time.monotonic() - began
    for _ in range(3):
        with served.streaming("/v1/completions", {"prompt": TEXTS[1], "max_tokens": 2000}) as events:
            assert next(events)["choices"][0]["text"]
    began = time.monotonic()
    assert served.complete("a")[0] == 200
    assert time.monotonic() - began < 2 * whole + 1  # 2,000 tokens take five times as long and more


# what it outlives


def test_of_four_hundred_clients_at_once_none_is_cut_off(served):
    answers = at_once([lambda: served.complete("a", max_tokens=2)] * 400)
    statuses = [status for status, _, _ in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 256
    assert {is_error(reply)["code"] for status, _, reply in answers if status == 503} <= {"queue_full"}
    assert served.complete("a")[0] == 200


FAULTY = """
import sys
from common import console, files, generation
from common.serving import endpoint, serve
endpoint.BODY_SECONDS, endpoint.IDLE_SECONDS = 0.5, 2
real = generation.batch
def batch(model, encoder, prompts, config, *rest):
    if config.max_new_tokens == 13:
        raise RuntimeError("made up")
    if config.max_new_tokens == 14:
        print("asleep", flush=True)
        import torch
        matrix = torch.ones(3000, 3000)
        while True:
            matrix @ matrix  # a step that nothing breaks off
    return real(model, encoder, prompts, config, *rest)
generation.batch = batch
sys.exit(console.exit_code(serve.main, sys.argv[1:]))
"""


@pytest.fixture
def faulty(tiny_folder):
    server = Server("--pretrained_ckpt", tiny_folder, "--batch_size", 1, "--max_waiting", 1, start=("-c", FAULTY))
    yield server
    server.kill()


def test_a_failing_batch_and_a_full_queue(faulty):
    assert "untrained" in faulty.said[0]
    for more in ({}, {"stream": True}):
        status, _, reply = faulty.complete("a", max_tokens=13, **more)
        assert (status, is_error(reply)["type"]) == (500, "server_error")
    assert faulty.complete("a")[0] == 200
    status, _, reply = faulty.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
    assert (status, is_error(reply)["message"]) == (400, "this model has no chat template: use /v1/completions")

    answers = at_once([lambda: faulty.complete("a", max_tokens=30)] * 8)
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    full = answers[statuses.index(503)]
    assert (is_error(full[2])["code"], full[1]["retry-after"]) == ("queue_full", "1")
    faulty.process.send_signal(signal.SIGTERM)
    err = faulty.process.communicate(timeout=5)[1]
    assert faulty.process.returncode == 0
    assert err.count("Traceback") == err.count("made up") == 2


def test_ctrl_c_in_mid_answer_ends_it_within_five_seconds(faulty):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = pool.submit(faulty.stream, "/v1/completions", {"prompt": "a", "max_tokens": 2000})
        time.sleep(0.5)
        waiting = pool.submit(faulty.complete, "a")
        time.sleep(0.2)
        began = time.monotonic()
        faulty.process.send_signal(signal.SIGINT)
        out, err = faulty.process.communicate(timeout=30)
        assert time.monotonic() - began < 5
        assert writing.result()[-1]["error"]["code"] == "shutting_down"
        status, _, reply = waiting.result()
        assert (status, is_error(reply)["code"]) == (503, "shutting_down")
    assert (faulty.process.returncode, out.strip(), err) == (0, "ended", "")


def test_ctrl_c_does_not_wait_for_a_step_of_the_model_that_takes_a_minute(faulty):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = pool.submit(faulty.complete, "a", max_tokens=14)
        assert faulty.process.stdout.readline() == "asleep\n"
        began = time.monotonic()
        faulty.process.send_signal(signal.SIGINT)
        out, err = faulty.process.communicate(timeout=30)
        assert time.monotonic() - began < 5
        assert writing.result()[0] == 503
    assert (faulty.process.returncode, out.strip(), err) == (0, "ended", "")


def replied(server, sent):
    """What comes back for these bytes, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_never_sent_is_not_waited_for(faulty):
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{faulty.port}\r\n".encode()
    reply = replied(faulty, head + b'Content-Length: 500\r\n\r\n{"prompt": "a"}')
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"the body is shorter than was told" in reply
    assert replied(faulty, b"") == replied(faulty, head) == b""  # closed
    reply = replied(faulty, b"\x16\x03\x01 hello\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")
    is_error(json.loads(reply.partition(b"\r\n\r\n")[2]))
    assert faulty.complete("a")[0] == 200


class Writer:
    """Stands in for a model: batches are noted, and wait until they may end."""

    def __init__(self, monkeypatch):
        self.batches, self.gate, self.until = [], threading.Event(), None
        self.worker = batching.Worker(None, batch_size=3, wait=0.05, max_waiting=10)
        monkeypatch.setattr(generation, "configuration", lambda *_: None)
        monkeypatch.setattr(generation, "batch", self.batch)

    def batch(self, model, encoder, prompts, config, seed, until, on_token):
        """Writes every prompt's own letters, one a step."""
        self.batches.append(prompts)
        self.left = on_token([], [])
        self.until = until
        assert self.gate.wait(20)
        if prompts == ["bad"]:
            raise RuntimeError("made up")
        for step in range(max(map(len, prompts))):
            rows = [row for row, prompt in enumerate(prompts) if step < len(prompt) and row not in self.left]
            self.left += on_token(rows, [prompts[row][step] for row in rows])
            if until():
                break

    def request(self, prompt, tokens=1, seed=None):
        decode = staticmethod(lambda ids, **_: "".join(ids))
        tokenizer = type("Tokenizer", (), {"pad_token_id": 0, "decode": decode})
        encoder = type("Encoder", (), {"stop": ["."], "tokenizer": tokenizer})
        how = {"temperature": 1.0 if seed is not None else None}
        made = batching.Request(prompt, self.__dict__.setdefault("encoder", encoder), how, tokens, seed)
        self.worker.submit(made)
        return made


@pytest.fixture
def writer(monkeypatch):
    made = Writer(monkeypatch)
    yield made
    made.gate.set()
    made.worker.close()


def test_requests_that_decode_alike_are_batched_in_the_order_they_came(writer, capfd):
    asked = [("a",), ("b", 2), ("c",), ("d", 1, 5), ("e",), ("f",), ("g", 1, 5), ("bad", 3), ("h", 2)]
    requests = [writer.request(*each) for each in asked]
    writer.gate.set()
    writer.worker.start()
    assert all(request.ready.wait(20) for request in requests)
    assert writer.batches == [["a", "c", "e"], ["b", "h"], ["d"], ["f"], ["g"], ["bad"]]
    assert [request.answer and request.answer["text"] for request in requests] == [*"abcdefg", None, "h"]
    assert "made up" in capfd.readouterr().err


def test_a_request_waits_for_others_no_longer_than_told(writer):
    writer.gate.set()
    writer.worker.start()
    first = writer.request("a")
    assert not first.ready.wait(0.01)
    second = writer.request("b")
    assert first.ready.wait(20)
    assert second.ready.wait(20)
    assert writer.batches == [["a", "b"]]


def test_room_is_bounded_what_is_given_up_makes_room_and_closing_leaves_nobody_waiting(writer):
    requests = [writer.request(str(i), tokens=i) for i in range(10)]
    with pytest.raises(batching.Full):
        writer.request("more")
    writer.worker.drop(requests[3])
    last = writer.request("more", tokens=99)
    writer.worker.start()
    while not writer.until:
        time.sleep(0.01)
    assert not writer.until()
    writer.worker.drop(requests[0])
    assert not writer.until()
    writer.worker.close()
    assert writer.until()
    assert last.ready.is_set()  # at once, though the model is still in its step
    writer.gate.set()
    writer.worker.join(20)
    assert not writer.worker.is_alive()
    assert last.answer is None
    assert writer.request("late").ready.is_set()


def test_an_answer_that_ends_early_does_not_wait_for_its_batch_and_one_that_nobody_waits_for_leaves_it(writer):
    short, long, gone = writer.request("a."), writer.request("bcdef"), writer.request("ghijk")
    told = []
    short.listen = lambda piece: told.append((piece, long.ready.is_set()))
    writer.worker.start()
    while not writer.until:
        time.sleep(0.01)
    writer.worker.drop(gone)
    writer.gate.set()
    assert long.ready.wait(20)
    assert told == [(None, False)]
    assert (short.answer, long.answer["text"]) == ({"text": "a", "tokens": 2, "stopped": True}, "bcdef")
    assert writer.left == [2, 0]


def test_what_is_broken_off_is_no_answer(writer):
    request = writer.request("abc")
    writer.worker.start()
    while not writer.until:
        time.sleep(0.01)
    writer.worker.closed = True  # close() has begun and has told nobody yet
    writer.gate.set()
    assert request.ready.wait(20)
    assert request.answer is None


# what is served


def test_a_run_is_found_by_its_record_beside_it_or_in_results_or_by_its_folder(experiment, capsys):
    by_folder = serve.find(str(experiment), None)
    by_record = serve.find(str(experiment.parent.parent / "results" / f"{NAME}.json"), None)
    assert by_folder == by_record
    assert (by_folder.name, by_folder.adapter) == (NAME, experiment / "adapter")
    assert (by_folder.format, by_folder.precision, by_folder.max_new_tokens) == ("chat", "float32", 9)
    files.write_json(experiment / "record.json", record(records.run_of(experiment)))
    assert serve.find(str(experiment / "record.json"), None) == by_folder
    assert capsys.readouterr().err == ""
    other = serve.find(str(experiment), "smollm2")
    assert (other.name, other.checkpoint.name, other.adapter) == (NAME, "smollm2", by_folder.adapter)
    base = serve.find(None, "smollm2")
    assert (base.name, base.adapter, base.format) == ("smollm2", None, "chat")


def test_a_base_model_that_changed_since_the_training_is_told(experiment, tmp_path, capsys):
    run = records.run_of(experiment)
    run["identity"]["revision"] = "0" * 10
    files.write_json(tmp_path / "run.json", run | {"id": identity.digest(run["identity"])})
    (tmp_path / "adapter").symlink_to(experiment / "adapter")
    files.write_json(tmp_path / "training.json", {})
    files.write_json(tmp_path / "labels.json", [])
    serve.find(str(tmp_path), None)
    assert "the adapter was trained on 0000000000" in capsys.readouterr().err


def test_what_cannot_be_served(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def reason(target, ckpt=None):
        with pytest.raises(InputError) as caught:
            serve.find(target and str(target), ckpt)
        return str(caught.value)

    run = records.run_of(experiment)
    assert "name a record" in reason(None)
    assert "the name is empty" in reason(None, "")
    assert "the name is empty" in reason("")
    assert "cannot read" in reason(tmp_path / "none.json")
    assert "no trained adapter" in reason(tmp_path)
    files.write_json(tmp_path / "results" / "a.json", record(run))
    assert f"no trained adapter of a model that writes in {tmp_path}/experiments/a " in reason(
        tmp_path / "results" / "a.json"
    )
    assert "minilm is an encoder" in reason(None, "minilm")
    assert "GPU" in reason(None, "mistralai/Mistral-7B-v0.1")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    files.write_json(tmp_path / "run.json", run)
    assert "no trained adapter" in reason(tmp_path)  # its training did not end
    files.write_json(tmp_path / "training.json", {})
    files.write_json(tmp_path / "run.json", [])
    assert f"{tmp_path}/run.json: field" in reason(tmp_path)
    files.write_json(tmp_path / "run.json", run | {"id": "0" * 10})
    assert "changed by hand" in reason(tmp_path)
    files.write_json(tmp_path / "run.json", made_run(experiment.parent.parent / "base", "encoder"))
    assert "is an encoder" in reason(tmp_path)


def test_errors_are_one_line_and_help_needs_no_torch(experiment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [str(experiment), "--port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "common", "serve", *words]
        done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: port \d+: .* name another with --port\n", done.stderr)
    code = "import sys; from common.serving import serve, loadtest; "
    code += "print(bool({'torch', 'transformers', 'starlette', 'uvicorn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
