"""The local address: what it answers is what generation.generate writes, alone and in company; what it refuses; what
it outlives. Servers run as users start them, on a tiny random model."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_records import record

from common import batching, generation, records, serve
from common.console import InputError

ROOT = Path(__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
TEXTS = [f"Ann: who is there? {'no ' * (7 * i % 23)}Bob: it is me, number {i}" for i in range(20)]
NAME = "summarization_tiny_qlora_0"
TOKENS = 12


class Server:
    """`python -m common.serve` (or other words behind python), ready to be asked."""

    def __init__(self, *words, start=("-m", "common.serve")):
        command = [sys.executable, *start, *map(str, words), "--port", "0"]
        self.process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = []
        while not self.said or "http://" not in self.said[-1]:
            self.said.append(self.process.stdout.readline())
            assert self.said[-1], self.process.stderr.read()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/v1;", self.said[-1])[1])

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


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """experiments/NAME of a model folder, with an adapter on a tiny chat model, its record in results/."""
    import tiny
    import torch

    from common import checkpoints, loading

    home = tmp_path_factory.mktemp("model")
    base = tiny.write(home / "base", chat="zephyr")
    folder = home / "experiments" / NAME
    model = loading.base(checkpoints.find(str(base)), "float32")
    adapted = loading.new_adapter(
        model, {"targets": ["q_proj", "v_proj"], "lora_r": 8, "lora_alpha": 16, "dropout": 0.1}
    )
    torch.manual_seed(1)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)  # zeros at first: an adapter that does nothing
    adapted.save_pretrained(folder / "adapter")
    settings = {"format": "chat", "precision": "float32", "max_new_tokens": 9}
    records.write_json(folder / "settings.json", {"checkpoint": str(base), "settings": settings})
    records.write_json(home / "results" / f"{NAME}.json", record())
    return folder


@pytest.fixture(scope="module")
def served(experiment):
    server = Server(experiment, "--batch_size", "8")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def reference(experiment):
    """reference(prompts, encoder, **keywords) -> what generation.generate writes with the adapter on."""
    from common import checkpoints, loading

    base = checkpoints.find(str(experiment.parent.parent / "base"))
    model = loading.with_adapter(loading.base(base, "float32"), experiment / "adapter")

    def write(prompts, encoder, **keywords):
        found = {}
        keep = lambda rows, answers, seconds: found.update(zip(rows, answers, strict=True))  # noqa: E731
        generation.generate(model, encoder, prompts, TOKENS, 1, keep, **keywords)
        return [found[i] for i in range(len(prompts))]

    return write


@pytest.fixture(scope="module")
def encoders(experiment):
    """(plain, chat) of the tiny chat model: the text and nothing else."""
    from common import checkpoints, encoding, loading

    tokenizer = loading.tokenizer(checkpoints.find(str(experiment.parent.parent / "base")))
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
    whole = served.complete(TEXTS[3])[2]["choices"][0]["text"]
    cut = served.complete(TEXTS[3], stop=["not there", whole[5:8]])[2]
    assert cut["choices"][0]["text"] == whole[: whole.index(whole[5:8])]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] == TOKENS
    assert served.ask("/v1/completions", {"prompt": "a"})[2]["usage"]["completion_tokens"] == 9


def test_it_says_what_it_is(served):
    status, _, reply = served.ask("/v1/models")
    assert (status, reply["object"], [model["id"] for model in reply["data"]]) == (200, "list", [NAME])
    assert served.ask("/health")[2] == {"status": "ok", "model": NAME, "waiting": 0}
    assert "4-bit, float32, 2048 tokens of context" in served.said[0]


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
    "stream": (400, {"prompt": "a", "stream": True}, "stream"),
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
    assert (status, headers["Content-Type"]) == (expected, "application/json")
    error = is_error(reply)
    assert (error["param"], error["type"]) == (field, "invalid_request_error")
    assert served.complete("a", max_tokens=1)[0] == 200


MESSAGES = [
    None,
    [],
    "hi",
    [{"role": "user"}],
    [{"role": "user", "content": ["x"]}],
    [{"role": "user", "content": "\ud800"}],
]


@pytest.mark.parametrize("messages", MESSAGES, ids=range(len(MESSAGES)))
def test_messages_that_are_none(served, messages):
    status, _, reply = served.ask("/v1/chat/completions", {"messages": messages})
    assert (status, is_error(reply)["param"]) == (400, "messages")


@pytest.mark.parametrize("path, method, status", [("/", "GET", 404), ("/v1/models", "POST", 405), ("/v1", "PUT", 501)])
def test_unknown_places_and_methods(served, path, method, status):
    found, _, reply = served.ask(path, method=method)
    assert found == status
    is_error(reply)


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


# what it outlives

FAULTY = """
import sys
from common import console, generation, serve
real = generation.batch
def batch(model, encoder, prompts, config, *rest):
    if config.max_new_tokens == 13:
        raise RuntimeError("made up")
    return real(model, encoder, prompts, config, *rest)
