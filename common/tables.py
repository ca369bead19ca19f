"""Tables from records: `python -m common.tables [FOLDER…] [--check]` rewrites what stands between
`<!-- table:NAME -->` and `<!-- /table -->` in the README of each folder, and in the front README.

NAME is a table of the folder's published.csv (published figures with what is known to be wrong with them,
measured ones beside them), or one of GENERATED or FRONT below. No number in a README is typed by hand.
"""

import re
import sys

from common import bench, bench_gpu, budget, flags, folders, loadtest, metrics, plots, records
from common.console import InputError, columns, duration, exit_code, say

THINNED = re.compile(r"^max_train_samples=(\d+) ?")
MARKERS = re.compile(r"(<!-- table:([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
TASKS = {
    "newsgroup-classification": "classification",
    "samsum-summarization": "summarization",
    "imdb-sentiment": "sentiment",
    "alpaca-instructions": "instructions",
}
SHOWN = {
    "classification": ["accuracy", "macro_f1"],
    "summarization": ["rouge1", "rouge2", "rougeL"],
    "sentiment": ["accuracy", "accuracy_negative", "accuracy_positive"],
    "instructions": ["rouge1", "bleu", "bertscore_f1", "length"],
}
ECHOED = {"bleu": "BLEU", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
ECHOED |= {"bertscore_f1": "BERTScore F1", "length": "words"}
TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "accuracy_negative": "accuracy, negative",
    "accuracy_positive": "accuracy, positive",
    "precision": "precision",
    "recall": "recall",
    "generated_accuracy": "wrote: accuracy",
    "generated_precision": "wrote: precision",
    "generated_recall": "wrote: recall",
    "bleu": "BLEU",
    "bertscore_f1": "BERTScore F1",
    "length": "words",
    "human": "human",
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    **{f"echo_{name}": f"echo: {title}" for name, title in ECHOED.items()},
    "stopped": "ended on its own",
    "train_hours": "hours of training",
    "train_cost_usd": "cost of training, USD",
    "usd_per_1k_tokens": "USD per 1,000 tokens",
    "max_rps": "offered requests/s",
    "throughput_rps": "answered requests/s",
    "latency_p90_s": "latency p90, s",
    **{f"generated_{name}": f"wrote: {name.replace('_', ' ')}" for name in metrics.OUTCOMES},
}


def figure(metric):
    """36.90 [35.10, 38.70], or - where there is none."""
    if not metric or metric["value"] is None:
        return "-"
    if metric["ci95"] is None:
        return f"{metric['value']:.2f}"
    low, high = metric["ci95"]
    return f"{metric['value']:.2f} [{low:.2f}, {high:.2f}]"


def small(record):
    """Before and after of one record, for the terminal."""
    before = record["metrics_before"]
    rows = [["metric (%, 95 % interval)", *(["base"] if before else []), "tuned" if record["training"] else "model"]]
    for name, metric in record["metrics"].items():
        rows.append([TITLES.get(name, name), *([figure(before.get(name))] if before else []), figure(metric)])
    seconds = record["training"]["seconds"] if record["training"] else None
    tail = [f"{record['data']['n_test']} test rows of {record['data']['source']}, checkpoint {record['checkpoint']}"]
    if seconds is not None:
        tail.append(
            f"trained on {record['data']['n_train']} rows in {duration(seconds)}, "
            f"{record['training']['tokens_per_second']:.0f} tokens/s, peak {gigabytes(record)}"
        )
    generated = metrics.counts(record["metrics"])
    if generated:
        tail.append(f"free generation, rows: {generated}")
    for stage, found in (record["confusion"] or {}).items():
        if len(found["labels"]) == 2:
            tail += ["", columns([[stage, "precision", "recall", "F1", "rows"], *metrics.report(found)])]
    return "\n".join(["", columns(rows), *tail, ""])


def gigabytes(record):
    peak = (record["training"] or {}).get("peak_memory_bytes")
    return f"{peak / 1e9:.1f} GB" if peak else "-"


def markdown(rows):
    """Rows of strings as a Markdown table, the first row being the head; aligned, so that diffs are readable."""
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]) + "\n"


