"""Rating: what the page's server gives away, takes and keeps; agreement against published examples; the page itself in
a headless browser."""

import collections
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import browser
import numpy
import pytest

from common import files, ratings, settings
from common.console import InputError
from common.ratings import scores
from common.runs import identity, records

ROOT = Path(__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT)}
RATINGS = "secretmodel/results/ratings.jsonl"
ATTACK = "<script>alert(1)</script>"


def record():
    """A valid record of a secret model."""
    data = {"name": "alpaca", "text_column": None, "target_column": None}
    data["sha256"] = {"train": None, "validation": None, "test": "0" * 64}
    run = identity.Identity(
        kind="baseline",
        task="instructions",
        checkpoint="secret/ckpt",
        revision=None,
        format="plain",
        wording=dict.fromkeys(("text", "cue", "answer", "example", "extra"), ""),
        data=data,
        settings=settings.Settings(prompt_type="zero-shot").fields(),
        precision="float32",
    )
    times = ("seconds", "samples_per_second", "tokens_per_second", "latency_p50_s", "latency_p90_s")
    environment = dict.fromkeys(("cpu_count", "threads", "precision", "git_commit", "git_dirty"))
    return {
        "schema_version": records.SCHEMA_VERSION,
        "status": "done",
        "reason": None,
        "id": run.id,
        "identity": run.fields(),
        "model": "Secret-7B",
        "script": "secretmodel/secretmodel_instructions.py",
        "command": "python secretmodel/secretmodel_instructions.py",
        "data": {
            "source": "made for a test",
            "kind": "study",
            "n": {"train": 0, "validation": 0, "test": 15},
            "dropped": {},
            "truncated": {},
        },
        "metrics": {"rouge1": {"value": 41.0, "ci95": [36.0, 46.0], "n": 15}},
        **dict.fromkeys(("metrics_before", "confusion", "training", "estimate")),
        "inference": dict.fromkeys(times),
        "cost": {"usd": None, "price_per_hour": None, "instance": None},
        "environment": {"python": "3.11", "packages": {}, "device": "CPU", **environment},
        "started_at": "2024-01-01T00:00:00+00:00",
        "finished_at": "2024-01-01T00:10:00+00:00",
    }


def write(home, name, rows):
    """A record of a secret model in results/ with its answers under experiments/; its path."""
    path = home / "secretmodel" / "results" / f"{name}.json"
    files.write_json(path, record())
    folder = home / "secretmodel" / "experiments" / name
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(n, wrote):
    return [{"prompt": f"Question {i}?", "reference": f"right {i}", "answer": f"{wrote} {i}"} for i in range(n)]


@pytest.fixture
def home(tmp_path):
    """A folder with two records on the same 15 rows; the first answer of the second is an attack."""
    write(tmp_path, "tuned", rows(15, "yes"))
    write(tmp_path, "plain", [{**rows(1, "")[0], "answer": ATTACK}, *rows(15, "no")[1:]])
    return tmp_path


RECORDS = ["secretmodel/results/tuned.json", "secretmodel/results/plain.json"]


class Server:
    """`python -m common rate` in a folder, as a user starts it."""

    def __init__(self, home, *words, names=RECORDS, port=0):
        command = [sys.executable, "-m", "common", "rate", *names, "--rater", "ann", "--port", str(port), *words]
        self.process = subprocess.Popen(command, cwd=home, env=ENV, stdout=subprocess.PIPE, text=True)
        self.said = self.process.stdout.readline()
        self.url = self.process.stdout.readline().removeprefix("open ").strip()
        self.port, self.token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", self.url).groups()

    def ask(self, path, body=None, method=None, **headers):
        """(status, headers and body as text). A header given as None is not sent."""
        sent = {"Host": f"127.0.0.1:{self.port}", "X-Token": self.token, "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", int(self.port), timeout=20)
        connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
        if body is not None and "Content-Length" not in sent:
            sent["Content-Length"] = str(len(body))
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        text = f"{reply.headers}{reply.read().decode()}"
        connection.close()
        return reply.status, text

    def items(self):
        return json.loads(self.ask("/items")[1].split("\n\n", 1)[1])

    def rate(self, key, score):
        return self.ask("/rate", json.dumps({"id": key, "score": score}).encode())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start(home):
    """start(*words) -> a Server in `home`; all are killed in the end."""
    started = []

    def one(*words, **keywords):
        started.append(Server(home, *words, **keywords))
        return started[-1]

    yield one
    for server in started:
        server.kill()


