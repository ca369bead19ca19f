"""Bad input of every kind, made by hypothesis: `make fuzz`, and a small part of it in the fast suite.

Each case ends with exit code 0 or 2 (HTTP: a status of 2xx or 4xx), with one line of error and no traceback. What lay
in the folder is as it was, and what is refused leaves nothing behind.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import socket
import string
from pathlib import Path

import pyarrow.parquet
import pytest
import test_rate
import test_serve
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inprocess import ROOT, captured, contents, little_training, start

from common import __main__, console, files
from common.runs import folders, identity

CASES = int(os.environ.get("FUZZ_CASES", "100"))  # of all targets together
COUNTED = {}  # target -> cases that ran


def cases(share):
    """A decorator for a property: `share` of all cases. The fast suite has the same ones each time."""
    return settings(
        max_examples=max(2, round(CASES * share)),
        deadline=None,
        derandomize="FUZZ_CASES" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@pytest.fixture(scope="module", autouse=True)
def told():
    yield
    print(f"\nfuzz: {sum(COUNTED.values()):,} cases: " + ", ".join(f"{n:,} {name}" for name, n in COUNTED.items()))


@pytest.fixture(scope="module", autouse=True)
def undisturbed():
    """No case may become another program, as a dry run by the budget would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "execv", lambda *words: pytest.fail(f"started {words}"))
        yield


def tool(*words):
    """`python -m common …` in this process: (exit code, stdout, stderr)."""
    return captured(lambda: console.exit_code(__main__.run, list(words)), "python -m common", *words)


def script(path, *words):
    run = start(ROOT / path, *words)
    return run.code, run.out, run.err


@contextlib.contextmanager
def place(base, name):
    """Context in an empty working folder, whose files are compared before and after `judge`."""
    COUNTED[name] = COUNTED.get(name, 0) + 1
    folder, before = base / "case", Path.cwd()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def judge(folder, call, *words, ends=(console.DONE, console.BAD_INPUT)):
    """Call it with these words, in `folder`; returns its exit code, which is one of `ends`."""
    before = contents(folder)
    code, _, err = call(*words)
    told = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert code in ends, (code, err)
    assert "Traceback" not in err, err
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    if code == console.BAD_INPUT:
        assert after == before
        assert len(told) == 1, err
        assert told[0].startswith("error: "), err
        assert len(told[0]) < 2000, err
    assert not [name for name in after if Path(name).name.startswith(".") and name not in before]
    return code


def seldom(draw, percent=15):
    """Whether to do what few cases should have. hypothesis prefers the ends of a range, so neither end is a yes."""
    return 40 <= draw(st.integers(0, 99)) < 40 + percent


# what is written behind a command

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NUMBER = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["0", "-1", "1", "2", "1e309", "nan", "inf", "-inf", "0x10", "1_000", "٣", "1e-400", "00", "0.0", "1.0", "+1"]
    ),
)
PLACE = st.sampled_from(
    ["", ".", "..", "~", "/", "/dev/null", "nothing", "rows.csv", "full", "a/b", "a" * 300, "-", "~x/y"]
)
VALUE = st.one_of(TEXT, NUMBER, PLACE)
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for path in ROOT.glob("*/*_*.py")
    if (path.parent / "model.py").is_file() and path.stem not in folders.LOCAL
)


@st.composite
def command_lines(draw, parser):
    """Words for a parser: its flags with values of any kind, and now and then something else."""
    words = []
    options = sorted(name for name in parser._option_string_actions if name not in ("-h", "--help", "--dry_run"))
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(options))
        action = parser._option_string_actions[name]
        words.append(name[:-1] if seldom(draw, 5) else name)
        if action.nargs != 0 or seldom(draw):
            words.append(draw(st.sampled_from(sorted(map(str, action.choices))) if action.choices else VALUE))
        words += [draw(VALUE)] if seldom(draw, 5) else []
    return words