def published(folder, name, everyone):
    """A table of published.csv: its `row` and `column` values span the published figures. Beside them stand,
    for the same model, method and setting, the figures measured with the model itself and with each
    stand-in checkpoint that has a record in this folder."""
    cells = [line for line in folder.published if line["table"] == name]
    if not cells:
        raise InputError(f"{folder.path.name}/published.csv has no table {name}")
    rows, titles = unique(line["row"] for line in cells), unique(line["column"] for line in cells)
    cell = {(line["row"], line["column"]): line for line in cells}
    # Two published columns can be about one experiment (told in two places): it is measured once.
    experiments = {}
    for title in titles:
        lines = [cell.get((row, title)) for row in rows]
        experiments.setdefault(tuple(identity(line) for line in lines), (title, lines))
    stand_ins = sorted(
        {r["checkpoint"] for r in folder.records if r["checkpoint"] not in folder.checkpoints and matches(r, cells)}
    )
    notes = unique(line["note"] for line in cells if line["note"])
    told = [title for title in titles if any(c["value"] or c["note"] for c in cells if c["column"] == title)]
    head = [cells[0]["head"], *(f"published: {title}" for title in told)]
    body = [[row, *(quoted(cell.get((row, title)), notes) for title in told)] for row in rows]
    for title, lines in experiments.values():
        metrics_of = unique(line["metric"].removeprefix("echo_") for line in lines if line)
        metric = TITLES[metrics_of[0]] if len(metrics_of) == 1 else title
        several = len({identity(next(filter(None, lines)))[:3] for _, lines in experiments.values()}) > 1
        more = {f"measured: {title if several else metric}": [measured(line, everyone, None) for line in lines]}
        for each in stand_ins:
            found = [measured(line, [folder], each) for line in lines]
            if set(found) != {"-"}:
                more[f"{each} instead: {title if several else metric}"] = found
        head += more
        for i, row in enumerate(body):
            row += [column[i] for column in more.values()]
    legend = "".join(f"\n<sup>{letter(i)}</sup> {note}  " for i, note in enumerate(notes))
    dagger = "\n† not to be relied on, for the reason given.  " if any(line["suspect"] for line in cells) else ""
    homes = unique(line["home"] for line in cells if line["home"] != folder.path.name)
    links = ", ".join(f"[{home}](../{home}/README.md)" for home in homes)
    cited = f"\nOther models' figures are cited; they are at home in {links}.  " if homes else ""
    return markdown([head, *body]) + f"{dagger}{legend}{cited}\n"


def identity(line):
    return (line["model"], line["method"], line["setting"], line["metric"]) if line else None


def quoted(line, notes):
    """A published figure with its mark, - where there is none."""
    if not line:
        return "-"
    mark = f" <sup>{letter(notes.index(line['note']))}</sup>" if line["note"] else ""
    return (line["value"] or "-") + (" †" if line["suspect"] else "") + mark


def letter(i):
    return "abcdefghijklmnopqrstuvwxyz"[i]


def unique(values):
    return list(dict.fromkeys(values))


def matches(record, cells):
    """Whether a record is of one of the experiments in `cells`. Where a row says nothing of the number of training
    rows, a run on some of them will do, and `found_in` says on how many."""
    setting = re.sub(THINNED, "", record["setting"])
    return any(
        record["task"] == TASKS[c["study"]]
        and (record["model"].lower(), record["method"], setting)
        == (c["model"], c["method"].replace("before", "qlora"), c["setting"].partition("epoch=")[0])
        for c in cells
    )


def measured(line, places, stand_in):
    """The figure measured for one published one: with the row's own model, or with a stand-in checkpoint.

    - where there is none. Of several records with the same key the one with most test rows counts, then the one with
    most training rows, then the newest.
    """
    if not line:
        return "-"
    found = [
        record
        for folder in places
        for record in folder.records
        if matches(record, [line]) and record["checkpoint"] in ({stand_in} if stand_in else folder.checkpoints)
    ]
    if not found:
        return "-"
    best = max(found, key=lambda r: (r["data"]["n_test"], r["data"]["n_train"], r["finished_at"]))
    return found_in(best, line)