def lines(home, name=RATINGS):
    return [json.loads(line) for line in (home / name).read_text().splitlines()]


def command(home, *words):
    return subprocess.run(
        [sys.executable, "-m", "common", "rate", *words], cwd=home, env=ENV, capture_output=True, text=True, check=False
    )


# the server


def test_the_order_is_a_raters_own_and_stays(start):
    first, again, other = (start(*words).items() for words in ([], [], ["--rater", "bob"]))
    assert first == again
    assert len({item["id"] for item in first}) == 30
    answers = [[item["answer"] for item in items] for items in (first, other)]
    assert sorted(answers[0]) == sorted(answers[1])
    assert answers[0] != answers[1]
    assert len(list(itertools.groupby(item["answer"][0] == "y" for item in first))) > 5  # records are mixed


def test_the_order_does_not_hang_on_where_the_folder_stands(start, home, tmp_path_factory):
    here = [item["answer"] for item in start().items()]
    moved = tmp_path_factory.mktemp("moved") / "to"
    (home / "secretmodel").rename(moved.parent / "secretmodel")
    server = Server(moved.parent)
    assert [item["answer"] for item in server.items()] == here
    server.kill()


def test_nothing_that_is_sent_names_a_model_or_a_path(start, home):
    server = start()
    key = server.items()[0]["id"]
    replies = [server.ask(path) for path in (f"/?token={server.token}", "/items", "/nothing", "/rate")]
    replies += [server.rate(key, 3), server.rate("x", 3), server.rate(key, 9), server.ask("/items", X_Token="x")]
    assert [status for status, _ in replies] == [200, 200, 404, 405, 200, 404, 400, 403]
    for _, text in replies:
        plain = re.sub(r"nonce[-=][\w\"-]+", "", text)  # random letters spell anything once in a while
        assert not re.search(rf"secret|7B|tuned|plain\.|jsonl|{re.escape(str(home))}|ann\b", plain), plain
        assert "default-src 'none'" in text
    assert "http" not in replies[0][1]  # the page loads nothing from anywhere
    assert "NONCE" not in replies[0][1]


def test_it_listens_on_this_machine_only(start):
    server = start()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", int(server.port)), timeout=5):
        pass


GOOD = b'{"id": "%s", "score": 3}'
REFUSED = {
    "other host": (403, {"Host": "evil.example:{port}"}),
    "host without port": (403, {"Host": "127.0.0.1"}),
    "no host": (400, {"Host": None}),
    "other origin": (403, {"Origin": "http://evil.example"}),
    "origin with another port": (403, {"Origin": "http://127.0.0.1:1"}),
    "null origin": (403, {"Origin": "null"}),
    "wrong token": (403, {"X_Token": "x"}),
    "token in other letters": (403, {"X_Token": "é"}),
    "no token": (403, {"X_Token": None}),
    "a form": (415, {"Content_Type": "application/x-www-form-urlencoded"}),
    "plain text": (415, {"Content_Type": "text/plain"}),
    "no length": (413, {"Content-Length": None}),
    "negative length": (400, {"Content-Length": "-1"}),
    "too long": (413, {"body": GOOD + b" " * 200}),
    "other path": (404, {"path": "/other"}),
    "path of another method": (405, {"path": "/items"}),
    "in pieces": (413, {"Content-Length": None, "Transfer-Encoding": "chunked", "body": b"0\r\n\r\n"}),
    "unknown id": (404, {"body": b'{"id": "0123456789abcdef", "score": 3}'}),
    "row as id": (400, {"body": b'{"id": 0, "score": 3}'}),
    "list as id": (400, {"body": b'{"id": [], "score": 3}'}),
    "score 0": (400, {"body": GOOD.replace(b"3", b"0")}),
    "score 6": (400, {"body": GOOD.replace(b"3", b"6")}),
    "score 3.0": (400, {"body": GOOD.replace(b"3", b"3.0")}),
    "score true": (400, {"body": GOOD.replace(b"3", b"true")}),
    "score as text": (400, {"body": GOOD.replace(b"3", b'"3"')}),
    "no score": (400, {"body": b'{"id": "%s"}'}),
    "a list": (400, {"body": b"[]"}),
    "deep": (400, {"body": b"[" * 200}),
    "no json": (400, {"body": b"\xff"}),
    "empty": (400, {"body": b""}),
}


