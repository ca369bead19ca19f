"""Offered load against measured load: `python -m common loadtest URL` asks an OpenAI-compatible server at one rate
after another and tells how many answers came, how late, and what they cost.

Requests are sent when they are due, whether or not earlier ones were answered, and a latency counts from the time the
request was due: a server that stalls is not spared the requests that would have come meanwhile. Arrivals are random
(Poisson, given their number) or even, the same ones for a seed. Percentiles are of the completed requests, beside the
number and kind of the failed ones; nothing is retried. Completed requests and tokens a second are counted over as long
as requests arrive, from the first answer on, so that neither a latency that all share nor what is answered after the
last arrival tells on them. Cost: price_per_hour / tokens completed an hour, so it is of the load that was there.
A server that caches prompts is flattered by few of them (the sample has 60).

--output writes one JSON, after every rate (loadtest.schema.json): url, endpoint, model, arrivals, seed, max_tokens,
timeout_s, prompts {source, n, sha256}, price_per_hour, status ("done" or "interrupted"), started_at, finished_at,
saturation (null without --ramp: rate or null, reason, sustained_rate or null), and rates, a list of {rate, window_s,
planned, sent, completed, failed, failures {kind: number}, offered_per_s, completed_per_s, latency_s {p50, p90, p99,
mean, max}, completion_tokens, tokens_per_s, usd_per_1000_tokens, client_lag_s (the latest that a request left here),
requests {scheduled_s, sent_s, latency_s, tokens, failure: a list each, in order of arrival}}. Unknown: null.
A key is taken from OPENAI_API_KEY; it is neither printed nor written. With such a JSON instead of a URL nothing is
measured: its table is printed again, and its picture drawn.
"""

import argparse
import hashlib
import json
import math
import os
import random
from pathlib import Path

from common import console, files
from common.console import InputError, say
from common.runs import flags, records
from common.serving import openloop

SAMPLE = Path(__file__).parent.parent / "sample" / "dialogues.jsonl"
SCHEMA = Path(__file__).parent / "loadtest.schema.json"
WORDING = "Summarize the dialogue in one or two short sentences.\n\n{}\n\nSummary:"
RATES = [1, 2, 4, 8]  # requests a second
TOP = 4096  # requests a second at which a ramp gives up: a thread each
KEEPS_UP = 0.9  # share of the offered load
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
COLOURS = ("#0b6e99", "#c2571a", "#5b5ea6")


def read_prompts(source):
    """Texts: the sample's dialogues, or field "prompt" or "text" of each line of a jsonl file (answers.jsonl, say)."""
    if source == "sample":
        return [WORDING.format(json.loads(line)["dialogue"]) for line in SAMPLE.read_text("utf-8").splitlines()]
    texts = []
    try:
        lines = Path(source).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts {source}: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            text = row.get("prompt", row.get("text"))
        except (ValueError, AttributeError):
            text = None
        if not text or not isinstance(text, str):
            raise InputError(f'{source}:{number} is not a row with a text "prompt" or "text"')
        texts.append(text)
    if not texts:
        raise InputError(f"{source} has no rows")
    return texts


def schedule(kind, rate, number, seed):
    """Seconds from the start at which `number` requests are due, within number / rate seconds."""
    if kind == "even":
        return [i / rate for i in range(number)]
    draw = random.Random(f"{seed} {rate:g}")  # the same arrivals whichever rates came before
    return sorted(draw.uniform(0, number / rate) for _ in range(number))


def percentile(values, share):
    """The `share`th percentile, interpolated between neighbours as numpy does; None of nothing."""
    if not values:
        return None
    values, place = sorted(values), (len(values) - 1) * share / 100
    low = int(place)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (place - low)