def found_in(record, line):
    """A record's figure for a line of a published table: a score, of the base model where the method is "before",
    an epoch's loss, or what the run took."""
    metric, epoch = line["metric"], line["setting"].partition("epoch=")[2]
    if epoch and metric.endswith("_loss"):
        return epoch_loss(record["training"], int(epoch), metric)
    if metric == "human":
        return human(record)
    device = record["environment"]["device"]
    if metric == "train_hours":
        seconds = (record["training"] or {}).get("seconds")
        return "-" if seconds is None else f"{seconds / 3600:.2f}, {device}"
    if metric == "train_cost_usd":
        return "-" if record["cost"]["usd"] is None else f"{record['cost']['usd']:.3f}, {device}"
    before = line["method"] == "before"
    scores = record["metrics_before"] if before else record["metrics"]
    score = figure((scores or {}).get(metric))
    thinned = THINNED.match(record["setting"])  # of what was trained: a script that uses it counts all rows
    some = f", trained on {min(int(thinned[1]), record['data']['n_train'])}" if thinned and not before else ""
    return score if score == "-" else f"{score}, n = {record['data']['n_test']}{some}"


def human(record):
    """3.90 [3.55, 4.25] of 5, 20 ratings by 2, alpha 0.61: what people said of a record's answers."""
    score = record["human"]
    if score["value"] is None:
        return "-"
    agreed = f" by {score['raters']}, alpha {score['alpha']:.2f}" if score["alpha"] is not None else ""
    return f"{figure(score)} of 5, {score['ratings']} ratings{agreed}"


def epoch_loss(training, epoch, metric):
    """Mean training loss over an epoch's steps, or the loss on the validation rows after it."""
    found = (training or {}).get("validation") or []
    if epoch > len(found):
        return "-"
    if metric == "validation_loss":
        return f"{found[epoch - 1]['loss']:.4f}"
    steps = len(training["losses"]) // len(found)
    losses = training["losses"][(epoch - 1) * steps : epoch * steps]
    return f"{sum(losses) / len(losses):.4f}"


def trained_on(record):
    return f"{record['data']['n_train']} rows, {record['settings']['epochs']:g} epochs" if record["training"] else "-"


def stages(record):
    """(metrics of the base model, metrics of the tuned one), None where the record has none: a script that trains has
    both or the second, one that uses what was trained the second, a baseline the first."""
    if record["training"] or "lora_r" in record["settings"]:
        return record["metrics_before"], record["metrics"]
    return record["metrics"], None


def called(record):
    """Method and setting, but for the number of training rows, which stands beside it."""
    told = ("max_train_samples", "train_sample_fraction")
    return " ".join([record["method"], *(part for part in record["setting"].split() if not part.startswith(told))])


def scores(folder, task):
    """Every record of one task: base and tuned, with intervals."""
    found = sorted((r for r in folder.records if r["task"] == task), key=called)
    head = ["method", "checkpoint", "trained on", "scored on"]
    for name in SHOWN[task]:
        head += [f"{TITLES[name]}, base", f"{TITLES[name]}, tuned"]
    head += ["human"] * (task == "instructions")
    body = []
    for record in found:
        row = [called(record), record["checkpoint"], trained_on(record), f"{record['data']['n_test']} rows"]
        base, tuned = stages(record)
        for name in SHOWN[task]:
            row += [figure((base or {}).get(name)), figure((tuned or {}).get(name))]
        row += [human(record)] * (task == "instructions")
        body.append(row)
    return markdown([head, *(body or [["-"] * len(head)])])


def report(folder):
    """Precision, recall and F1 of each class, from the confusion matrices of the sentiment records."""
    head = ["method", "checkpoint", "model", "class", "precision", "recall", "F1", "rows"]
    body = []
    for record in folder.records:
        if record["task"] == "sentiment":
            for stage, found in (record.get("confusion") or {}).items():
                body += [[called(record), record["checkpoint"], stage, *line] for line in metrics.report(found)]
    return markdown([head, *(body or [["-"] * len(head)])])