def test_what_does_not_come_from_the_page_is_refused_and_nothing_is_written(start, home):
    server = start()
    key = server.items()[0]["id"].encode()
    found = {}
    for name, (_, given) in REFUSED.items():
        asked = {"path": "/rate", "body": GOOD, **given}
        asked["body"] = asked["body"].replace(b"%s", key)
        if asked.get("Host"):
            asked["Host"] = asked["Host"].format(port=server.port)
        found[name] = server.ask(**asked)[0]
    assert found == {name: status for name, (status, _) in REFUSED.items()}
    assert server.ask("/rate", b"", method="PUT")[0] == 405
    assert (home / RATINGS).read_bytes() == b""
    for host in ("localhost", "127.0.0.1"):
        address = f"{host}:{server.port}"
        assert server.ask("/rate", GOOD.replace(b"%s", key), Host=address, Origin=f"http://{address}")[0] == 200
    assert len(lines(home)) == 2


def test_a_rating_that_does_not_arrive_ends_the_request_and_not_the_server(start, home):
    server = start()
    began = time.monotonic()
    assert server.ask("/rate", b"{", Content_Length="100")[0] == 408
    assert time.monotonic() - began < 15
    assert server.rate(server.items()[0]["id"], 3)[0] == 200
    assert len(lines(home)) == 1


def test_ctrl_c_ends_the_server_in_the_middle_of_a_request(start):
    server = start()
    with socket.create_connection(("127.0.0.1", int(server.port)), timeout=20) as connection:
        head = f"POST /rate HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-Token: {server.token}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n".encode())
        server.ask("/items")  # the request before this one has been read
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=10) == 0


def test_an_answer_with_half_a_character_is_shown(start, home):
    odd = "half \ud83d of one"
    server = start(names=[write(home, "odd", [{"prompt": "p", "reference": "r", "answer": odd}])])
    assert server.items()[0]["answer"] == odd


def test_the_page_and_its_items_are_refused_without_the_token_too(start):
    server = start()
    assert server.ask("/", X_Token=None)[0] == 403
    assert server.ask("/items", X_Token=None)[0] == 403
    assert server.ask("/items", Host="evil.example")[0] == 403


def test_a_rating_is_in_the_file_before_the_answer_to_it(start, home):
    server = start()
    for item, score in zip(server.items(), (1, 5, 2), strict=False):
        status, text = server.rate(item["id"], score)
        assert (status, text.split("\n\n", 1)[1]) == (200, f'{{"score": {score}}}')
        last = lines(home)[-1]
        assert (last["rater"], last["score"]) == ("ann", score)
        name = "tuned" if item["answer"].startswith("yes") else "plain"
        assert last["record"] == f"{name}.json"
        assert item["prompt"] == f"Question {last['row']}?"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", last["rated_at"])
    assert [item["score"] for item in server.items()][:4] == [1, 5, 2, None]


