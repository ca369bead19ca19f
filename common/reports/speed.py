"""Tables of the benchmarks and of the load test, from their JSON files in assets/."""

import re

from common import files
from common.reports import cells
from common.reports.cells import NOTHING

ASSETS = files.ROOT / "assets"
PART = re.compile(r" \(a run: (\d+)\)")  # the number of rows of each run, in a line's text


def asset(name):
    """The value of a JSON file in assets/; None if there is no such file."""
    return files.read_json(ASSETS / name) if (ASSETS / name).is_file() else None


def benchmarks(_):
    """The figures of `python -m common bench`, a row for each comparison, and beneath them their conditions."""
    body, notes = [], []
    parts = (asset("bench.json") or {}).values()
    for part in sorted(parts, key=lambda part: part["command"].split()[0]):
        if not part["lines"]:  # a part of `steps`
            continue
        how = [part["dtype"]] if " --dtype " in part["command"] else []
        how += ["tuned model"] if " --experiment_dir " in part["command"] else []
        how = f" ({', '.join(how)})" if how else ""
        for line in part["lines"]:
            low, high = line["ratios"]
            ratio = f"{line['ratio']:.3g}" + (f" ({low:.3g} to {high:.3g})" if low < high else "")
            sides = [amount(line[side], line["unit"]) for side in ("plain", "here")]
            body.append([cells.markdown(PART.sub("", line["what"]) + how), *sides, ratio])
        notes.append(conditions(part))
    if not body:
        return "Not measured yet: `python -m common bench`.\n"
    return "\n".join([cells.table(["compared with", "theirs", "here", "ratio"], body), *notes]) + "\n"


def steps(_):
    """Where the time of a training step goes, and what passes before the first one ends, in seconds."""
    parts = (asset("bench.json") or {}).values()
    body, notes = [], []
    for part in parts:
        if step := part.get("step"):
            shares = sorted(step["parts"].items(), key=lambda item: -item[1])
            body = [[cells.markdown(n), f"{spent:.2f} s", f"{spent / step['seconds']:.1%}"] for n, spent in shares]
            notes.append(conditions(part))
        if start := part.get("start"):
            spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in start.items())
            notes.append(f"From the command to the end of the first step: {cells.markdown(spent)}.  ")
            notes.append(conditions(part))
    if not body:
        return "Not measured yet: `python -m common bench step`.\n"
    return "\n".join([cells.table(["part of a training step", "time", "share"], body), *notes]) + "\n"


def conditions(part):
    """The command, device and date of a part of the benchmark, and how far the two sides agreed."""
    runs = f"medians of {part['runs']} runs" if part["runs"] > 1 else "one run"
    share_of_rows = PART.search(part["lines"][0]["what"]) if part["lines"] else None
    runs += f" on {share_of_rows[1]} of the rows each" if share_of_rows else ""
    words = [f"`python -m common bench {part['command']}`: {runs}, {part['date']}"]
    words += [f"{part['device']}, {part['cores']} cores", part["dtype"]]
    for key, title in (("same_choice", "same label as"), ("same_text", "same text as"), ("accuracy", "accuracy")):
        words += [f"{title} {other} {share:.1%}" for other, share in part.get(key, {}).items()]
    for other, most in part.get("largest_difference", {}).items():
        words.append(f"scores differ from {other} by {most:.1e} at most")
    return "; ".join(words) + ".  "


def amount(value, unit):
    """A figure with its unit, rounded."""
    for size, prefix in ((1e12, "T"), (1e9, "G")):
        if unit == "FLOP/s" and value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def cards(_):
    """The figures of `python -m common bench gpu`, a row for each cell and side."""
    measured = asset("bench_gpu.json")
    if measured is None:
        return "Not measured yet: `python -m common bench gpu` takes a CUDA card.\n"
    body = []
    for cell, sides in measured["cells"].items():
        for side, figures in sides.items():
            if "error" in figures:
                shown = [figures["error"], NOTHING, NOTHING]
            else:
                speed, peak = figures["tokens_per_second"], figures["peak_bytes"]
                shown = [f"{speed:,.0f}", f"{figures['mfu']:.0%}", f"{peak / 1e9:.1f} GB"]
            body.append([cells.markdown(cell), cells.markdown(side), *shown])
    head = ["model, method, row", "side", "tokens/s", "of the card's matrix-product rate", "peak memory"]
    note = f"{measured['card']}, {measured['date']}, medians of {measured['runs']} runs: `python -m common bench gpu`."
    return f"{cells.table(head, body)}\n{cells.markdown(note).replace('&#96;', '`')}\n"


def load(_):
    """The load test's rates, latencies and cost, and the rate at which the server saturated."""
    report = asset("loadtest.json")
    if report is None:
        return "Not measured yet: `python -m common loadtest`.\n"
    head = ["offered/s", "completed/s", "sent", "failed", "p50 / p90 / p99, s", "tokens/s", "USD / 1,000 tokens"]
    body = []
    for block in report["rates"]:
        latencies = [block["latency_s"][name] for name in ("p50", "p90", "p99")]
        body.append(
            [
                f"{block['offered_per_s']:.2f}",
                f"{block['completed_per_s']:.2f}",
                str(block["sent"]),
                str(block["failed"]),
                " / ".join(NOTHING if latency is None else f"{latency:.1f}" for latency in latencies),
                NOTHING if block["tokens_per_s"] is None else f"{block['tokens_per_s']:.1f}",
                NOTHING if block["usd_per_1000_tokens"] is None else f"{block['usd_per_1000_tokens']:.6f}",
            ]
        )
    text, ramp = cells.table(head, body), report["saturation"]
    if ramp:
        outcome = f"saturated at {ramp['rate']:g} requests/s" if ramp["rate"] else "not saturated"
        sustained = NOTHING if ramp["sustained_rate"] is None else f"{ramp['sustained_rate']:g}"
        text += f"\n{outcome}: {cells.markdown(ramp['reason'])}; highest rate that it kept up with: {sustained}\n"
    return text


def stress(_):
    """What came of the requests of many clients, slow and broken ones among them, and what the server's memory did."""
    found = asset("stress.json")
    if found is None:
        return "Not measured yet: `make stress`.\n"
    body = [
        [cells.markdown(kind), f"{sum(came.values()):,}", ", ".join(f"{name} {n:,}" for name, n in came.items())]
        for kind, came in found["requests"].items()
    ]
    latencies = " / ".join(f"{found['latency_s'][name]:.1f}" for name in ("p50", "p90", "p99"))
    memory, opened = found["memory_mb"].values(), found["open_files"].values()
    note = [
        f"`{found['command']}`: {found['device']}, {found['date']}",
        f"right answers after {latencies} s (p50 / p90 / p99)",
        "memory at most {:,.0f} MB in the first third, {:,.0f} MB in the last".format(*memory),
        "open files at most {}, afterwards {}".format(*opened),
    ]
    return f"{cells.table(['requests', 'sent', 'what came of them'], body)}\n{'; '.join(note)}.\n"