generation.batch = batch
sys.exit(console.exit_code(serve.main))
"""


def test_a_failing_batch_a_full_queue_and_ctrl_c_while_it_writes(tiny_folder):
    server = Server("--pretrained_ckpt", tiny_folder, "--batch_size", 1, "--max_waiting", 1, start=("-c", FAULTY))
    assert "untrained" in server.said[0]
    status, _, reply = server.complete("a", max_tokens=13)
    assert (status, is_error(reply)["type"]) == (500, "server_error")
    assert server.complete("a")[0] == 200
    status, _, reply = server.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
    assert (status, is_error(reply)["message"]) == (400, "this model has no chat template: use /v1/completions")

    found = at_once([lambda: server.complete("a", max_tokens=30)] * 8)
    statuses = [status for status, _, _ in found]
    assert set(statuses) == {200, 503}
    full = found[statuses.index(503)]
    assert (is_error(full[2])["code"], full[1]["Retry-After"]) == ("queue_full", "1")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = pool.submit(server.complete, "a", max_tokens=2000)
        time.sleep(0.5)
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        with contextlib.suppress(OSError, http.client.HTTPException):  # the process may be gone before its reply
            assert writing.result()[0] == 503
    assert (server.process.returncode, out.strip()) == (0, "ended")
    assert err.count("Traceback") == err.count("made up") == 1


class Writer:
    """Stands in for a model: batches are noted, and wait until they may end."""

    def __init__(self, monkeypatch):
        self.batches, self.gate, self.until = [], threading.Event(), None
        self.worker = batching.Worker(None, batch_size=3, wait=0.05, room=10)
        monkeypatch.setattr(generation, "configuration", lambda *_: None)
        monkeypatch.setattr(generation, "batch", self.batch)

    def batch(self, model, encoder, prompts, config, seed, until):
        self.batches.append(prompts)
        self.until = until
        assert self.gate.wait(20)
        if prompts == ["bad"]:
            raise RuntimeError("made up")
        return [{"text": prompt} for prompt in prompts]

    def request(self, prompt, tokens=1, seed=None):
        encoder = type("Encoder", (), {"stop": [2], "tokenizer": type("Tokenizer", (), {"pad_token_id": 0})})
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
    assert writer.until()
    writer.gate.set()
    writer.worker.close()
    assert last.ready.wait(20)
    assert not writer.worker.is_alive()
    assert writer.request("late").ready.is_set()


# what is served


def test_a_run_is_found_by_its_record_beside_it_or_in_results_or_by_its_folder(experiment, tmp_path):
    by_folder = serve.find(str(experiment), None)
    by_record = serve.find(str(experiment.parent.parent / "results" / f"{NAME}.json"), None)
    assert by_folder == by_record
    assert (by_folder.name, by_folder.adapter) == (NAME, experiment / "adapter")
    records.write_json(experiment / "record.json", record())
    assert serve.find(str(experiment / "record.json"), None) == by_folder
    other = serve.find(str(experiment), "smollm2")
    assert (other.name, other.checkpoint.name, other.adapter) == (NAME, "smollm2", by_folder.adapter)
    base = serve.find(None, "smollm2")
    assert (base.name, base.adapter, base.settings["format"]) == ("smollm2", None, "chat")


def test_what_cannot_be_served(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def reason(target, ckpt=None):
        with pytest.raises(InputError) as caught:
            serve.find(target and str(target), ckpt)
        return str(caught.value)

    assert "name a record" in reason(None)
    assert "is not a record" in reason(tmp_path / "none.json")
    assert "no trained adapter" in reason(tmp_path)
    records.write_json(tmp_path / "results" / "a.json", record())
    assert f"no trained adapter of a model that writes in {tmp_path}/experiments/a " in reason(
        tmp_path / "results" / "a.json"
    )
    assert "minilm is an encoder" in reason(None, "minilm")
    assert "GPU" in reason(None, "mistralai/Mistral-7B-v0.1")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    records.write_json(tmp_path / "settings.json", [])
    assert "is not what a training script writes" in reason(tmp_path)
    records.write_json(tmp_path / "settings.json", {"checkpoint": "minilm", "settings": {"format": "encoder"}})
    assert "is an encoder" in reason(tmp_path)


def test_errors_are_one_line_and_help_needs_no_torch(experiment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [str(experiment), "--port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "common.serve", *words]
        done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: port \d+: .* name another with --port\n", done.stderr)
    code = "import sys, common.serve, common.loadtest; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