def test_a_record_outside_of_the_files_folder_is_named_from_there(start, home, tmp_path_factory):
    file = tmp_path_factory.mktemp("else") / "r.jsonl"
    server = start("--scores", str(file))
    server.rate(server.items()[0]["id"], 2)
    assert json.loads(file.read_text())["record"].startswith(f"../{home.name}/secretmodel/results/")
    assert [score for _, score in ratings.read(file).items()] == [2]
    assert [item["score"] for item in start("--scores", str(file)).items()][:2] == [2, None]


def test_after_a_kill_with_a_line_cut_short_everything_that_was_saved_is_there(start, home):
    server = start()
    items = server.items()
    for place, item in enumerate(items[:20]):
        assert server.rate(item["id"], place % 5 + 1)[0] == 200
    server.kill()
    file = home / RATINGS
    file.write_bytes(file.read_bytes()[:-30])  # as if it had been killed while it wrote the last
    server = start(port=server.port)
    assert server.said.startswith("11 of 30 answers are left to rate for ann")
    again = server.items()
    assert [item["id"] for item in again] == [item["id"] for item in items]
    assert [item["score"] for item in again] == [place % 5 + 1 for place in range(19)] + [None] * 11
    server.rate(items[19]["id"], 4)
    text = file.read_bytes().splitlines()
    assert len(text) == 21
    assert json.loads(text[20])["score"] == 4
    assert len(ratings.read(file)) == 20


def test_a_changed_rating_counts_once_and_another_raters_beside_it(start, home):
    server = start()
    key = server.items()[0]["id"]
    server.rate(key, 1)
    server.rate(key, 5)
    other = start("--rater", "bob")
    (same,) = (item for item in other.items() if item["answer"] == server.items()[0]["answer"])
    assert same["score"] is None
    other.rate(same["id"], 2)
    assert len(lines(home)) == 3
    assert sorted((rater, score) for (_, _, rater), score in ratings.read(home / RATINGS).items()) == [
        ("ann", 5),
        ("bob", 2),
    ]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_ctrl_c_ends_well_and_says_how_many_are_left(start, stop):
    server = start()
    server.rate(server.items()[0]["id"], 1)
    server.process.send_signal(stop)
    assert server.process.stdout.read() == "\n29 of 30 answers are left to rate for ann; the same command goes on\n"
    assert server.process.wait() == 0


def test_a_disk_that_takes_no_more_is_told_and_does_not_count(start):
    server = start("--scores", "/dev/full")
    status, text = server.rate(server.items()[0]["id"], 1)
    assert status == 500
    assert text.endswith("No space left on device")
    assert server.items()[0]["score"] is None


def test_the_answers_of_a_record_json_stand_beside_it(home):
    path = home / "run" / "record.json"
    files.write_json(path, record())
    (home / "run" / "answers.jsonl").write_text(json.dumps({**rows(1, "x")[0], "more": 1}) + "\n")
    assert ratings.answers(path) == rows(1, "x")


def spoiled(home, case):
    """The command line of a case that goes wrong, made in `home`."""
    answers = home / "secretmodel" / "experiments" / "plain" / "answers.jsonl"
    more = {
        "other file as scores": ["--scores", "secretmodel/results/tuned.json"],
        "no folder for scores": ["--scores", "nowhere/r.jsonl"],
        "no such port": ["--port", "70000"],
        "no rater": ["--rater", ""],
        "no scores": ["--scores", ""],
        "no ratings yet": ["--report"],
    }
    if case == "other prompts":
        answers.write_text(answers.read_text().replace("Question 7", "Question 8"))
    elif case == "fewer rows":
        answers.write_text(answers.read_text().split("\n")[0])
    elif case == "no answers":
        answers.unlink()
    elif case == "empty answers":
        answers.write_text("")
    elif case == "answers of another shape":
        answers.write_text('{"prompt": "x", "reference": null, "answer": "y"}')
    elif case == "not a record":
        (home / RECORDS[0]).write_text("{}")
    elif case == "score of 7":
        line = {"record": "a", "row": 0, "rater": "ann", "score": 7}
        (home / RATINGS).write_text(json.dumps(line))
    elif case == "ratings are a folder":
        (home / RATINGS).mkdir()
    return [*RECORDS, "--port", "0", *more.get(case, [])]


