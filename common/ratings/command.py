"""`python -m common rate RECORD…` serves a page on this machine for blind ratings: it shows the records' answers in an
order of the rater's own, hides which model wrote them, and saves every rating at once. With --report it prints the mean
scores (1 to 5) and the agreement of the raters instead.
"""

import argparse
import getpass
from pathlib import Path

from common import metrics
from common.console import InputError, columns, say
from common.ratings import scores, store
from common.runs import flags, records


def report(paths, file):
    """Print a row for each record: human score, ratings, raters, agreement. Raises InputError without ratings."""
    if not Path(file).is_file():
        raise InputError(f"no ratings in {file}: rate first, without --report, or name the file with --scores")
    ratings = store.read(file)
    rows = [["record", "human score, 1-5 (95 % interval)", "rows", "ratings", "raters", "alpha", "kappa"]]
    for path in paths:
        records.checked(path)
        score = scores.human(path, ratings)
        counts = [str(score[name]) for name in ("n", "ratings", "raters")]
        agreement = ["-" if score[name] is None else f"{score[name]:.3f}" for name in ("alpha", "kappa")]
        rows.append([path, metrics.figure(score), *counts, *agreement])
    say(columns(rows))
    say("alpha: Krippendorff's, ordinal; kappa: Cohen's, quadratically weighted, of two raters")


def serve(paths, rater, port, file):
    """Serve the page until Ctrl-C. Raises InputError for a file or a port that cannot be used."""
    from common.ratings import page

    study = page.Study(paths, rater, file)
    try:
        open(file, "ab").close()
    except OSError as error:
        raise InputError(f"cannot write ratings to {file}: {error.strerror}; name a file with --scores") from None
    try:
        server = page.Server(study, port)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port}: {error}; name another with --port") from None
    try:
        say(f"{study.left()}; ratings go to {file}; Ctrl-C ends")
        say(f"open {server.url}")
        server.run()
    except KeyboardInterrupt:
        say(f"\n{study.left()}; the same command goes on")


def user():
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        raise InputError("your name is not known here: give it with --rater") from None


def text(word):
    """An argparse type: a text that is not empty."""
    if not word.strip():
        raise argparse.ArgumentTypeError("is empty")
    return word


def main(words):
    parser = flags.Parser(prog="python -m common rate", description=__doc__)
    parser.add_argument("records", nargs="+", type=text, metavar="RECORD", help="records of runs on the same test rows")
    parser.add_argument("--rater", type=text, metavar="NAME", help="name of the rater (default: your user name)")
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="port; 0: any free one (default: 8765)")
    parser.add_argument(
        "--scores",
        type=text,
        metavar="FILE",
        help=f"file of the ratings (default: {store.FILE} beside the first record)",
    )
    parser.add_argument("--report", action="store_true", help="print the scores so far instead")
    args = parser.parse_args(words)
    file = args.scores or Path(args.records[0]).parent / store.FILE
    if args.report:
        report(args.records, file)
    else:
        serve(args.records, args.rater or user(), args.port, file)
