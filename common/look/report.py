"""What `look` found, as one dictionary (README.md has its fields) and as text for the terminal."""

from pathlib import Path

from common import console, metrics, splits
from common.look import kept

SHOWN = 10  # dropped rows, classes and conflicts in the terminal
CUT_TEXT = 600  # characters of an example's beginning and end in the terminal


def about(path, sources, choice, found):
    """The record without what models and baselines add. sources: {split: rowfiles.Source}; choice: guess.Choice; found:
    survey.Survey."""
    first = next(iter(sources.values()))
    sizes = sorted(found.classes.values())
    rare = [name for name, n in found.classes.items() if n < 10]
    alike = {}
    for name in found.classes:
        alike.setdefault(" ".join(name.lower().split()), []).append(name)
    return {
        "schema_version": kept.SCHEMA_VERSION,
        "written_by": kept.WRITER,
        "file": {
            "name": Path(path).absolute().name,
            "bytes": sum(source.path.stat().st_size for source in sources.values()),
            "format": first.format.removeprefix("."),
            "packed": first.compressed,
            "encoding": first.encoding,
            "delimiter": first.delimiter,
            "columns": first.columns,
        },
        "task": choice.task,
        "columns": {"text": choice.columns["text"], choice.role: choice.columns["target"]},
        "guessed": list(choice.guessed),
        "because": choice.because,
        "rows": {"read": found.read, "used": found.used, "unit": found.unit},
        "dropped": {"counts": found.dropped, "rows": found.listed},
        "duplicates": found.duplicates,
        "in_both_splits": found.in_both,
        "conflicts": found.conflicts,
        "classes": {
            "count": len(found.classes),
            "rows": found.classes,
            "largest_share": sizes[-1] / sum(sizes),
            "smallest": sizes[0],
            "below_10_rows": rare,
            "alike": [names for names in alike.values() if len(names) > 1],
        }
        if choice.labelled
        else None,
    }


def part(name, record):
    """One part of the record as text."""
    return PARTS[name](record)


def file(record):
    found, read = record["file"], record["rows"]["read"]
    kind = f"{found['format']}{', gz' if found['packed'] else ''}"
    mark = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
    kind += f", {found['encoding']}" if found["encoding"] else ""
    kind += f", delimiter {mark.get(found['delimiter'], found['delimiter'])}" if found["delimiter"] else ""
    size = f"{found['bytes'] / 1e6:,.1f} MB" if found["bytes"] >= 1e6 else f"{found['bytes'] / 1e3:.1f} kB"
    rows = ", ".join(f"{name}: {n:,}" for name, n in read.items()) if len(read) > 1 else f"{sum(read.values()):,}"
    return f"{found['name']}: {kind}, {size}, rows {rows}, columns {', '.join(found['columns'])}"


def columns(record):
    guessed = {"text": "--text_column", "target": flag_of(record), "task": "--task"}
    overrule = [flag for name, flag in guessed.items() if name in record["guessed"]]
    lines = [f"task     {record['task']}" + (" (guessed)" if "task" in record["guessed"] else "")]
    for role, column in record["columns"].items():
        by = " (guessed)" if ("text" if role == "text" else "target") in record["guessed"] else ""
        lines.append(f"{role:8} {column}{by}: {record['because'][column]}")
    if overrule:
        lines.append(f"         a wrong guess: {', '.join(overrule)} overrule it")
    return "\n".join(lines)


def flag_of(record):
    return "--" + next(role for role in record["columns"] if role != "text") + "_column"


def dropped(record):
    counts, unit = record["dropped"]["counts"], record["rows"]["unit"]
    total = sum(counts.values())
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.items()))
    lines = [f"dropped  {total:,} rows" + (f": {reasons}" if counts else "")]
    for row in record["dropped"]["rows"][:SHOWN]:
        why = f"{row['reason']} of {unit} {row['first']}" if "first" in row else row["reason"]
        lines.append(f"  {row.get('file', '')} {unit} {row[unit]}: {why}".replace("   ", "  "))
    listed = len(record["dropped"]["rows"])
    if total > SHOWN:
        lines.append(f"  … {total - SHOWN:,} more; FILE.look.json has {'all' if listed == total else f'{listed:,}'}")
    return "\n".join(lines)


def classes(record):
    found = record["classes"]
    if not found:
        return "classes  none: the target is free text"
    names, n = list(found["rows"].items()), sum(found["rows"].values())
    shown = names if len(names) <= SHOWN else names[: SHOWN - 2] + names[-2:]
    lines = [f"classes  {found['count']:,}; the largest has {found['largest_share']:.1%} of the rows"]
    for i, (name, count) in enumerate(shown):
        if len(names) > SHOWN and i == SHOWN - 2:
            lines.append(f"  … {len(names) - SHOWN:,} more classes")
        lines.append(f"  {count:>9,} {count / n:6.1%}  {console.one_line(name)[:80]}")
    if found["below_10_rows"]:
        rare = found["below_10_rows"]
        lines.append(f"  {len(rare)} classes have fewer than 10 rows: {', '.join(rare[:5])}" + (" …" * (len(rare) > 5)))
    if found["alike"]:
        lines.append("  classes that differ by case or blanks alone: " + "; ".join(map(" / ".join, found["alike"][:5])))
    return "\n".join(lines)