@pytest.mark.parametrize(
    ("case", "mention"),
    {
        "other prompts": "did not answer the same prompts",
        "fewer rows": "did not answer the same prompts",
        "no answers": "experiments/plain/answers.jsonl is not there",
        "empty answers": "answers.jsonl:1 is not a row",
        "answers of another shape": "answers.jsonl:1 is not a row",
        "not a record": "results/tuned.json: field",
        "other file as scores": "tuned.json:2 is not a rating",
        "score of 7": "ratings.jsonl:1 is not a rating",
        "no folder for scores": "name a file with --scores",
        "no such port": "--port",
        "no ratings yet": f"no ratings in {RATINGS}",
        "ratings are a folder": "Is a directory; name a file with --scores",
        "no rater": "argument --rater: is empty",
        "no scores": "argument --scores: is empty",
    }.items(),
)
def test_what_cannot_be_rated_is_one_line_that_says_why(case, mention, home):
    done = command(home, *spoiled(home, case))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert mention in done.stderr


def test_a_port_in_use_is_one_line_too(start, home):
    done = command(home, *RECORDS, "--port", start().port)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name another with --port" in done.stderr


def test_the_help_loads_nothing_heavy():
    heavy = (
        "import sys, common.ratings; print({'numpy', 'torch', 'sklearn', 'jsonschema', 'starlette'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", heavy], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# agreement

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, part C: four observers, twelve units, values missing.
PAPER = ["11.1", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", ".555", "..11", "..3."]
# The example of Wikipedia's article on it: three observers, fifteen units.
ARTICLE = ["*1*", "***", "*22", "*11", "*33", "334", "444", "13*", "2*2", "1*1", "1*1", "3*3", "3*3", "***", "3*4"]


def units(text):
    return [[int(value) for value in unit if value.isdigit()] for unit in text]


# the digits are those of the package krippendorff 0.9.0; the first is the 0.815 of the paper
@pytest.mark.parametrize(("data", "expected"), [(PAPER, 0.815388), (ARTICLE, 0.806721)])
def test_alpha_of_the_published_examples(data, expected):
    assert scores.alpha(units(data)) == pytest.approx(expected, abs=1e-6)


def test_alpha_is_the_definition_and_not_moved_by_what_is_rated_once():
    random = numpy.random.default_rng(5)
    given = [random.choice([1, 2, 3, 5], random.integers(1, 5)).tolist() for _ in range(40)]
    paired = [values for values in given if len(values) > 1]
    count = collections.Counter(itertools.chain(*paired))

    def distance(a, b):  # Krippendorff (2011), part E: squared number of ratings between, the ends by half
        between = sum(count[value] for value in range(min(a, b), max(a, b) + 1))
        return (between - (count[a] + count[b]) / 2) ** 2

    observed = sum(
        distance(a, b) / (len(values) - 1) for values in paired for a, b in itertools.permutations(values, 2)
    )
    chance = sum(count[a] * count[b] * distance(a, b) for a in count for b in count)
    assert scores.alpha(given) == pytest.approx(1 - observed * (count.total() - 1) / chance)


def test_alpha_at_its_ends():
    assert scores.alpha([[1, 1], [5, 5, 5], [3]]) == 1
    assert scores.alpha([[1, 2], [2, 1]]) < 0
    assert scores.alpha([[4, 4], [4, 4], [5]]) is None  # what is rated once cannot tell
    assert scores.alpha([[1], [2]]) is None
    assert scores.alpha([]) is None


def test_kappa_is_the_definition():
    first, second = [1, 2, 3, 4, 5, 5, 2, 3], [2, 2, 3, 5, 5, 4, 1, 1]
    n = len(first)
    seen = sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) / n
    chance = sum((a - b) ** 2 for a in first for b in second) / n**2
    assert scores.kappa(first, second) == pytest.approx(1 - seen / chance)