def measured(rate, planned, due, outcomes, broken_off, price):
    """The block of a rate. due: seconds, as `schedule` gives them; outcomes: openloop.Outcome of those sent, in that
    order; broken_off: openloop.BrokenOff or None."""
    window = min(planned / rate, broken_off.seconds if broken_off else float("inf"))
    kept = [(at, o) for at, o in zip(due, outcomes, strict=False) if not o.failure]
    late = [o.ended - at for at, o in kept]
    first = min((o.ended for _, o in kept), default=0)
    inside = [o for _, o in kept if o.ended <= first + window]
    counted = all(o.tokens is not None for _, o in kept)
    tokens_per_s = sum(o.tokens for o in inside) / window if counted else None
    failures = [o.failure for o in outcomes if o.failure]
    assert len(outcomes) == len(kept) + len(failures), "a request was lost"
    return {
        "rate": rate,
        "window_s": window,
        "planned": planned,
        "sent": len(outcomes),
        "completed": len(kept),
        "failed": len(failures),
        "failures": {kind: failures.count(kind) for kind in sorted(set(failures))},
        "offered_per_s": len(outcomes) / window,
        "completed_per_s": len(inside) / window,
        "latency_s": {name: percentile(late, share) for name, share in PERCENTILES.items()}
        | {"mean": sum(late) / len(late) if late else None, "max": max(late, default=None)},
        "completion_tokens": sum(o.tokens for _, o in kept) if counted else None,
        "tokens_per_s": tokens_per_s,
        "usd_per_1000_tokens": cost(price, tokens_per_s),
        "client_lag_s": max((o.sent - at for at, o in zip(due, outcomes, strict=False)), default=None),
        "requests": {
            "scheduled_s": due[: len(outcomes)],
            "sent_s": [o.sent for o in outcomes],
            "latency_s": [None if o.failure else o.ended - at for at, o in zip(due, outcomes, strict=False)],
            "tokens": [o.tokens for o in outcomes],
            "failure": [o.failure for o in outcomes],
        },
    }


def cost(price_per_hour, tokens_per_s):
    """USD for 1,000 completed tokens; None where price or tokens are not known, or nothing was completed."""
    return price_per_hour / (tokens_per_s * 3600) * 1000 if price_per_hour and tokens_per_s else None


def overload(block, max_p90):
    """What shows that the server no longer keeps up with a rate, in words, or None."""
    if block["completed_per_s"] < KEEPS_UP * block["offered_per_s"]:
        return f"completed {block['completed_per_s']:.2f} of {block['offered_per_s']:.2f} requests/s offered"
    if block["latency_s"]["p90"] > max_p90:
        return f"p90 of {block['latency_s']['p90']:.2f} s is beyond {max_p90:g} s"
    return None


def rows(blocks):
    """The head of the table and a line a rate, of cells."""
    head = ["rate", "offered/s", "completed/s", "sent", "failed", "p50 s", "p90 s", "p99 s", "tokens/s"]
    table = [[*head, "USD / 1,000 tokens"]]
    for block in blocks:
        kinds = ", ".join(f"{kind}: {n}" for kind, n in block["failures"].items())
        failed = f"{block['failed']} ({kinds})" if kinds else "0"
        late = [figure(block["latency_s"][name], ".3f") for name in PERCENTILES]
        asked = [f"{block['rate']:g}", f"{block['offered_per_s']:.2f}", f"{block['completed_per_s']:.2f}"]
        gained = [figure(block["tokens_per_s"], ".1f"), figure(block["usd_per_1000_tokens"], ".6f")]
        table.append([*asked, str(block["sent"]), failed, *late, *gained])
    return table


def figure(value, form):
    return "-" if value is None else format(value, form)


def saturation(blocks, max_p90):
    """Where a ramp ended."""
    reason = overload(blocks[-1], max_p90)
    kept_up = [block["rate"] for block in blocks if not overload(block, max_p90)]
    return {
        "rate": blocks[-1]["rate"] if reason else None,
        "reason": reason or f"not reached up to {blocks[-1]['rate']:g} requests/s",
        "sustained_rate": max(kept_up, default=None),
    }