@cases(0.3)
@given(data=st.data())
def test_flags_of_scripts(tmp_path_factory, tiny_folder, data):
    path = data.draw(st.sampled_from(SCRIPTS))
    words = data.draw(command_lines(folders.experiment(ROOT / path).parser))
    base = ["--pretrained_ckpt", str(tiny_folder)] if data.draw(st.booleans()) else []
    base += ["--demo"] if data.draw(st.booleans()) else []
    with place(tmp_path_factory.getbasetemp(), "flags") as folder:
        (folder / "rows.csv").write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(20)))
        (folder / "full").mkdir()
        (folder / "full" / "mine.txt").write_text("mine")
        judge(folder, lambda *words: script(path, *words), *base, *words, "--dry_run", "plan")


@cases(0.1)
@given(
    verb=st.sampled_from(["look", "advise", "export", "records", "budget", "loadtest", "rate", "serve"]),
    words=st.lists(st.one_of(VALUE, st.sampled_from(["--data", "--output", "--to", "--json", "--rater", "--help"]))),
)
def test_words_behind_verbs(tmp_path_factory, verb, words):
    with place(tmp_path_factory.getbasetemp(), "verbs") as folder:
        (folder / "full").mkdir()
        (folder / "full" / "mine.txt").write_text("mine")
        judge(folder, tool, verb, *words)


# files of rows

CELL = st.one_of(
    TEXT, NUMBER, st.sampled_from(["", " ", '"', "a\nb", "a\r\nb", ",", "\t", "None", "null", "\ufeff", "=1+1"])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "label", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["text", "label", "Text", " text", "label ", "", "summary", "a"])
ENDINGS = ("csv", "tsv", "json", "jsonl", "parquet", "csv.gz", "jsonl.gz")
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp500", "shift-jis")


@st.composite
def row_files(draw):
    """(file name, bytes): mostly a table in one of the formats with some odd cells, else something with its name alone.
    Now and then it has another ending or encoding, or a part of it is cut out, exchanged or missing."""
    ending = draw(st.sampled_from(ENDINGS))
    odd = odd_texts().map(str.encode) | st.binary(max_size=200)
    content = draw(odd if seldom(draw) else tables(ending))
    if seldom(draw, 8):
        content = content.decode("utf-8", "replace").encode(draw(st.sampled_from(ENCODINGS)), "replace")
    if seldom(draw):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=5)) + content[at + draw(st.integers(0, 5)) :]
    if seldom(draw, 5):
        content = content[: draw(st.integers(0, len(content)))]
    if seldom(draw, 5):
        ending = draw(st.sampled_from([*ENDINGS, "txt", "xlsx"]))
    return f"rows.{ending}", gzip.compress(content) if ending.endswith(".gz") else content


def odd_texts():
    lines = st.lists(JSON.map(json.dumps), max_size=6).map("\n".join)
    return lines | JSON.map(json.dumps) | st.lists(st.lists(CELL, max_size=4), max_size=8).map(as_csv)


