"""`python -m common report` writes one page that compares every recorded run and every published figure.

It answers which choice is best within a limit of memory, money and labels, and under which licence. The page holds all
of its data, loads nothing, and works from a file.
"""

import os
from pathlib import Path

from common import files
from common.console import InputError, say, warn
from common.runs import flags


def main(words):
    parser = flags.Parser(prog="python -m common report", description=__doc__)
    add = parser.add_argument
    add("--output", type=flags.name, default="report.html", metavar="FILE", help="the page (default: report.html)")
    add("--experiments", action="store_true", help="also runs in MODEL/experiments/: own data, demos")
    add("--data", type=flags.name, metavar="PATH", help="own rows, to stand beside the answers of runs on them")
    add("--screenshot", type=flags.name, metavar="FILE.png", help="also a picture of it, by an installed Chromium")
    args = parser.parse_args(words)
    output = files.expanded(args.output)
    from common.reports.page import build, picture

    check(output, build.is_ours)
    if args.screenshot:
        picture.check(Path(args.screenshot))
    text, shown = build.page(args.experiments or args.data is not None, args.data)
    for line in shown["left_out"]:
        warn(f"left out: {line}")
    try:
        files.write_text(output, text)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}; name another --output") from None
    runs = sum(choice["measured"] for choice in shown["choices"])
    published, size = len(shown["choices"]) - runs, len(text.encode()) / 1e6
    say(f"{files.display(output)}: {runs} measured choices, {published} published figures, {size:.2f} MB")
    if args.screenshot:
        picture.take(output, Path(args.screenshot), build.stamp(shown))
        say(f"{args.screenshot}: a picture of it")


def check(output, is_ours):
    """Raises InputError if there is something at `output` that this command did not write, or no folder for it."""
    if not output.parent.is_dir():
        raise InputError(f"no folder {output.parent}; name another --output")
    if os.path.lexists(output) and not (output.is_file() and is_ours(output)):
        raise InputError(f"{output} is no page of this command: name another --output")