def draw(report, path):
    """Write an SVG: completed over offered load, and the latency percentiles over it; the same bytes for the same
    figures."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "loadtest", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style | {"axes.grid": True, "grid.alpha": 0.25}):
        picture = Figure(figsize=(7.2, 2.9), layout="constrained")
        load, late = picture.subplots(1, 2)
        blocks = report["rates"]
        offered = [block["offered_per_s"] for block in blocks]
        completed = [block["completed_per_s"] for block in blocks]
        load.plot(offered, offered, "--", color="grey", linewidth=0.9, label="offered")
        load.plot(offered, completed, "o-", color=COLOURS[0], label="completed")
        load.set(xlabel="offered requests/s", ylabel="completed requests/s")
        for name, colour in zip(PERCENTILES, COLOURS, strict=True):
            seconds = [float("nan") if (s := block["latency_s"][name]) is None else s for block in blocks]
            late.plot(offered, seconds, "o-", color=colour, label=name)
        late.set(xlabel="offered requests/s", ylabel="latency from the time due, s")
        for axis in (load, late):
            axis.set_xscale("log", base=2)
            axis.set_xticks(offered, [f"{block['rate']:g}" for block in blocks])
            axis.set_ylim(bottom=0)
            axis.legend(frameon=False)
        model = report["model"].replace("$", r"\$")  # no mathematics
        title = f"{model}, {report['max_tokens']} tokens an answer, {report['arrivals']} arrivals"
        picture.suptitle(title, fontsize=10)
        drawn = io.StringIO()
        picture.savefig(drawn, format="svg", metadata={"Date": None})
    files.write_text(path, "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n")


def check_places(*paths):
    """Before an hour is spent: can the files be written?"""
    for path in filter(None, paths):
        home = Path(path).resolve().parent
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        if Path(path).is_dir() or not os.access(home, os.W_OK):
            raise InputError(f"cannot write {path}: it is a folder, or its folder may not be written")


def show(args):
    """Table and picture of a report that is there."""
    report = files.read_json(args.url)
    records.validate(report, SCHEMA, args.url)
    if not report["rates"]:
        raise InputError(f"{args.url} has no rates: it was interrupted before the first answer")
    check_places(args.plot)
    tell(report)
    if args.plot:
        draw(report, Path(args.plot).resolve())
        say(f"written: {files.display(args.plot)}")


def run(args):
    """Every rate in turn. Returns the exit code."""
    prompts = read_prompts(args.prompts)
    check_places(args.output, args.plot)
    client = openloop.Client(args.url, args.timeout, os.environ.get("OPENAI_API_KEY", ""))
    report = begun(args, prompts, args.model or client.model())
    endpoint, blocks = report["endpoint"], report["rates"]
    bodies = [body(args, report["model"], text) for text in prompts]
    client.warm_up(endpoint, bodies[0])
    number = lambda rate: max(1, round(rate * args.seconds)) if args.seconds else args.requests or 200  # noqa: E731
    rates = (
        [args.ramp * 2**i for i in range(1 + max(0, int(math.log2(TOP / args.ramp))))]
        if args.ramp
        else args.rates or RATES
    )
    if not args.ramp:
        seconds = sum(number(rate) / rate for rate in rates)
        say(f"{report['model']}: {sum(map(number, rates))} requests in {console.duration(seconds)} or more")
    for rate in rates:
        due = schedule(args.arrivals, rate, number(rate), args.seed)
        bar = console.progress(len(due), f"{rate:g} requests/s", unit="request")
        ask = lambda i: client.ask(endpoint, bodies[i % len(bodies)])  # noqa: E731
        outcomes, broken_off = openloop.offer(ask, due, bar.update)
        bar.close()
        if outcomes:
            blocks.append(measured(rate, len(due), due, outcomes, broken_off, args.price_per_hour))
            keep(args, report)
        if broken_off or (args.ramp and overload(blocks[-1], args.max_p90)):
            break
    if args.ramp and not broken_off:
        report["saturation"] = saturation(blocks, args.max_p90)
    report["status"] = "interrupted" if broken_off else "done"
    finish(args, report)
    return broken_off.code if broken_off else console.DONE


def begun(args, prompts, model):
    """The report before anything was measured."""
    digest = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()
    return {
        "schema_version": 1,
        "status": "interrupted",
        "url": args.url,
        "endpoint": "/v1/chat/completions" if args.chat else "/v1/completions",
        "model": model,
        "arrivals": args.arrivals,
        "seed": args.seed,
        "max_tokens": args.max_tokens,
        "timeout_s": args.timeout,
        "prompts": {"source": args.prompts, "n": len(prompts), "sha256": digest},
        "price_per_hour": args.price_per_hour,
        "started_at": records.now(),
        "finished_at": None,
        "saturation": None,
        "rates": [],
    }


def body(args, model, text):
    asked = {"messages": [{"role": "user", "content": text}]} if args.chat else {"prompt": text}
    return json.dumps({"model": model, **asked, "max_tokens": args.max_tokens, "temperature": 0}).encode()


def keep(args, report):
    if args.output:
        records.validate(files.finite(report), SCHEMA, args.output)
        files.write_json(args.output, report)


def tell(report):
    """Print the table, and what a ramp found."""
    if report["rates"]:
        say(console.columns(rows(report["rates"])))
    if report["saturation"]:
        say(in_words(report["saturation"]))


def in_words(saturation):
    where = f"saturated at {saturation['rate']:g} requests/s" if saturation["rate"] else "not saturated"
    sustained = figure(saturation["sustained_rate"], "g")
    return f"{where}: {saturation['reason']}; highest rate that it kept up with: {sustained}"


def finish(args, report):
    """The table, what a ramp found, and the files."""
    report["finished_at"] = records.now()
    tell(report)
    keep(args, report)
    if args.plot and report["rates"]:
        draw(report, Path(args.plot).resolve())
    for path in filter(None, (args.output, report["rates"] and args.plot)):
        say(f"written: {files.display(path)}")


def svg(text):
    if Path(text).suffix != ".svg":
        raise argparse.ArgumentTypeError(f"{text} is not called .svg")
    return text


def main(words):
    parser = flags.Parser(
        prog="python -m common loadtest",
        description=__doc__,
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted, 143 terminated.",
    )
    parser.add_argument(
        "url",
        metavar="URL",
        help="http://host:port of the server, with or without /v1; or a report.json to show",
    )
    load = parser.add_argument_group("load")
    which = load.add_mutually_exclusive_group()
    which.add_argument(
        "--rates", nargs="+", type=flags.positive(float), metavar="R", help="requests a second (default: 1 2 4 8)"
    )
    which.add_argument(
        "--ramp", nargs="?", type=flags.positive(float), const=1.0, metavar="R",
        help="double the rate, from R (default: 1), until the server no longer keeps up: less than 90 %% of the load "
        "completed, or a p90 above --max_p90",
    )  # fmt: skip
    load.add_argument(
        "--max_p90",
        type=flags.positive(float),
        default=10,
        metavar="S",
        help="seconds; where a ramp ends (default: 10)",
    )
    size = load.add_mutually_exclusive_group()
    size.add_argument("--requests", type=flags.positive(int), metavar="N", help="at each rate (default: 200)")
    size.add_argument("--seconds", type=flags.positive(float), metavar="S", help="at each rate, instead of a number")
    load.add_argument("--arrivals", choices=["poisson", "even"], default="poisson", help="(default: poisson)")
    load.add_argument("--seed", type=flags.seed, default=42, metavar="N", help="of the arrivals (default: 42)")
    load.add_argument(
        "--timeout", type=flags.positive(float), default=60, metavar="S", help="seconds without a byte (default: 60)"
    )
    ask = parser.add_argument_group("requests")
    ask.add_argument("--model", metavar="NAME", help="(default: the first that the server names)")
    ask.add_argument("--chat", action="store_true", help="ask /v1/chat/completions instead of /v1/completions")
    ask.add_argument(
        "--prompts", default="sample", metavar="FILE", help='jsonl with "prompt" or "text" a line (default: the sample)'
    )
    ask.add_argument(
        "--max_tokens", type=flags.positive(int), default=32, metavar="N", help="of an answer (default: 32)"
    )
    out = parser.add_argument_group("results")
    out.add_argument(
        "--price_per_hour",
        type=flags.positive(float),
        metavar="USD",
        help="of the machine, for the cost (default: unknown)",
    )
    out.add_argument("--output", metavar="FILE", help="write all figures there, as JSON")
    out.add_argument("--plot", type=svg, metavar="FILE.svg", help="draw load and latencies there")
    args = parser.parse_args(words)
    if Path(args.url).suffix == ".json" and "://" not in args.url:
        return show(args)
    return run(args)