@st.composite
def tables(draw, ending):
    """The bytes of 2 to 40 rows of two classes, some cells of which are anything."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3)) if seldom(draw, 20) else ["text", "label", "a"]
    rows = [[f"words of row {i}", "ab"[i % 2], "c"][: len(names)] for i in range(draw(st.integers(2, 40)))]
    cells = CELL if "sv" in ending else CELL | JSON
    for _ in range(draw(st.integers(0, 5))):
        draw(st.sampled_from(rows))[draw(st.integers(0, len(names) - 1))] = draw(cells)
    if "sv" in ending:
        return as_csv([names, *rows], "\t" if ending.startswith("t") else draw(st.sampled_from(",,,;|"))).encode()
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if "parquet" in ending:
        with contextlib.suppress(pyarrow.ArrowException, ValueError, TypeError):  # cells of several types
            stream = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), stream)
            return stream.getvalue()
    return (json.dumps(objects) if ending == "json" else "\n".join(map(json.dumps, objects))).encode()


def as_csv(rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


READERS = (
    ("minilm/minilm_classification.py",),
    ("minilm/minilm_classification.py", "--text_column", "text", "--label_column", "label"),
    ("smollm2/smollm2_classification.py", "--instruction", "Which?"),
    ("smollm2/smollm2_summarization.py", "--text_column", "text", "--summary_column", "label"),
    ("smollm2/smollm2_instructions.py", "--text_column", "text", "--answer_column", "label"),
)


@cases(0.3)
@given(file=row_files(), reader=st.sampled_from(READERS), data=st.data())
def test_files_of_rows(tmp_path_factory, file, reader, data):
    name, content = file
    encoding = data.draw(st.sampled_from(["utf-16", "no-such", "hex", "latin-1"])) if seldom(data.draw, 3) else ""
    with place(tmp_path_factory.getbasetemp(), "files of rows") as folder:
        (folder / name).write_bytes(content)
        words = ["--data", name, *(["--encoding", encoding] if encoding else []), "--dry_run", "plan"]
        judge(folder, script, *reader, *words)


@cases(0.04)
@given(file=row_files())
def test_files_that_are_looked_at(tmp_path_factory, file):
    name, content = file
    with place(tmp_path_factory.getbasetemp(), "looks") as folder:
        (folder / name).write_bytes(content)
        judge(folder, tool, "look", name, "--no_save")


# what runs left behind


@st.composite
def damaged(draw, value):
    """`value`, of JSON, with one of its parts exchanged or left out."""
    if isinstance(value, dict | list) and value and not seldom(draw, 5):
        where = (
            draw(st.sampled_from(sorted(value))) if isinstance(value, dict) else draw(st.integers(0, len(value) - 1))
        )
        changed = value.copy()
        if seldom(draw, 25):
            del changed[where]
        else:
            changed[where] = draw(damaged(value[where]))
        return changed
    near = [value + 1, -value, value * 1e9] if isinstance(value, int | float) and not isinstance(value, bool) else []
    return draw(st.one_of(JSON, st.sampled_from([*near, "", "<script>", "../../../etc/passwd", [], {}, None])))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A repository with one model folder, whose README is made from one record."""
    home = tmp_path_factory.mktemp("hub")
    shutil.copytree(ROOT / "minilm", home / "minilm", ignore=shutil.ignore_patterns("results", "experiments"))
    (home / "minilm" / "results").mkdir()
    return home


