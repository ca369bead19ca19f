"""`python -m common advise --data FILE`: what to use for these rows now, and what more labels would bring.

It measures cheap methods at several numbers of rows, and with --max_minutes small trainings of the embedded encoder.
Their learning curves give a forecast for twice and four times the labels, with an interval that was checked on tasks
that had no part in making it (`python -m common advise check`, README.md). What it cannot tell, it says, with the
command to measure next.
"""

import shlex
import time

from common import files
from common.console import InputError, say
from common.runs import checks, flags

TOO_WIDE = 20.0  # points: a wider forecast says too little to act on
FEWEST_POINTS = 3


def size(text):
    """An argparse type: bytes, from 12GB or 12."""
    number = text.upper().removesuffix("B").removesuffix("G")
    return float(flags.positive(float, 10_000)(number)) * 1e9


def parser():
    parser = flags.Parser(prog="python -m common advise", description=__doc__)
    given = {name: flags.MODEL[name] for name in ("data", "text_column", "encoding", "delimiter")}
    given |= flags.TARGET["classification"]
    for name, keywords in given.items():
        parser.add(name, keywords | ({"required": True} if name == "data" else {}))
    number = flags.positive(float, 1e6)
    parser.add_argument(
        "--max_minutes", type=number, metavar="N", help="probe with trainings that end within N minutes"
    )
    parser.add_argument("--max_memory", type=size, metavar="GB", help="leave methods out that take more, such as 12GB")
    parser.add_argument("--max_cost", type=number, metavar="USD", help="leave trainings out that cost more, with "
                        "--price_per_hour")  # fmt: skip
    parser.add_argument("--price_per_hour", type=number, metavar="USD", help="of this machine")
    parser.add_argument("--max_labels", type=flags.positive(int, 10**9), metavar="N", help="forecast at N labels, too")
    parser.add_argument("--json", metavar="FILE", type=flags.name, help="write all of it as JSON")
    return parser


def main(words):
    if words[:1] == ["check"]:
        from common.advise import check

        return check.main(words[1:])
    args = parser().parse_args(words)
    if args.max_cost and not args.price_per_hour:
        raise InputError("--max_cost needs --price_per_hour: the price of this machine")
    checks.check_places(args.json and files.expanded(args.json))
    return advise(args)


def advise(args):
    from common import data
    from common.advise import answer, larger, measured
    from common.encoders import probe

    choose_columns(args)
    rows = data.load("classification", path=args.data, text_column=args.text_column, target_column=args.label_column,
                     encoding=args.encoding, delimiter=args.delimiter, label_names=args.label_names)  # fmt: skip
    read = data_flags(args)
    methods = [measured.Method(answer.TRIVIAL, [answer.point(rows, probe.dummy(rows))])]
    methods.append(measured.words(rows))
    say(answer.told(methods))
    began, seconds = time.monotonic(), 60 * (args.max_minutes or 0)
    if frozen := measured.features(rows, max(measured.QUICK, seconds / 4)):
        say(answer.told([frozen]))
        methods.append(frozen)
    probed = measured.probes(read, max(0, seconds - (time.monotonic() - began)) / 60)
    if probed:
        say(answer.told([probed]))
        methods.append(probed)
    found = answer.of(methods, args, probe_command(args, read))
    found["larger"] = larger.sentences(len(rows.train))
    say("\n" + "\n".join(found["text"]) + "\n\n" + "\n".join(found["larger"]))
    if args.json:
        files.write_json(files.expanded(args.json), found | {"data": rows.source})
        say(f"kept: {args.json}")


def choose_columns(args):
    """Set the columns that no flag names, as `look` guesses them, and say which. Raises InputError."""
    from common import look
    from common.look import guess

    path = files.expanded(args.data)
    source = next(iter(look.opened(path, args).values()))
    targets = {"classification": args.label_column}
    choice = guess.choose(source, guess.profiles(source), "classification", args.text_column, targets)
    args.text_column, args.label_column = choice.named["text"], choice.named["target"]
    if "text" in choice.guessed or "target" in choice.guessed:
        told = "guessed; --text_column and --label_column name others"
        say(f"columns: text {choice.columns['text']}, label {choice.columns['target']} ({told})")


def data_flags(args):
    """The flags that name the rows, as the scripts take them."""
    names = ("data", "text_column", "label_column", "label_names", "encoding", "delimiter")
    pairs = [(name, vars(args)[name]) for name in names if vars(args)[name]]
    pairs = [(name, str(files.expanded(value).resolve()) if name in ("data", "label_names") else value)
             for name, value in pairs]  # fmt: skip
    return [word for name, value in pairs for word in (f"--{name}", value)]


def probe_command(args, read):
    more = [] if args.max_minutes else ["--max_minutes", "15"]
    return shlex.join(["python", "-m", "common", "advise", *read, *more])