def test_kappa_keeps_the_distance_over_a_score_that_nobody_gave():
    first, second = [1, 1, 5, 4], [1, 4, 5, 5]
    chance = sum((a - b) ** 2 for a in first for b in second) / 16
    assert scores.kappa(first, second) == pytest.approx(1 - 10 / 4 / chance)
    assert scores.kappa([3, 3], [3, 3]) is None


# the score and its table


def test_the_human_score_is_the_mean_of_the_rows_means(home):
    path = home / RECORDS[0]
    given = {(str(path), 0, "ann"): 1, (str(path), 0, "bob"): 2, (str(path), 1, "ann"): 5, ("other", 0, "eve"): 3}
    score = ratings.human(path, given)
    assert (score["value"], score["n"], score["ratings"], score["raters"]) == (3.25, 2, 3, 2)
    assert score["ci95"] == [1.5, 5.0]
    assert ratings.human(path, dict(reversed(given.items()))) == score


def test_the_interval_is_close_to_the_normal_approximation():
    given = {("/r", row, "ann"): 1 + row % 5 for row in range(200)}  # standard deviation: the root of 2
    low, high = ratings.human("/r", given)["ci95"]
    assert (high - low) / 2 == pytest.approx(1.96 * (2 / 200) ** 0.5, rel=0.1)


def test_one_rated_row_and_equal_rows_have_no_interval():
    assert ratings.human("/r", {("/r", 0, "ann"): 2})["ci95"] is None
    assert ratings.human("/r", {("/r", row, "ann"): 5 for row in range(20)})["ci95"] is None


def test_a_record_that_nobody_rated_has_no_score():
    none = {"value": None, "ci95": None, "n": 0, "ratings": 0, "raters": 0, "alpha": None, "kappa": None}
    assert ratings.human("/r", {}) == none


def test_the_report_has_a_row_a_record(home):
    def line(name, row, rater, score):
        return json.dumps({"record": f"secretmodel/results/{name}.json", "row": row, "rater": rater, "score": score})

    ann, bob = [1, 2, 3, 4, 5, 5], [1, 2, 3, 4, 5, 4]
    text = [line("tuned", row, "ann", score) for row, score in enumerate(ann)]
    text += [line("tuned", row, "bob", score) for row, score in enumerate(bob)]
    text += [line("tuned", 0, "ann", 1), line("plain", 3, "ann", 2)]
    (home / "r.jsonl").write_text("\n".join(text))
    done = command(home, *RECORDS, "--report", "--scores", "r.jsonl")
    assert done.returncode == 0, done.stderr
    head, rule, tuned, plain, _ = done.stdout.splitlines()
    assert set(rule) == {"-"}
    assert re.split(r"  +", head) == [
        "record",
        "human score, 1-5 (95 % interval)",
        "rows",
        "ratings",
        "raters",
        "alpha",
        "kappa",
    ]
    name, figure, *counts, alpha, kappa = re.split(r"  +", tuned)
    assert name == RECORDS[0]
    assert re.fullmatch(r"3\.25 \[\d\.\d\d, \d\.\d\d\]", figure)
    assert counts == ["6", "12", "2"]
    assert alpha == f"{scores.alpha(list(zip(ann, bob, strict=True))):.3f}"
    assert kappa == f"{scores.kappa(ann, bob):.3f}"
    assert re.split(r"  +", plain) == [RECORDS[1], "2.00", "1", "1", "1", "-", "-"]


def test_kappa_is_for_exactly_two_raters():
    given = {("/r", row, rater): row % 3 + 1 for row in range(5) for rater in ("ann", "bob")}
    assert ratings.human("/r", given)["kappa"] == 1
    assert ratings.human("/r", given | {("/r", 0, "eve"): 1})["kappa"] is None
    assert ratings.human("/r", given | {("/r", 0, "eve"): 1})["alpha"] == 1


