"""`python -m common checkpoints` installs and unpacks the embedded models."""

import argparse

from common.checkpoints import EMBEDDED, find, prepare
from common.console import say
from common.runs import flags


def main(words):
    def embedded(text):
        if text not in EMBEDDED:
            raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(EMBEDDED)}")
        return text

    parser = flags.Parser(prog="python -m common checkpoints", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", type=embedded, help=", ".join(EMBEDDED) + " (default: all)")
    for name in parser.parse_args(words).names or EMBEDDED:
        say(f"{name}: {prepare(find(name))}")
