"""Ends of a script: a full disk is one line, another defect keeps its traceback."""

import errno

import pytest

from common import console


def test_a_full_disk_is_one_line_that_says_what_to_do(capsys):
    def write():
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    assert console.exit_code(write) == console.BAD_INPUT
    assert capsys.readouterr().err.startswith("error: no space left")


def test_another_system_error_is_a_defect_with_its_traceback():
    def fail():
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        console.exit_code(fail)
