"""What moved the published numbers: one factor at a time, from a study's protocol to this one's.

    python -m common factors            # every factor that has no figure yet: an hour on two cores
    python -m common factors sampled …  # these ones, again

Each factor scores the same rows twice, with the study's choice and with ours, and tests the difference row by row. The
trained models are plain ones of smollm2/ (`bash smollm2/evidence.sh` trains those that have no record). Figures go to
assets/factors.json; README.md of this package shows them.
"""

from pathlib import Path

from common import files
from common.console import InputError, say
from common.factors import causal, stored
from common.reports import speed
from common.runs import checks, flags, records

FACTORS = causal.FACTORS | stored.FACTORS
FILE = speed.ASSETS / "factors.json"


def main(words):
    parser = flags.Parser(prog="python -m common factors", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FACTOR", help=f"of {', '.join(FACTORS)} (default: the missing)")
    parser.add_argument("--rows", type=flags.positive(int), default=500, metavar="N", help="test posts (500)")
    parser.add_argument("--dialogues", type=flags.positive(int), default=200, metavar="N", help="test dialogues (200)")
    parser.add_argument("--output", default=str(FILE), metavar="FILE", help="file of the figures")
    args = parser.parse_args(words)
    if unknown := set(args.names) - set(FACTORS):
        raise InputError(f"no factor {', '.join(sorted(unknown))}; there are: {', '.join(FACTORS)}")
    checks.check_places(args.output)
    path = Path(args.output)
    known = files.read_json(path) if path.is_file() else {}
    published = files.read_json(Path(__file__).with_name("published.json"))  # which figures a factor concerns
    for name in args.names or [name for name in FACTORS if name not in known]:
        say(f"factor: {name}")
        what = " ".join(FACTORS[name].__doc__.split())
        known[name] = {"what": what, "published": published[name], "date": records.now()[:10], **FACTORS[name](args)}
        files.write_json(path, known)
        say(f"  {known[name]['study']:.1f} -> {known[name]['here']:.1f} {known[name]['metric']}")
    return say(f"figures: {path}")
