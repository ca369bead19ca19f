"""How a script talks to the person who runs it: one-line errors, exit codes, progress, small tables."""

import errno
import os
import shlex
import signal
import sys

DONE, UNEXPECTED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit codes of every script


class InputError(Exception):
    """Something the user can put right. The message is one line that says what to do."""


def say(text=""):
    """Print to stdout at once, so that a log file follows the run."""
    print(text, flush=True)


def warn(text):
    print(f"warning: {text}", file=sys.stderr, flush=True)


def command_line():
    """The command as it was typed, ready to be pasted again."""
    return " ".join(["python", *map(shlex.quote, sys.argv)])


def exit_code(main, *args):
    """Call `main(*args)` and turn its end into an exit code (see the constants above).

    An InputError becomes one line on stderr; SIGINT and SIGTERM leave checkpoints behind and say
    how to go on; anything unexpected keeps its traceback, because that is a defect to report.
    """

    def stop(signum, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        main(*args)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        again = command_line() + ("" if "--resume" in sys.argv else " --resume")
        print(f"\ninterrupted; what is finished is kept. Go on with: {again}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe went away: `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: no space left for {error.filename or 'a file'}: free some, then add --resume", file=sys.stderr)
        return BAD_INPUT
    return DONE


def progress(total, label, unit="row", done=0):
    """A bar with rate and time left; in a log file a line every half minute instead."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=label,
        unit=unit,
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
    """Rows of strings as aligned text, the first row being the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
