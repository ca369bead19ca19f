"""Load test: `python -m common loadtest URL` sends requests to an OpenAI-compatible server at one rate after another
and reports throughput, latency, failures and cost.

Requests are sent when they are due, whether or not earlier ones were answered, and a latency counts from the time the
request was due: a server that stalls is not spared the requests that would have come meanwhile. Arrivals are random
(Poisson, given their number) or even; a seed fixes them. Percentiles count completed requests; failed ones are counted
by kind, and nothing is retried. Throughput counts the answers within a window that is as long as the arrivals take and
begins with the first answer: the latency of the first answer and the answers after the last arrival do not distort it.
Cost is price_per_hour / tokens completed an hour, at the load of the test.
A server that caches prompts looks faster with few of them (the sample has 60).

--output writes one JSON, after every rate (loadtest.schema.json): url, endpoint, model, arrivals, seed, max_tokens,
timeout_s, prompts {source, n, sha256}, price_per_hour, status ("done" or "interrupted"), started_at, finished_at,
saturation (null without --ramp: rate or null, reason, sustained_rate or null), and rates, a list of {rate, window_s,
planned, sent, completed, failed, failures {kind: number}, offered_per_s, completed_per_s, latency_s {p50, p90, p99,
mean, max}, completion_tokens, tokens_per_s, usd_per_1000_tokens, client_lag_s (the longest delay between due and sent),
requests {scheduled_s, sent_s, latency_s, tokens, failure: a list each, in order of arrival}}. Unknown: null.
The API key comes from OPENAI_API_KEY and is neither printed nor written. With such a JSON instead of a URL the command
measures nothing: it prints the table again and draws the picture.
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
from common.runs import checks, flags, records
from common.serving import load_report, openloop

SAMPLE = Path(__file__).parent.parent / "sample" / "dialogues.jsonl"
SCHEMA = Path(__file__).parent / "loadtest.schema.json"
WORDING = "Summarize the dialogue in one or two short sentences.\n\n{}\n\nSummary:"
RATES = [1, 2, 4, 8]  # requests a second
TOP = 4096  # requests a second at which a ramp gives up, because each request takes a thread


def read_prompts(source):
    """List of prompts. source: "sample", the shipped dialogues, or a jsonl file whose rows have a field "prompt" or
    "text", such as answers.jsonl. Raises InputError."""
    if source == "sample":
        return [WORDING.format(json.loads(line)["dialogue"]) for line in SAMPLE.read_text("utf-8").splitlines()]
    texts = []
    try:
        lines = Path(source).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts {source}: {error}") from None
    for line_number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            text = row.get("prompt", row.get("text"))
        except (ValueError, AttributeError):
            text = None
        if not text or not isinstance(text, str):
            raise InputError(f'{source}:{line_number} is not a row with a text "prompt" or "text"')
        texts.append(text)
    if not texts:
        raise InputError(f"{source} has no rows")
    return texts


def schedule(kind, rate, count, seed):
    """Sorted seconds from the start at which `count` requests are due, within count / rate seconds. kind: "poisson" or
    "even"; rate: requests/s."""
    if kind == "even":
        return [i / rate for i in range(count)]
    generator = random.Random(f"{seed} {rate:g}")  # so that arrivals do not depend on earlier rates
    return sorted(generator.uniform(0, count / rate) for _ in range(count))


def show(args):
    """Print the table and draw the picture of an existing report."""
    report = files.read_json(args.url)
    records.validate(report, SCHEMA, args.url)
    if not report["rates"]:
        raise InputError(f"{args.url} has no rates: it was interrupted before the first answer")
    checks.check_places(args.plot)
    tell(report)
    if args.plot:
        load_report.draw(report, Path(args.plot).resolve())
        say(f"written: {files.display(args.plot)}")


def run(args):
    """Measure every rate in turn; returns the exit code. Raises InputError."""
    prompts = read_prompts(args.prompts)
    checks.check_places(args.output, args.plot)
    client = openloop.Client(args.url, args.timeout, os.environ.get("OPENAI_API_KEY", ""))
    report = begun(args, prompts, args.model or client.model())
    endpoint, blocks = report["endpoint"], report["rates"]
    bodies = [body(args, report["model"], text) for text in prompts]
    client.warm_up(endpoint, bodies[0])
    requests_at = lambda rate: max(1, round(rate * args.seconds)) if args.seconds else args.requests or 200  # noqa: E731
    rates = (
        [args.ramp * 2**i for i in range(1 + max(0, int(math.log2(TOP / args.ramp))))]
        if args.ramp
        else args.rates or RATES
    )
    if not args.ramp:
        seconds = sum(requests_at(rate) / rate for rate in rates)
        say(f"{report['model']}: {sum(map(requests_at, rates))} requests in {console.duration(seconds)} or more")
    for rate in rates:
        due = schedule(args.arrivals, rate, requests_at(rate), args.seed)
        bar = console.progress(len(due), f"{rate:g} requests/s", unit="request")
        ask = lambda i: client.ask(endpoint, bodies[i % len(bodies)])  # noqa: E731
        outcomes, broken_off = openloop.offer(ask, due, bar.update)
        bar.close()
        if outcomes:
            blocks.append(load_report.measured(rate, len(due), due, outcomes, broken_off, args.price_per_hour))
            keep(args, report)
        if broken_off or (args.ramp and load_report.overload(blocks[-1], args.max_p90)):
            break
    if args.ramp and not broken_off:
        report["saturation"] = load_report.saturation(blocks, args.max_p90)
    report["status"] = "interrupted" if broken_off else "done"
    finish(args, report)
    return broken_off.code if broken_off else console.DONE


def begun(args, prompts, model):
    """The report before any measurement; its status is "interrupted" until the end."""
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
    prompt = {"messages": [{"role": "user", "content": text}]} if args.chat else {"prompt": text}
    return json.dumps({"model": model, **prompt, "max_tokens": args.max_tokens, "temperature": 0}).encode()


def keep(args, report):
    if args.output:
        records.validate(files.finite(report), SCHEMA, args.output)
        files.write_json(args.output, report)


def tell(report):
    """Print the table, and where a ramp ended."""
    if report["rates"]:
        say(console.columns(load_report.rows(report["rates"])))
    if report["saturation"]:
        say(load_report.in_words(report["saturation"]))


def finish(args, report):
    """Print the table and where a ramp ended, and write the files."""
    report["finished_at"] = records.now()
    tell(report)
    keep(args, report)
    if args.plot and report["rates"]:
        load_report.draw(report, Path(args.plot).resolve())
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
        help="http://host:port of the server, with or without /v1; or the report.json to show",
    )
    load_options = parser.add_argument_group("load")
    rate_options = load_options.add_mutually_exclusive_group()
    rate_options.add_argument(
        "--rates", nargs="+", type=flags.positive(float), metavar="R", help="requests a second (default: 1 2 4 8)"
    )
    rate_options.add_argument(
        "--ramp", nargs="?", type=flags.positive(float), const=1.0, metavar="R",
        help="double the rate, from R (default: 1), until the server completes less than 90 %% of the load or its p90 "
        "latency is above --max_p90",
    )  # fmt: skip
    load_options.add_argument(
        "--max_p90",
        type=flags.positive(float),
        default=10,
        metavar="S",
        help="p90 latency in seconds that ends a ramp (default: 10)",
    )
    size_options = load_options.add_mutually_exclusive_group()
    size_options.add_argument("--requests", type=flags.positive(int), metavar="N", help="at each rate (default: 200)")
    size_options.add_argument(
        "--seconds", type=flags.positive(float), metavar="S", help="at each rate, instead of a number"
    )
    load_options.add_argument("--arrivals", choices=["poisson", "even"], default="poisson", help="(default: poisson)")
    load_options.add_argument("--seed", type=flags.seed, default=42, metavar="N", help="of the arrivals (default: 42)")
    load_options.add_argument(
        "--timeout", type=flags.positive(float), default=60, metavar="S", help="seconds without a byte (default: 60)"
    )
    request_options = parser.add_argument_group("requests")
    request_options.add_argument("--model", metavar="NAME", help="(default: the first that the server names)")
    request_options.add_argument("--chat", action="store_true", help="use /v1/chat/completions, not /v1/completions")
    request_options.add_argument(
        "--prompts", default="sample", metavar="FILE", help='jsonl with "prompt" or "text" a line (default: the sample)'
    )
    request_options.add_argument(
        "--max_tokens", type=flags.positive(int), default=32, metavar="N", help="of an answer (default: 32)"
    )
    output_options = parser.add_argument_group("results")
    output_options.add_argument(
        "--price_per_hour",
        type=flags.positive(float),
        metavar="USD",
        help="of the machine, for the cost (default: unknown)",
    )
    output_options.add_argument("--output", metavar="FILE", help="write all figures there, as JSON")
    output_options.add_argument("--plot", type=svg, metavar="FILE.svg", help="draw load and latencies there")
    args = parser.parse_args(words)
    if Path(args.url).suffix == ".json" and "://" not in args.url:
        return show(args)
    return run(args)
