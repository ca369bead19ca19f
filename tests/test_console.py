"""Ends of a script: what is the user's to put right is one line, a defect keeps its traceback."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from common import console
from common.console import Failed, InputError


def ended(capsys, work):
    """(exit code, stderr) of a script that does this."""
    code = console.exit_code(work)
    return code, capsys.readouterr().err


def raising(error):
    def work():
        raise error

    return work


@pytest.fixture(autouse=True)
def handlers():
    """exit_code takes SIGTERM over."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no file\n  a.csv"), 2, "error: no file a.csv\n"),
        (Failed("OOM", "memory does\nnot hold it"), 1, "OOM: memory does not hold it\n"),
        (Failed("failed", "the loss is not finite"), 1, "failed: the loss is not finite\n"),
    ],
)
def test_an_expected_end_is_one_line_and_its_code(error, code, line, capsys):
    assert ended(capsys, raising(error)) == (code, line)


def test_a_code_that_is_returned_is_the_exit_code(capsys):
    assert ended(capsys, lambda: None) == (0, "")
    assert ended(capsys, lambda: console.UNEXPECTED) == (1, "")


def test_a_full_disk_is_one_line_that_says_what_to_do(capsys):
    def write():
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    code, line = ended(capsys, write)
    assert (code, line.count("\n")) == (2, 1)
    assert line.startswith("error: cannot write a file (No space left on device): make room")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_place_that_cannot_be_written_is_one_line_with_its_name(number, capsys):
    code, line = ended(capsys, raising(OSError(number, os.strerror(number), "/some/file")))
    assert (code, line.count("\n")) == (2, 1)
    assert "/some/file" in line


def test_another_system_error_is_a_defect_with_its_traceback():
    with pytest.raises(OSError, match="broken"):
        console.exit_code(raising(OSError(errno.EIO, "broken")))


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (console.Terminated(), 143)], ids=["Ctrl-C", "SIGTERM"]
)
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a b/x.py", "--seed", "1"], "Go on with: python 'a b/x.py' --seed 1 --resume\n"),
        (["x.py", "--resume"], "Go on with: python x.py --resume\n"),
        (["python -m common sweep", "x.py"], "The same command goes on.\n"),
    ],
    ids=["run", "resumed run", "tool"],
)
def test_an_interruption_says_how_to_go_on(error, code, words, line, capsys, monkeypatch):
    """A tool has no --resume."""
    monkeypatch.setattr(sys, "argv", words)
    found, err = ended(capsys, raising(error))
    assert found == code
    assert err.endswith(line)


SPEAKER = """
import sys
from common import console
def main():
    for number in range(20000):
        console.say("line %d \N{GREEK SMALL LETTER ALPHA}" % number)
    open(sys.argv[1], "w").write("done")
sys.exit(console.exit_code(main))
"""


def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path):
    """Review B.10: behind `| head` a run ended with exit code 0 and no record."""
    command = [sys.executable, "-c", SPEAKER, str(tmp_path / "record")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline().startswith(b"line 0")
    child.stdout.close()
    err = child.stderr.read()
    assert (child.wait(), err) == (0, b"")
    assert (tmp_path / "record").read_text() == "done"


def test_a_terminal_that_is_not_utf8_does_not_end_the_run(tmp_path):
    """Review B.10: UnicodeEncodeError."""
    command = [sys.executable, "-c", SPEAKER, str(tmp_path / "record")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"line 0 ?\n")
    assert (tmp_path / "record").is_file()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7100, "118 min"), (7260, "2 h 1 min")]
)
def test_durations_are_told_in_the_unit_that_one_thinks_in(seconds, text):
    assert console.duration(seconds) == text


def test_columns_are_as_wide_as_what_stands_in_them():
    assert console.columns([["a", "b"], ["long", "x"], ["", "y"]]).splitlines() == [
        "a     b",
        "-" * 7,
        "long  x",
        "      y",
    ]