def doubles(record):
    """Duplicates, conflicts, and texts in several splits."""
    found, unit = record["conflicts"], record["rows"]["unit"]
    target = next(role for role in record["columns"] if role != "text")
    lines = [f"doubles  {record['duplicates']:,} rows repeat an earlier text (case and blanks do not count)"]
    many = {"label": "labels", "summary": "summaries", "answer": "answers"}[target]
    lines += [f"         {found['texts']:,} texts have different {many}, in {found['rows']:,} rows"]
    for rows in found["examples"][:3]:
        places = [f"{row.get('file', '')} {unit} {row[unit]}".strip() for row in rows]
        if target == "label":
            places = [f"{place} {row['label']}" for place, row in zip(places, rows, strict=True)]
        lines.append("  " + " | ".join(places))
    if len(record["rows"]["read"]) > 1:
        lines.append(f"         {record['in_both_splits']:,} texts are in more than one file: they stay test rows")
    else:
        lines.append("         0 texts in both splits: equal texts are one row before the split")
    return "\n".join(lines)


def split_lines(record):
    found = record["splits"]
    n = ", ".join(f"{rows:,} {name}" for name, rows in found["rows"].items() if rows)
    line = f"splits   {n}"
    if found["sampled"]:
        return (
            f"{line}: of a sample, because the rows are more than {kept.LOADED_ROWS:,} or {kept.LOADED_CHARACTERS:,} "
            f"characters; no split is kept, a training splits all rows with seed {splits.SPLIT_SEED}"
        )
    return line + (f", kept in {found['kept_in']}: later rows are trained on" if found["kept_in"] else "")


def baseline(found):
    """One baseline in a line."""
    names = [name for name in ("accuracy", "macro_f1", "rouge1", "rouge2", "rougeL") if name in found["metrics"]]
    scores = ", ".join(f"{metrics.TITLES.get(name, name)} {metrics.figure(found['metrics'][name])}" for name in names)
    return f"baseline {found['name']}: {scores}; {found['n']['test']:,} test rows, {found['seconds']:.1f} s"


def verdict(record):
    return f"         {record['verdict']}" if record["verdict"] else "         no baseline could be made"


def tokens(record):
    lines = []
    for each in record["tokens"]:
        text, target = each["text"], each["target"]
        line = (
            f"tokens   {each['checkpoint']}: text median {text['median']}, 90 % up to {text['p90']}, max {text['max']}"
        )
        if target:
            line += f"; target median {target['median']}, max {target['max']}"
        lines.append(f"{line}; {each['cut']:.1%} longer than {each['limit']} and cut (of {each['rows']:,} rows)")
    return "\n".join(lines)


def example(record):
    found = record["example"]
    prompt = found["prompt"]
    if len(prompt) > 2 * CUT_TEXT:
        prompt = f"{prompt[:CUT_TEXT]}\n[… {len(prompt) - 2 * CUT_TEXT:,} characters …]\n{prompt[-CUT_TEXT:]}"
    lines = [
        f"example  the first training row as {found['checkpoint']} reads it, {found['tokens'][0]} tokens, no loss:"
    ]
    lines += [f"  | {line}" for line in prompt.splitlines()]
    answer = found["answer"].replace("\n", "\\n")
    return "\n".join([*lines, f'  loss on: "{answer}" ({found["tokens"][1]} tokens)'])


def commands(record):
    lines = ["next"]
    for i, each in enumerate(record["commands"], 1):
        lines += [f"  {i}. {each['what']}: {expected(each)}", f"     {each['command']}"]
    return "\n".join(lines)


def expected(command):
    """Time, memory and place of a command, in words."""
    words = [f"about {console.duration(command['seconds'])}" if command["seconds"] else "time not known"]
    if command["whole_seconds"]:
        words.append(f"without the limits {console.duration(command['whole_seconds'])}")
    if command["memory_bytes"]:
        lack = " (more than there is: lower --batch_size or --max_document_tokens)" if command["fits"] is False else ""
        words.append(f"{command['memory_bytes'] / 1e9:.1f} GB of memory{lack}")
    if command["usd"] is not None:
        words.append(f"{command['usd']:.2f} USD")
    return ", ".join(words) + ("" if command["where"] == "here" else f", on {command['where']}")


PARTS = {
    "file": file,
    "columns": columns,
    "dropped": dropped,
    "classes": classes,
    "doubles": doubles,
    "splits": split_lines,
    "verdict": verdict,
    "tokens": tokens,
    "example": example,
    "commands": commands,
}