def test_a_line_that_is_no_rating_is_refused(tmp_path):
    file = tmp_path / "r.jsonl"
    for line in (
        "[]",
        "3",
        "text",
        '{"record": "a", "row": "0", "rater": "ann", "score": 3}',
        '{"row": 1}',
        "{x}",
        "[" * 9999,
    ):
        file.write_text(f"{line}\n")
        with pytest.raises(InputError, match=r"r\.jsonl:1 is not a rating"):
            ratings.read(file)


# the page


@pytest.fixture
def page(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("browser")) as one:
        yield one


def place(text):
    return f"document.getElementById('place').textContent === '{text}'"


def test_twenty_ratings_by_the_keyboard_with_a_kill_in_between(page, start, home):
    names = [write(home, f"run{i}", rows(10, f"{ATTACK}\n  <b>answer</b> {i}")) for i in range(2)]
    server = start(names=names)
    page.open(server.url)
    for i in range(12):
        page.until(place(f"{i + 1} of 20"))
        page.press(str(i % 5 + 1))
    page.until(place("13 of 20"))
    assert len(lines(home)) == 12
    server.kill()
    page.press("1")
    page.until("document.getElementById('trouble').textContent.startsWith('Not saved: the server does not answer')")
    server = start(names=names, port=server.port)
    page.press("1")  # the page's token is of the first start
    page.until("document.getElementById('trouble').textContent.startsWith('Not saved: this is not the address')")
    assert len(lines(home)) == 12
    page.open(server.url)
    for i in range(12, 20):
        page.until(place(f"{i + 1} of 20"))
        page.press(str(i % 5 + 1))
    page.until(place("all 20 rated"))
    order = [item["id"] for item in server.items()]
    assert [item["score"] for item in server.items()] == [i % 5 + 1 for i in range(20)]
    assert len({(line["record"], line["row"]) for line in lines(home)}) == len(lines(home)) == 20
    for i in range(20, 17, -1):  # back to the eighteenth, which had 3
        page.press("ArrowLeft")
        page.until(place(f"{i} of 20"))
    page.press("5")
    page.until(place("all 20 rated"))
    assert len(lines(home)) == 21
    assert {item["id"]: item["score"] for item in server.items()}[order[17]] == 5
    assert len(ratings.read(home / RATINGS)) == 20


def test_a_text_is_shown_as_text_whatever_stands_in_it(page, start, home):
    answer = f"{ATTACK}\n  <img src=x onerror=alert(2)>&amp;\tend"
    server = start(names=[write(home, "one", [{"prompt": ATTACK, "reference": ATTACK, "answer": answer}])])
    page.open(server.url)
    page.until(place("1 of 1"))
    assert page.value("document.getElementById('answer').textContent") == answer
    assert page.value("document.getElementById('answer').innerText") == answer  # as it is seen: spaces are kept
    assert page.value("document.querySelectorAll('.text *').length") == 0
    assert page.dialogs == 0


def test_the_page_by_mouse_and_on_a_narrow_screen(page, start, home):
    server = start(names=[write(home, "one", rows(3, "w" * 300))])
    page.look(400, 800)
    page.open(server.url)
    page.until(place("1 of 3"))
    assert page.value("document.documentElement.scrollWidth") == 400
    boxes = "[...document.querySelectorAll('button')].map(each => each.getBoundingClientRect())"
    assert page.value(f"{boxes}.every(box => box.left >= 0 && box.right <= 400 && box.bottom <= 800)")
    assert page.value("document.querySelector('details').open") is False
    page.press("r")
    page.until("document.querySelector('details').open")
    page.value("document.querySelector('[data-score=\"4\"]').click()")
    page.until(place("2 of 3"))
    assert page.value("document.querySelector('details').open") is False
    page.press("ArrowRight")  # not past what is not rated
    page.value("document.getElementById('back').click()")
    page.until(place("1 of 3"))
    assert page.value("document.querySelector('[aria-pressed=true]').dataset.score") == "4"
    page.press("ArrowRight")
    page.until(place("2 of 3"))
    assert [line["score"] for line in lines(home)] == [4]
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.value(colour)
    page.look(400, 800, "dark")
    assert page.value(colour) != light
