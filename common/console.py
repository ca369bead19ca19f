"""How a script talks to the person who runs it: one-line errors, exit codes, progress, small tables."""

import contextlib
import errno
import io
import os
import re
import shlex
import signal
import sys

from common import processes

DONE, UNEXPECTED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143  # exit codes of every script
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
NAME_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP)
SECRET = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|glpat-)[\w-]{12,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
SECRET_NAME = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD)$")


class InputError(Exception):
    """An error that the user can correct. The message is one line that says how."""


class Failed(Exception):
    """A run that failed; its record keeps the status, "failed" or "OOM". reason: one line."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled like Ctrl-C, with an exit code of its own."""


def say(text=""):
    """Print to stdout and flush, so that a log file follows the run. When the reader of a pipe has gone (`… | head`),
    the run goes on and later lines are dropped. Of several processes for one training the first one prints."""
    try:
        if not processes.rank():
            print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def silenced():
    """Context in which `say` prints nothing, for work that is described elsewhere."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def warn(text):
    """Print one warning to stderr."""
    if not processes.rank():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def one_line(text):
    return " ".join(masked(str(text)).split())


def masked(text):
    """The text without what looks like a token or a password, or is the value of a variable such as HF_TOKEN."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 8:
            text = text.replace(value, "***")
    return SECRET.sub(lambda found: f"{found[1] or ''}***", text)


def command_line():
    """The command as it was typed, ready to be pasted again."""
    return masked(" ".join(["python", *map(shlex.quote, sys.argv)]))


def exit_code(main, *args):
    """Call `main(*args)` and return an exit code (the constants above).

    InputError and Failed become one line on stderr. SIGINT and SIGTERM print the command that goes on. Any other
    exception keeps its traceback, because it is a defect to report.
    """

    def stop(signum, frame):
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 gets question marks
        stream.reconfigure(errors="replace")
    try:
        return main(*args) or DONE
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except Failed as failure:
        print(f"{failure.status}: {one_line(failure.reason)}", file=sys.stderr)
        return UNEXPECTED
    except KeyboardInterrupt as interruption:
        print(f"\ninterrupted; what is finished is kept.{resume_hint()}", file=sys.stderr)
        return TERMINATED if isinstance(interruption, Terminated) else INTERRUPTED
    except OSError as error:
        if error.errno in NAME_ERRORS:
            print(f"error: {one_line(error.filename)[:100]}: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
        if error.errno not in DISK_ERRORS:
            raise
        where, again = error.filename or "a file", "call it again" if is_tool() else "add --resume"
        print(f"error: cannot write {where} ({error.strerror}): make room, then {again}", file=sys.stderr)
        return BAD_INPUT


def is_tool():
    """Whether this is a verb of `python -m common` and no experiment's script."""
    return not sys.argv[0].endswith(".py") or sys.argv[0].endswith("__main__.py")


def resume_hint():
    """How to go on after an interruption: experiments take --resume, tools are simply run again."""
    if is_tool():
        return " The same command goes on."
    return f" Go on with: {command_line()}" + ("" if "--resume" in sys.argv else " --resume")


def progress(total, label, unit="row", done=0):
    """A progress bar with rate and time left; in a log file it prints a line every half minute."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        disable=processes.rank() > 0,
        initial=done,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 30,
        bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    )


def duration(seconds):
    """3725 -> '1 h 2 min'."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def columns(rows):
    """Rows of strings as an aligned text table. The first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
