"""The load generator: nothing is lost, latencies count from the time due, percentiles and cost are what they say, a key
goes to the server and nowhere else. Servers are made up here, but for the one of common/serving."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest
from test_serve import ENV, Server

from common import files
from common.console import InputError
from common.runs import records
from common.serving import load_report, loadtest, openloop

KEY = "sk-very-secret-0123456789"


class Fake(http.server.ThreadingHTTPServer):
    """An OpenAI-compatible server on a thread. answer(n) -> (status, reply) for the nth completion, 0 being the first;
    `alone`: one at a time, as a model does it."""

    request_queue_size = 256

    def __init__(self, answer=lambda n: (200, reply()), alone=True):
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.answer, self.turn = answer, threading.Lock() if alone else None
        self.seen, self.headers_seen, self.bodies = 0, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def stop(self):
        self.shutdown()
        self.server_close()


class FakeHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send(*self.server.answer(None)) if self.path != "/v1/models" else self.send(
            200, {"data": [{"id": "fake"}]}
        )

    def do_POST(self):
        home = self.server
        home.headers_seen.append(dict(self.headers))
        home.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if not home.turn:
            home.seen += 1
            return self.send(*home.answer(home.seen - 1))
        with home.turn:
            home.seen += 1
            found = home.answer(home.seen - 1)
        self.send(*found)

    def send(self, status, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def reply(tokens=10):
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return {"choices": [{"text": "yes"}], **usage}


@pytest.fixture
def fake():
    """fake(answer, alone) -> a Fake; all end with the test."""
    made = []

    def make(*words, **keywords):
        made.append(Fake(*words, **keywords))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def run(url, *words, folder=None, **env):
    """(CompletedProcess, the JSON that was written or None)."""
    output = folder and folder / "load.json"
    more = ["--output", str(output)] if output else []
    command = [sys.executable, "-m", "common", "loadtest", url, *map(str, words), *more]
    env = {**{name: value for name, value in ENV.items() if name != "OPENAI_API_KEY"}, **env}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    return done, json.loads(output.read_text()) if output and output.is_file() else None


def whole(done, report):
    """The blocks of a finished report that is valid and in which nothing is lost."""
    assert done.returncode == 0, done.stderr
    records.validate(report, loadtest.SCHEMA)
    assert report["status"] == "done"
    for block in report["rates"]:
        assert block["sent"] == block["planned"] == block["completed"] + block["failed"]
        assert block["failed"] == sum(block["failures"].values())
        assert {len(each) for each in block["requests"].values()} == {block["sent"]}
    return report["rates"]


def test_two_hundred_requests_to_the_server_of_this_repository_none_lost(tiny_folder, tmp_path):
    server = Server("--pretrained_ckpt", tiny_folder)
    words = ["--rates", 40, 80, "--requests", 100, "--max_tokens", 4, "--price_per_hour", 2]
    done, report = run(f"http://127.0.0.1:{server.port}/v1", *words, folder=tmp_path)
    server.kill()
    blocks = whole(done, report)
    assert [block["completed"] for block in blocks] == [100, 100]
    assert report["model"] == Path(tiny_folder).name
    for block in blocks:
        assert block["completion_tokens"] == sum(block["requests"]["tokens"]) <= 400
        assert min(block["requests"]["tokens"]) >= 1
        late = block["requests"]["latency_s"]
        for name, share in load_report.PERCENTILES.items():
            assert block["latency_s"][name] == pytest.approx(numpy.percentile(late, share), rel=1e-12)
        assert block["usd_per_1000_tokens"] == pytest.approx(2 / (block["tokens_per_s"] * 3.6))
        assert 0 <= block["client_lag_s"] < 1
    lines = done.stdout.splitlines()
    assert len([line for line in lines if re.match(r"(40|80)  ", line)]) == 2
    assert lines[-1].startswith("written: ")


def test_a_stall_shows_for_the_requests_that_were_due_meanwhile(fake, tmp_path):
    server = fake(lambda n: (200, reply()) if n != 21 else (time.sleep(1), (200, reply()))[1])
    done, report = run(server.url, "--rates", 20, "--requests", 60, "--arrivals", "even", folder=tmp_path)
    (block,) = whole(done, report)
    requests = block["requests"]
    assert requests["scheduled_s"] == pytest.approx([i / 20 for i in range(60)])
    for i in range(20, 40):  # due while nothing was answered
        assert requests["latency_s"][i] == pytest.approx(1 - (i - 20) / 20, abs=0.25)
    assert max(requests["latency_s"][:20]) < 0.3
    assert block["latency_s"]["p99"] > 0.85
    assert block["latency_s"]["p90"] > 0.5
    sent = [ended - due for ended, due in zip(requests["sent_s"], requests["scheduled_s"], strict=True)]
    assert max(sent) < 0.3  # it went on sending


def outcomes(*rows):
    return [openloop.Outcome(*row) for row in rows]


def test_cost_and_rates_are_of_the_completed_load():
    due = [0, 1, 2, 3]
    found = outcomes((0, 1, None, 100), (1, 1.5, "HTTP 503", None), (2.9, 4, None, 50), (3, 60, None, 70))
    block = load_report.measured(1, 4, due, found, None, 3.6)
    assert (block["sent"], block["completed"], block["failed"]) == (4, 3, 1)
    assert block["failures"] == {"HTTP 503": 1}
    # 4 s from the first answer on, at 1 s: the answer at 60 s is too late to count
    assert (block["offered_per_s"], block["completed_per_s"], block["tokens_per_s"]) == (1, 0.5, 37.5)
    assert block["completion_tokens"] == 220
    assert block["usd_per_1000_tokens"] == pytest.approx(3.6 / 3600 / 37.5 * 1000)
    assert block["requests"]["latency_s"] == [1, None, 2, 57]
    assert (block["latency_s"]["p50"], block["latency_s"]["max"]) == (2, 57)
    assert block["client_lag_s"] == pytest.approx(0.9)  # which is part of the latency
    assert load_report.measured(1, 4, due, found, None, None)["usd_per_1000_tokens"] is None
    records.validate(report_of(block), loadtest.SCHEMA)


def report_of(*blocks):
    args = type("Args", (), {"url": "u", "chat": False, "arrivals": "even", "seed": 1, "max_tokens": 2, "timeout": 3})
    args.prompts, args.price_per_hour = "sample", None
    return loadtest.begun(args, ["a"], "fake") | {"rates": list(blocks)}


def test_a_latency_that_all_share_does_not_tell_on_the_rate():
    due = [i / 10 for i in range(20)]
    block = load_report.measured(10, 20, due, outcomes(*((at, at + 5, None, 1) for at in due)), None, None)
    assert (block["offered_per_s"], block["completed_per_s"], block["tokens_per_s"]) == (10, 10, 10)


def test_what_is_not_known_is_null_and_a_dash():
    block = load_report.measured(1, 2, [0, 1], outcomes((0, 1, None, None), (1, 2, None, 5)), None, 1)
    assert (block["tokens_per_s"], block["usd_per_1000_tokens"], block["completion_tokens"]) == (None, None, None)
    nothing = load_report.measured(1, 2, [0, 1], outcomes((0, 1, "refused", None), (1, 2, "refused", None)), None, 1)
    assert (nothing["completed_per_s"], nothing["tokens_per_s"], nothing["usd_per_1000_tokens"]) == (0, 0, None)
    assert set(nothing["latency_s"].values()) == {None}
    assert load_report.overload(nothing, 10)
    rows = load_report.rows([block, nothing])
    assert rows[1][-2:] == ["-", "-"]
    assert rows[2][4] == "2 (refused: 2)"
    records.validate(report_of(block, nothing), loadtest.SCHEMA)


@pytest.mark.parametrize(
    "values", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0, 4.0], list(numpy.random.default_rng(0).random(333))]
)
def test_percentiles_are_numpys(values):
    for share in (0, 1, 50, 90, 99, 100):
        assert load_report.percentile(values, share) == pytest.approx(numpy.percentile(values, share), rel=1e-12)
    assert load_report.percentile([], 50) is None


def test_arrivals_are_a_seeds_own_and_as_many_as_asked():
    first = loadtest.schedule("poisson", 50, 5000, 42)
    assert first == loadtest.schedule("poisson", 50, 5000, 42) == sorted(first)
    assert first != loadtest.schedule("poisson", 50, 5000, 43)
    assert 0 <= first[0] < first[-1] < 100
    gaps = numpy.diff(first)
    assert numpy.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert numpy.std(gaps) == pytest.approx(1 / 50, rel=0.1)  # as an exponential's
    assert loadtest.schedule("even", 4, 3, 42) == [0, 0.25, 0.5]


def test_a_ramp_ends_where_the_server_no_longer_keeps_up(fake, tmp_path):
    server = fake(lambda n: (time.sleep(0.05), (200, reply()))[1])  # 20 requests a second
    words = ["--ramp", 5, "--seconds", 1.2, "--arrivals", "even"]
    done, report = run(server.url, *words, folder=tmp_path)
    blocks = whole(done, report)
    assert [block["rate"] for block in blocks][:2] == [5, 10]
    last = blocks[-1]
    assert last["rate"] in (20, 40)
    assert 10 < last["completed_per_s"] < 22
    assert report["saturation"]["rate"] == last["rate"] == 2 * report["saturation"]["sustained_rate"]
    assert f"saturated at {last['rate']:g} requests/s: completed" in done.stdout
    slow = fake(lambda n: (time.sleep(0.3), (200, reply()))[1], alone=False)
    done, report = run(slow.url, "--ramp", 5, "--requests", 3, "--max_p90", 0.2, folder=tmp_path)
    assert "p90 of 0.3" in report["saturation"]["reason"]
    assert report["saturation"]["sustained_rate"] is None


def test_every_kind_of_failure_is_counted(fake, tmp_path):
    kinds = [(503, {}), (200, b"no json"), (200, {"choices": []}), None, (200, reply(None))]

    def answer(n):
        found = (200, reply()) if n == 0 else kinds[n % len(kinds)]
        return found or (time.sleep(1.5), (200, reply()))[1]

    server = fake(answer, alone=False)
    done, report = run(server.url, "--rates", 40, "--requests", 20, "--timeout", 0.7, folder=tmp_path)
    (block,) = whole(done, report)
    assert block["failures"] == {"HTTP 503": 4, "no answer in the reply": 8, "timeout": 4}
    assert (block["completed"], block["tokens_per_s"]) == (4, None)
    refused = fake(lambda n: (server_close(refused), (200, reply()))[1], alone=False)
    done, report = run(refused.url, "--rates", 20, "--requests", 5, folder=tmp_path)
    assert whole(done, report)[0]["failures"] == {"refused": 5}


def server_close(server):
    """No further connection gets through; this one is answered."""
    server.socket.close()


def test_a_key_goes_to_the_server_and_nowhere_else(fake, tmp_path):
    server = fake()
    done, report = run(server.url, "--requests", 3, "--rates", 50, folder=tmp_path, OPENAI_API_KEY=KEY)
    whole(done, report)
    assert {headers["Authorization"] for headers in server.headers_seen} == {f"Bearer {KEY}"}
    telling = fake(lambda n: (400, {"error": {"message": f"Incorrect key {KEY}\nprovided"}}))
    told, _ = run(telling.url, OPENAI_API_KEY=KEY)
    odd, _ = run(telling.url, OPENAI_API_KEY=f"{KEY}\nX: y")
    assert (told.returncode, odd.returncode) == (2, 2)
    assert "Incorrect key … provided" in told.stderr
    for text in (done.stdout, done.stderr, told.stdout, told.stderr, odd.stderr, (tmp_path / "load.json").read_text()):
        assert "secret" not in text


def test_what_is_asked(fake, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "one"}\n{"text": "two"}\n')
    server = fake()
    words = ["--requests", 4, "--rates", 50, "--prompts", tmp_path / "prompts.jsonl", "--model", "m", "--max_tokens", 5]
    whole(*run(f"{server.url}/v1/", *words, folder=tmp_path))
    fixed = {"model": "m", "max_tokens": 5, "temperature": 0}
    assert server.bodies[0] == {**fixed, "prompt": "one"}  # the one that does not count
    assert sorted(body["prompt"] for body in server.bodies[1:]) == ["one", "one", "two", "two"]
    _, report = run(server.url, *words, "--chat", folder=tmp_path)
    assert report["endpoint"] == "/v1/chat/completions"
    assert server.bodies[-1]["messages"][0]["role"] == "user"
    assert "Authorization" not in server.headers_seen[-1]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_writes_what_there_is(fake, tmp_path, number, code):
    server = fake(lambda n: (200, reply()) if n < 30 else (time.sleep(30), (200, reply()))[1], alone=False)
    output = tmp_path / "load.json"
    words = ["--rates", "50", "20", "--requests", "25", "--output", str(output), "--plot", str(tmp_path / "load.svg")]
    process = subprocess.Popen(
        [sys.executable, "-m", "common", "loadtest", server.url, *words],
        env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while server.seen < 36:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    report = json.loads(output.read_text())
    records.validate(report, loadtest.SCHEMA)
    assert report["status"] == "interrupted"
    first, second = report["rates"]
    assert (first["completed"], first["failed"]) == (25, 0)
    assert second["completed"] == 4
    assert second["failures"] == {"interrupted": second["sent"] - 4}
    assert second["sent"] < second["planned"] == 25
    assert "interrupted" in out
    assert (tmp_path / "load.svg").is_file()


def test_the_picture_is_the_same_for_the_same_figures_and_a_report_is_shown_again(tmp_path):
    due = [i / 8 for i in range(16)]
    blocks = [
        load_report.measured(8 * k, 16, due, outcomes(*((at, at + k, None, 3) for at in due)), None, 1) for k in (1, 2)
    ]
    failed = load_report.measured(32, 1, [0], outcomes((0, 1, "timeout", None)), None, 1)
    report = report_of(*blocks, failed) | {"model": "a$b$_{", "finished_at": records.now()}
    load_report.draw(report, tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_bytes()
    assert b"<svg" in drawn
    assert b"offered requests/s" in drawn
    assert str(tmp_path).encode() not in drawn
    files.write_json(tmp_path / "load.json", report)
    done, _ = run(tmp_path / "load.json", "--plot", tmp_path / "b.svg")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "b.svg").read_bytes() == drawn
    assert "1 (timeout: 1)" in done.stdout
    (tmp_path / "torn.json").write_text('{"rates": []')
    (tmp_path / "other.json").write_text("{}")
    for name, reason in (("torn", "cannot read"), ("other", "field (top)"), ("none", "cannot read")):
        done, _ = run(tmp_path / f"{name}.json")
        assert (done.returncode, reason in done.stderr, done.stderr.count("\n")) == (2, True, 1)


def test_the_picture_of_the_measured_load_is_made_from_its_figures(tmp_path):
    load_report.draw(files.read_json(files.ROOT / "assets" / "loadtest.json"), tmp_path / "a.svg")
    drawn = (files.ROOT / "assets" / "loadtest.svg").read_bytes()
    # python -m common loadtest assets/loadtest.json --plot assets/loadtest.svg
    assert (tmp_path / "a.svg").read_bytes() == drawn


ERRORS = {
    "nothing there": (["http://127.0.0.1:9"], "cannot be reached (refused): is the server running?"),
    "a long name": ([f"http://{'a' * 300}.example"], "cannot be reached (no such host)"),
    "no report": (["nothing.json"], "cannot read nothing.json"),
    "no URL": (["localhost:8000"], "URL: http://host:port"),
    "a key in the URL": (["http://user:hunter2@127.0.0.1:9"], "a key goes into OPENAI_API_KEY"),
    "no port": (["http://127.0.0.1:99999"], "URL: Port out of range"),
    "no prompts": (["http://127.0.0.1:9", "--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
    "a folder": (["http://127.0.0.1:9", "--output", "/"], "cannot write /"),
    "no picture": (["http://127.0.0.1:9", "--plot", "a.png"], "a.png is not called .svg"),
    "two loads": (["http://127.0.0.1:9", "--rates", "1", "--ramp"], "not allowed with argument"),
    "rate": (["http://127.0.0.1:9", "--rates", "0"], "0 is not above 0"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line(name):
    words, expected = ERRORS[name]
    done, _ = run(*words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_numbers_that_no_answer_has_are_not_believed(fake, tmp_path):
    bodies = [b'{"choices": [1], "usage": {"completion_tokens": %s}}' % each for each in (b"9" * 400, b"-1", b"1e999")]
    bodies += [b"[" * 100_000, b'{"choices": [1], "usage": {"completion_tokens": 3}}']
    server = fake(lambda n: (200, bodies[n - 1] if n else reply()))
    done, report = run(server.url, "--rates", 20, "--requests", 5, folder=tmp_path)
    (block,) = whole(done, report)
    assert sorted(block["requests"]["tokens"], key=str) == [3, None, None, None, None]
    assert block["failures"] == {"no answer in the reply": 1}
    assert block["tokens_per_s"] is None


def test_servers_that_are_none_of_this_kind(fake):
    page = (200, b"<html>")
    for answer, expected in (
        (lambda n: page, "POST /v1/completions answers HTTP 200: is this"),
        (lambda n: (200, b"[" * 100_000), "POST /v1/completions answers HTTP 200: is this"),
        (lambda n: (200, {}), "choices"),
    ):
        done, _ = run(fake(answer).url)
        assert (done.returncode, expected in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    done, _ = run(fake(lambda n: (401, {"error": {"message": "no"}})).url)
    assert "set OPENAI_API_KEY" in done.stderr
    done, _ = run(f"{fake(lambda n: (404, b'')).url}/elsewhere")
    assert "GET /v1/models answers HTTP 404" in done.stderr


def test_prompts_that_are_none(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, expected in (
        ("", "has no rows"),
        ('{"prompt": "a"}\n[]\n', ":2 is not a row"),
        ('{"prompt": ""}', ":1 is not"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=expected):
            loadtest.read_prompts(str(path))
    assert len(loadtest.read_prompts("sample")) == 60
    assert os.path.basename(loadtest.SAMPLE) == "dialogues.jsonl"