def generated(folder):
    """What free generation wrote where a class name was wanted, in rows."""
    head = ["method", "checkpoint", "model", "n", *(name.replace("_", " ") for name in metrics.OUTCOMES)]
    body = []
    for record in folder.records:
        if record["task"] != "classification":
            continue
        for stage, found in zip(("base", "tuned"), stages(record), strict=True):
            if found:
                each = [found.get(f"generated_{name}") for name in metrics.OUTCOMES]
                counts = [str(round(m["value"] * m["n"] / 100)) if m and m["value"] is not None else "-" for m in each]
                n = str(each[0]["n"]) if each[0] else "-"
                body.append([called(record), record["checkpoint"], stage, n, *counts])
    return markdown([head, *(body or [["-"] * len(head)])])


def cost(folder):
    """Time, memory and money of every record: the other three pillars."""
    head = ["task", "method", "checkpoint", "device", "training", "tokens/s", "loss", "peak memory"]
    head += ["scoring, rows/s", "latency p50 / p90", "cost"]
    body = []
    for record in folder.records:
        train, test = record["training"] or {}, record["inference"]
        waits = [
            f"{test[name]:.1f} s" if test[name] is not None else "-" for name in ("latency_p50_s", "latency_p90_s")
        ]
        usd = record["cost"]["usd"]
        body.append(
            [
                record["task"],
                called(record),
                record["checkpoint"],
                f"{record['environment']['device']}, {record['environment']['cpu_count']} cores",
                duration(train["seconds"]) if train.get("seconds") is not None else "-",
                f"{train['tokens_per_second']:.0f}" if train.get("tokens_per_second") is not None else "-",
                f"{train['loss']:.3f}" if train.get("loss") is not None else "-",
                gigabytes(record),
                f"{test['samples_per_second']:.2f}" if test["samples_per_second"] else "-",
                " / ".join(waits),
                f"{usd:.4f} USD" if usd is not None else "-",
            ]
        )
    return markdown([head, *(body or [["-"] * len(head)])])


def front(everyone):
    """The front README: every fine-tuning record, base against tuned."""
    rows = [["folder", "task", "checkpoint", "trained on", "scored on", "metric", "base model", "tuned", "training"]]
    for folder in everyone:
        for record in folder.records:
            if record["training"]:
                name = SHOWN[record["task"]][0]
                rows.append(
                    [
                        f"[{folder.path.name}]({folder.path.name}/README.md)",
                        f"{record['task']}, {record['method']}",
                        record["checkpoint"],
                        trained_on(record),
                        f"{record['data']['n_test']} rows",
                        TITLES[name],
                        figure((record["metrics_before"] or {}).get(name)),
                        figure(record["metrics"].get(name)),
                        duration(record["training"]["seconds"]) if record["training"]["seconds"] is not None else "-",
                    ]
                )
    return markdown(rows)


def sentiment(everyone):
    """The front README: the IMDB study in one table."""
    head = ["folder", "method", "checkpoint", "trained on", "scored on", "accuracy", "training", "scoring", "cost"]
    rows = [head]
    for folder in everyone:
        for record in folder.records:
            if record["task"] == "sentiment":
                train, test, usd = record["training"] or {}, record["inference"], record["cost"]["usd"]
                rows.append(
                    [
                        f"[{folder.path.name}]({folder.path.name}/README.md)",
                        called(record),
                        record["checkpoint"],
                        trained_on(record),
                        f"{record['data']['n_test']} rows",
                        figure(record["metrics"].get("accuracy")),
                        duration(train["seconds"]) if train.get("seconds") is not None else "-",
                        duration(test["seconds"]) if test["seconds"] is not None else "-",
                        f"{usd:.4f} USD" if usd is not None else "-",
                    ]
                )
    return markdown(rows if len(rows) > 1 else [*rows, ["-"] * len(head)])