@cases(0.14)
@given(data=st.data())
def test_records(tmp_path_factory, hub, data):
    originals = sorted((ROOT / "minilm" / "results").glob("*.json"))
    original = data.draw(st.sampled_from(originals))
    record = data.draw(damaged(json.loads(original.read_text())))
    fields = record.get("identity") if isinstance(record, dict) else None
    if isinstance(fields, dict) and data.draw(st.booleans()):
        record["id"] = identity.digest(fields)  # somebody did it on purpose
    text = json.dumps(record)
    text = text[: data.draw(st.integers(0, len(text)))] if seldom(data.draw, 5) else text
    with place(tmp_path_factory.getbasetemp(), "records") as folder, pytest.MonkeyPatch.context() as patch:
        home = shutil.copytree(hub, folder / "hub")
        path = home / "minilm" / "results" / original.name
        path.write_text(text)
        patch.setattr(files, "ROOT", home)
        judge(folder, tool, "records", str(path))
        judge(folder, tool, "export", str(path), "--dry_run")
        judge(folder, tool, "tables", "--check", ends=(0, 1, 2))  # 1: its README shows other figures
        judge(folder, tool, "report", "--output", str(folder / "page.html"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny run, with its base beside it."""
    home = tmp_path_factory.mktemp("trained")
    base = tiny.write(home / "base")
    little_training(base, home / "run")
    return home


@st.composite
def damage(draw, folder):
    """(path in `folder`, its new bytes or None for none): one of its small files as other JSON, or any file cut,
    exchanged or left out."""
    names = sorted(name for name in contents(folder) if "checkpoints/" not in name)
    name = draw(st.sampled_from(names))
    content = (folder / name).read_bytes()
    kind = draw(st.sampled_from(["json", "json", "cut", "bytes", "gone", "pickle"]))
    if kind == "json" and name.endswith(".json"):
        return name, json.dumps(draw(damaged(json.loads(content)))).encode()
    if kind == "gone":
        return name, None
    if kind == "pickle":
        return name, b"\x80\x04cos\nsystem\n(S'touch planted'\ntR."
    at = draw(st.integers(0, len(content) - 1))
    return name, content[:at] if kind == "cut" else content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[
        at:
    ]


def with_damage(source, target, change):
    shutil.copytree(source, target)
    name, content = change
    if content is None:
        (target / name).unlink()
    else:
        (target / name).write_bytes(content)


@cases(0.04)
@given(data=st.data())
def test_checkpoints(tmp_path_factory, trained, data):
    change = data.draw(damage(trained / "base"))
    with place(tmp_path_factory.getbasetemp(), "checkpoints") as folder:
        with_damage(trained / "base", folder / "base", change)
        words = ("--pretrained_ckpt", "base", "--demo", "--max_test_samples", "1", "--max_new_tokens", "1")
        words += ("--task_type", "summarization", "--precision", "float32", "--output_dir", str(folder / "out"))
        judge(folder, lambda *words: script("mistral/mistral_baseline_inference.py", *words), *words)
        assert not (folder / "planted").exists()


@cases(0.04)
@given(data=st.data())
def test_adapters(tmp_path_factory, trained, data):
    change = data.draw(damage(trained / "run"))
    with place(tmp_path_factory.getbasetemp(), "adapters") as folder:
        with_damage(trained / "run", folder / "run", change)
        words = ("--experiment_dir", "run", "--text", "Ann: keys?", "--max_new_tokens", "1")
        judge(folder, lambda *words: script("mistral/mistral_summarization_inference.py", *words), *words)
        assert not (folder / "planted").exists()


# requests

HEADER = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
METHOD = st.sampled_from(
    ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get", "POST ", "", "\x00", "PRI * HTTP/2.0"]
)
BODY = st.one_of(
    st.binary(max_size=100),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(
            [
                "prompt",
                "messages",
                "max_tokens",
                "temperature",
                "top_k",
                "seed",
                "stop",
                "stream",
                "n",
                "model",
                "id",
                "score",
            ]
        ),
        JSON | st.sampled_from([1, "a", [{"role": "user", "content": "a"}], True, "x" * 5000, -1, 1e99]),
        max_size=4,
    ).map(lambda value: json.dumps(value).encode()),
)


def status_of(port, method, path, headers, body):
    """The status of the reply to a request as these bytes; None if the connection ended without one."""
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    connection = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(head.encode("utf-8", "surrogateescape") + body)
        connection.shutdown(socket.SHUT_WR)
        reply = connection.makefile("rb").readline()
        return int(reply.split()[1]) if reply else None


def ask(data, name, server, paths, usual):
    """Send one drawn request; asserts a status of 2xx or 4xx, or an end without a word if it was none. name: under
    which it is counted; usual: headers beside those that both servers expect."""
    COUNTED[name] = COUNTED.get(name, 0) + 1
    usual = {"Host": f"127.0.0.1:{server.port}", "Content-Type": "application/json"} | usual
    headers = usual | data.draw(st.dictionaries(HEADER, st.text(string.printable.strip(), max_size=20), max_size=3))
    body = data.draw(BODY)
    headers["Content-Length"] = data.draw(NUMBER) if seldom(data.draw) else str(len(body))
    if seldom(data.draw):
        headers[data.draw(st.sampled_from(sorted(headers)))] = data.draw(TEXT.map(lambda text: text.replace("\n", "")))
    method, path = data.draw(METHOD | st.just("POST")), data.draw(st.sampled_from(paths) | TEXT)
    status = status_of(server.port, method, path, headers, body)
    assert status is None or 200 <= status < 300 or 400 <= status < 500, (status, method, path, headers, body)
    assert server.process.poll() is None


experiment = test_serve.experiment  # the fixture with a tiny adapter


@pytest.fixture(scope="module")
def served(experiment):
    server = test_serve.Server(experiment)
    yield server
    server.kill()


@cases(0.08)
@given(data=st.data())
def test_requests_to_a_served_model(served, data):
    ask(data, "requests to serve", served, ["/v1/completions", "/v1/chat/completions", "/v1/models", "/"], {})


def test_the_server_answers_after_all_of_them(served):
    assert served.complete("a")[0] == 200


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    home = tmp_path_factory.mktemp("rated")
    for name in ("tuned", "plain"):
        test_rate.write(home, name, test_rate.rows(15, name))
    server = test_rate.Server(home)
    yield server
    server.kill()


@cases(0.06)
@given(data=st.data())
def test_requests_to_the_rating_page(rated, data):
    ask(data, "requests to rate", rated, ["/", "/items", "/rate"], {"X-Token": rated.token})


def test_the_page_answers_after_all_of_them(rated):
    assert len(rated.items()) == 30
