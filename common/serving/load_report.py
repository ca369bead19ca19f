"""The report of a load test: the figures of each rate, where a ramp ended, the table and the picture."""

from common import files

KEEPS_UP = 0.9  # share of the offered load that a server must complete
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
COLOURS = ("#0b6e99", "#c2571a", "#5b5ea6")


def measured(rate, planned, due, outcomes, broken_off, price):
    """The report's block of one rate, as loadtest.schema.json describes it.

    rate: requests/s; planned: number of requests; due: seconds, from `loadtest.schedule`; outcomes: openloop.Outcome of
    each request sent, in the same order; broken_off: openloop.BrokenOff or None; price: USD an hour or None."""
    window = min(planned / rate, broken_off.seconds if broken_off else float("inf"))
    answered = [(due_at, o) for due_at, o in zip(due, outcomes, strict=False) if not o.failure]
    latencies = [o.ended - due_at for due_at, o in answered]
    first = min((o.ended for _, o in answered), default=0)
    in_window = [o for _, o in answered if o.ended <= first + window]
    tokens_known = all(o.tokens is not None for _, o in answered)
    tokens_per_s = sum(o.tokens for o in in_window) / window if tokens_known else None
    failures = [o.failure for o in outcomes if o.failure]
    assert len(outcomes) == len(answered) + len(failures), "a request was lost"
    return {
        "rate": rate,
        "window_s": window,
        "planned": planned,
        "sent": len(outcomes),
        "completed": len(answered),
        "failed": len(failures),
        "failures": {kind: failures.count(kind) for kind in sorted(set(failures))},
        "offered_per_s": len(outcomes) / window,
        "completed_per_s": len(in_window) / window,
        "latency_s": {name: percentile(latencies, share) for name, share in PERCENTILES.items()}
        | {"mean": sum(latencies) / len(latencies) if latencies else None, "max": max(latencies, default=None)},
        "completion_tokens": sum(o.tokens for _, o in answered) if tokens_known else None,
        "tokens_per_s": tokens_per_s,
        "usd_per_1000_tokens": cost(price, tokens_per_s),
        "client_lag_s": max((o.sent - due_at for due_at, o in zip(due, outcomes, strict=False)), default=None),
        "requests": {
            "scheduled_s": due[: len(outcomes)],
            "sent_s": [o.sent for o in outcomes],
            "latency_s": [None if o.failure else o.ended - due_at for due_at, o in zip(due, outcomes, strict=False)],
            "tokens": [o.tokens for o in outcomes],
            "failure": [o.failure for o in outcomes],
        },
    }


def percentile(values, percent):
    """The percentile `percent` (0 to 100) of a list, interpolated linearly as numpy does; None for an empty list."""
    if not values:
        return None
    values, position = sorted(values), (len(values) - 1) * percent / 100
    low = int(position)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (position - low)


def cost(price_per_hour, tokens_per_s):
    """USD for 1,000 completed tokens; None if the price or the tokens are unknown, or no request was completed."""
    return price_per_hour / (tokens_per_s * 3600) * 1000 if price_per_hour and tokens_per_s else None


def overload(block, max_p90):
    """The reason, in words, why the server did not keep up with a rate; None if it did. max_p90: seconds."""
    if block["completed_per_s"] < KEEPS_UP * block["offered_per_s"]:
        return f"completed {block['completed_per_s']:.2f} of {block['offered_per_s']:.2f} requests/s offered"
    if block["latency_s"]["p90"] > max_p90:
        return f"p90 of {block['latency_s']['p90']:.2f} s is beyond {max_p90:g} s"
    return None


def saturation(blocks, max_p90):
    """The report's `saturation` block: the rate that overloaded the server, and the highest one that did not."""
    reason = overload(blocks[-1], max_p90)
    sustained = [block["rate"] for block in blocks if not overload(block, max_p90)]
    return {
        "rate": blocks[-1]["rate"] if reason else None,
        "reason": reason or f"not reached up to {blocks[-1]['rate']:g} requests/s",
        "sustained_rate": max(sustained, default=None),
    }


def rows(blocks):
    """The table as lists of cells: the head, then a row for each rate."""
    head = ["rate", "offered/s", "completed/s", "sent", "failed", "p50 s", "p90 s", "p99 s", "tokens/s"]
    table = [[*head, "USD / 1,000 tokens"]]
    for block in blocks:
        kinds = ", ".join(f"{kind}: {n}" for kind, n in block["failures"].items())
        failed = f"{block['failed']} ({kinds})" if kinds else "0"
        latencies = [figure(block["latency_s"][name], ".3f") for name in PERCENTILES]
        rates = [f"{block['rate']:g}", f"{block['offered_per_s']:.2f}", f"{block['completed_per_s']:.2f}"]
        throughput = [figure(block["tokens_per_s"], ".1f"), figure(block["usd_per_1000_tokens"], ".6f")]
        table.append([*rates, str(block["sent"]), failed, *latencies, *throughput])
    return table


def figure(value, form):
    return "-" if value is None else format(value, form)


def in_words(saturation):
    where = f"saturated at {saturation['rate']:g} requests/s" if saturation["rate"] else "not saturated"
    sustained = figure(saturation["sustained_rate"], "g")
    return f"{where}: {saturation['reason']}; highest rate that it kept up with: {sustained}"


def draw(report, path):
    """Write an SVG with two panels over the offered load: the completed load, and the latency percentiles. Equal
    reports give equal bytes."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "loadtest", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style | {"axes.grid": True, "grid.alpha": 0.25}):
        picture = Figure(figsize=(7.2, 2.9), layout="constrained")
        load_axes, latency_axes = picture.subplots(1, 2)
        blocks = report["rates"]
        offered = [block["offered_per_s"] for block in blocks]
        completed = [block["completed_per_s"] for block in blocks]
        load_axes.plot(offered, offered, "--", color="grey", linewidth=0.9, label="offered")
        load_axes.plot(offered, completed, "o-", color=COLOURS[0], label="completed")
        load_axes.set(xlabel="offered requests/s", ylabel="completed requests/s")
        for name, colour in zip(PERCENTILES, COLOURS, strict=True):
            seconds = [float("nan") if (value := block["latency_s"][name]) is None else value for block in blocks]
            latency_axes.plot(offered, seconds, "o-", color=colour, label=name)
        latency_axes.set(xlabel="offered requests/s", ylabel="latency from the time due, s")
        for axis in (load_axes, latency_axes):
            axis.set_xscale("log", base=2)
            axis.set_xticks(offered, [f"{block['rate']:g}" for block in blocks])
            axis.set_ylim(bottom=0)
            axis.legend(frameon=False)
        model = report["model"].replace("$", r"\$")  # no mathematics
        title = f"{model}, {report['max_tokens']} tokens an answer, {report['arrivals']} arrivals"
        picture.suptitle(title, fontsize=10)
        svg_text = io.StringIO()
        picture.savefig(svg_text, format="svg", metadata={"Date": None})
    files.write_text(path, "\n".join(line.rstrip() for line in svg_text.getvalue().splitlines()) + "\n")