def models(everyone):
    """The front README: one row a model folder."""
    head = ["folder", "what it is", "licence", "checkpoints", "GPU memory to train / run"]
    tasks = {"classification": "20 Newsgroups, accuracy", "summarization": "SAMSum, ROUGE-1"}
    for title in tasks.values():
        head += [f"{title}: published", f"{title}: measured"]
    rows = [head]
    for folder in everyone:
        sizes = [
            f"[{v.name}](https://huggingface.co/{v.checkpoint}), {v.parameters / 1e9:.3g} B"
            for v in folder.facts.VARIANTS
        ]
        memory = [
            f"{budget.peak_of_defaults(v) / 1e9:.0f} / {v.memory_to_run / 1e9:g} GB" for v in folder.facts.VARIANTS
        ]
        row = [f"[{folder.path.name}]({folder.path.name}/README.md)", folder.facts.WHAT, folder.facts.LICENSE]
        row += ["<br>".join(sizes), "<br>".join(memory)]
        for task in tasks:
            row += [best_published(folder, task), best_measured(folder, task)]
        rows.append(row)
    return markdown(rows)


def budgets(everyone):
    """The front README: what every model folder's first checkpoint takes to train at the folder's defaults."""
    head = ["folder", "checkpoint", "parameters", "weights", "adapter", "optimizer and gradients", "activations"]
    head += ["peak", f"fits {budget.CARD / 1e9:.0f} GB", f"training on {budget.REFERENCE}", "cost"]
    rows = [head]
    for folder in everyone:
        first = folder.facts.VARIANTS[0]
        found = budget.of_defaults(first)
        sizes = [found["weights"], found["adapter"], found["optimizer"] + found["gradients"], found["activations"]]
        rows.append(
            [
                f"[{folder.path.name}]({folder.path.name}/README.md)",
                first.name,
                f"{found['parameters'] / 1e9:.3g} B",
                *(f"{size / 1e9:.1f} GB" if size else "-" for size in [*sizes, found["peak"]]),
                "yes" if found["fits"] else "no",
                duration(found["seconds"]),
                f"{found['usd']:.2f} USD",
            ]
        )
    return markdown(rows)


def best_published(folder, task):
    """The highest published figure of the folder's own models: of those that can be relied on, else any."""
    own = {variant.name.lower() for variant in folder.facts.VARIANTS}
    metric = SHOWN[task][0]
    lines = [c for c in folder.published if TASKS[c["study"]] == task and c["metric"] == metric]
    lines = [c for c in lines if c["value"] and c["model"] in own]
    if not lines:
        return "-"
    best = max(lines, key=lambda line: (not line["suspect"], float(line["value"])))
    return f"{best['value']}{' †' if best['suspect'] else ''} ({best['model']}, {best['method']})"


def best_measured(folder, task):
    """The highest figure measured in the folder, with the checkpoint it was measured on."""
    found = [r for r in folder.records if r["task"] == task and figure(r["metrics"].get(SHOWN[task][0])) != "-"]
    if not found:
        return "-"
    best = max(found, key=lambda r: r["metrics"][SHOWN[task][0]]["value"])
    return f"{figure(best['metrics'][SHOWN[task][0]])} ({best['checkpoint']}, {best['method']})"


def benchmarks(_):
    """The figures of `make bench`, one line a comparison, and beneath them what they were taken on."""
    file = bench.RESULT
    rows, notes = [["compared with", "theirs", "here", "ratio"]], []
    kept = records.read(file) if file.is_file() else {}
    for part in kept.values():
        asked = f" ({part['dtype']})" if " --dtype " in part["command"] else ""
        for each in part["lines"]:
            rows.append([each["what"] + asked, *(amount(each[side], each["unit"]) for side in ("plain", "here"))])
            low, high = each["ratios"]
            rows[-1].append(f"{each['ratio']:.2f}" + (f" ({low:.2f} to {high:.2f})" if low < high else ""))
        runs = f"medians of {part['runs']} runs" if part["runs"] > 1 else "one run"
        said = [f"`python -m common.bench {part['command']}`: {runs}, {part['date']}"]
        said += [f"{part['device']}, {part['cores']} cores", part["dtype"]]
        for key, title in (("same_choice", "same label as"), ("same_text", "same text as"), ("accuracy", "accuracy")):
            said += [f"{title} {other} {share:.1%}" for other, share in part.get(key, {}).items()]
        for other, most in part.get("largest_difference", {}).items():
            said.append(f"scores differ from {other} by {most:.1e} at most")
        if "outside" in part:
            said.append(f"{part['outside']:.0%} of the run here went by outside training and testing")
        notes.append("; ".join(said) + ".  ")
    return "\n".join(["", markdown(rows), *notes, ""]) if kept else "\n-\n"


def load(_):
    """The front page's load test: rates, latencies, cost, and where it saturated."""
    if not loadtest.SHOWN.is_file():
        return "\n-\n"
    report = records.read(loadtest.SHOWN)
    return "\n".join(["", markdown(loadtest.rows(report["rates"])), loadtest.told(report), ""])


def cards(_):
    """The figures of `make bench-gpu`, a line a cell and side."""
    file = bench_gpu.RESULT
    kept = records.read(file) if file.is_file() else {"cells": {}}
    rows = [["model, method, row", "", "tokens/s", "of the card's matrix-product rate", "peak memory"]]
    for cell in bench_gpu.cells():
        for side in bench_gpu.SIDES:
            found = kept["cells"].get(bench_gpu.key(*cell), {}).get(side, {})
            if "error" in found:
                shown = [found["error"], "-", "-"]
            elif found:
                speed, peak = found["tokens_per_second"], found["peak_bytes"]
                shown = [f"{speed:,.0f}", f"{found['mfu']:.0%}", f"{peak / 1e9:.1f} GB"]
            else:
                shown = ["-"] * 3
            rows.append([bench_gpu.key(*cell), side, *shown])
    said = (
        f"{kept['card']}, {kept['date']}, medians of {kept['runs']} runs"
        if file.is_file()
        else "No card was at hand yet"
    )
    return "\n".join(["", markdown(rows), f"{said}: `make bench-gpu`.", ""])


def amount(value, unit):
    """A figure with its unit, short."""
    for size, prefix in ((1e12, "T"), (1e9, "G")):
        if unit == "FLOP/s" and value >= size:
            return f"{value / size:.2f} {prefix}{unit}"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


GENERATED = {
    "scores-classification": lambda folder: scores(folder, "classification"),
    "scores-summarization": lambda folder: scores(folder, "summarization"),
    "scores-sentiment": lambda folder: scores(folder, "sentiment"),
    "scores-instructions": lambda folder: scores(folder, "instructions"),
    "generated": generated,
    "report": report,
    "cost": cost,
    "curves": lambda folder: plots.shown(folder, "curves"),
    "confusion": lambda folder: plots.shown(folder, "confusion"),
    "decoding": lambda folder: plots.shown(folder, "decoding"),
}
FRONT = {
    "front": front,
    "models": models,
    "budget": budgets,
    "sentiment": sentiment,
    "bench": benchmarks,
    "bench-gpu": cards,
    "loadtest": load,
}


def rendered(path, make):
    """The text of the README at `path` with every table made anew by `make(name)`."""
    text = path.read_text(encoding="utf-8")
    opened, found = text.count("<!-- table:"), MARKERS.findall(text)
    if len(found) != opened:
        raise InputError(f"{path}: a <!-- table:NAME --> without its <!-- /table -->")
    return MARKERS.sub(lambda match: f"{match[1]}\n{make(match[2])}\n{match[4]}", text)


def front_table(name, everyone):
    if name not in FRONT:
        raise InputError(f"there is no table {name} for README.md")
    return FRONT[name](everyone)


def folder_table(folder, name, everyone):
    return GENERATED[name](folder) if name in GENERATED else published(folder, name, everyone)


def main():
    parser = flags.Parser(description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="model folders (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a README is stale")
    args = parser.parse_args()
    everyone = folders.everyone()
    wanted = folders.named(args.folders, everyone)
    pages = [
        (folder.path / "README.md", lambda name, folder=folder: folder_table(folder, name, everyone))
        for folder in wanted
    ]
    pages.append((records.ROOT / "README.md", lambda name: front_table(name, everyone)))
    stale = []
    for path, make in pages:
        new = rendered(path, make)
        if new != path.read_text(encoding="utf-8"):
            stale.append(str(path.relative_to(records.ROOT)))
            if not args.check:
                path.write_text(new, encoding="utf-8")
    if args.check and stale:
        say(f"stale: {', '.join(stale)}; run python -m common.tables")
        raise SystemExit(1)
    say(f"{len(pages)} READMEs, {len(stale)} {'stale' if args.check else 'rewritten'}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
