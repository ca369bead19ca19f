"""The four data sets: where they come from, what is dropped, how they are split and thinned.

Whoever changes this file changes every table: all models see the same rows in the same order.
Source order: --data, then $DATA_DIR/<dataset>/<split>.parquet|jsonl|json|csv, then the hub; --demo uses the
sample that this repository ships.
"""

import hashlib
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from common.console import InputError, say

SAMPLE = Path(__file__).parent / "sample"
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
TARGETS = ("label_column", "summary_column", "answer_column")  # flags that name the column of the target
SPLIT_SEED = 42  # rows and subsets never depend on --seed, so that seeds differ in training alone

# shares: all rows that are found are pooled and split anew, into training, validation and test rows.
# Hub ids and pins in one place; None: no commit is known, and records then say @main. A data set that is gone
# from the hub is put into $DATA_DIR instead.
NEWSGROUPS = {
    "name": "newsgroup",
    "sample": "posts.jsonl",
    "hub": ("rungalileo/20_Newsgroups_Fixed", None),
    "text": "text",
    "target": "label",
}
SAMSUM = {
    "name": "samsum",
    "sample": "dialogues.jsonl",
    "hub": ("knkarthick/samsum", "6b929ff10edec703164e3ddb2e94aae058c9ab5f"),
    "text": "dialogue",
    "target": "summary",
}
IMDB = {
    "name": "imdb",
    "sample": "reviews.jsonl",
    "hub": ("stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
    "text": "text",
    "target": "label",
    "shares": (0.7, 0.1, 0.2),
}
ALPACA = {
    "name": "alpaca",
    "sample": "instructions.jsonl",
    "hub": ("tatsu-lab/alpaca", "dce01c9b08f87459cf36a430d809084718273017"),
    "text": "instruction",
    "target": "output",
    "input": "input",
    "shares": (0.9, 0.0, 0.1),
}

# Of a task: the data set, and whether its targets are class names.
TASKS = {
    "classification": (NEWSGROUPS, True),
    "summarization": (SAMSUM, False),
    "sentiment": (IMDB, True),
    "instructions": (ALPACA, False),
}


@dataclass
class Data:
    """Rows `{"text": str, "target": str}` (Alpaca's also "input") of the splits, and their provenance."""

    name: str
    source: str
    train: list
    test: list
    labels: list  # sorted class names; empty where the target is free text
    dropped: dict  # reason -> rows
    validation: list = field(default_factory=list)  # for choosing an epoch; empty where nothing is chosen

    def summary(self):
        """The `data` block of a record; what prompting adds (truncated) is filled in while encoding."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": fingerprint(self.train + self.validation + self.test),
            "n_train": len(self.train),
            **({"n_validation": len(self.validation)} if self.validation else {}),
            "n_test": len(self.test),
            "truncated": None,
            "dropped": self.dropped,
        }


def load(dataset, args, labelled, limits=None):
    """Read, clean, thin one of the data sets above as the flags in `args` ask.

    `labelled`: targets are class names; rows of the class "None" are dropped and subsets are stratified.
    limits: rows to take where the flags name no number, {"train", "validation", "test"}; validation rows are else as
    thinned as the training rows.
    Scripts without --train_sample_fraction keep all training rows (examples of few-shot prompts come from
    them). Raises InputError for missing columns, empty or one-class data.
    """
    raw, source = read(dataset, args, labelled)
    dropped = {"empty": 0, "class None": 0, "also in test": 0, "duplicate": 0}
    test = clean(raw["test"], labelled, dropped)
    train = clean(raw["train"], labelled, dropped, taken={key(row) for row in test})
    validation = []
    if "shares" in dataset and not test:
        train, validation, test = split(train, dataset["shares"], labelled, dropped)
    labels = sorted({row["target"] for row in train}) if labelled else []
    if not train or not test:
        raise InputError(f"no rows left in {source} after dropping {dropped}")
    if labelled and len(labels) < 2:
        raise InputError(f"{source} has one class only ({labels[0]}): nothing to tell apart")
    unseen = {row["target"] for row in test} - set(labels) if labelled else set()
    if unseen:
        raise InputError(f"classes {sorted(unseen)} are in the test rows of {source}, not in the training rows")
    train, validation, test = (spread(rows, labelled) for rows in (train, validation, test))
    limits = limits or {}
    if "train_sample_fraction" in vars(args):
        full = len(train)
        train = train[: max(1, int(args.train_sample_fraction * full))]
        train = train[: args.max_train_samples or limits.get("train")]
        validation = validation[: limits.get("validation", -(-len(validation) * len(train) // full))]
    test = test[: args.max_test_samples or limits.get("test")]
    kept = {reason: n for reason, n in dropped.items() if n}
    data = Data(dataset["name"], source, train, test, labels, kept, validation)
    sizes = [f"{len(train)} training rows", *([f"{len(validation)} validation rows"] if validation else [])]
    say(f"data: {source}; {', '.join(sizes)}, {len(test)} test rows, dropped: {kept or 'none'}")
    return data


def split(rows, shares, labelled, dropped):
    """Pooled rows, each text once, as (training, validation, test) rows by `shares`, stratified, seed SPLIT_SEED."""
    unique = {key(row): row for row in reversed(rows)}  # of equal texts the first one stays
    dropped["duplicate"] = len(rows) - len(unique)
    ordered = spread(list(unique.values())[::-1], labelled)
    first, second = (round(sum(shares[:n]) * len(ordered)) for n in (1, 2))
    return ordered[:first], ordered[first:second], ordered[second:]


def read(dataset, args, labelled):
    """({"train": rows, "test": rows}, where they came from), with the columns renamed to text and target."""
    columns = {
        "text": args.text_column or dataset["text"],
        "target": next((vars(args)[name] for name in TARGETS if vars(args).get(name)), dataset["target"]),
    }
    if "input" in dataset:
        columns["input"] = dataset["input"]
    if args.data:
        return own(Path(args.data).expanduser(), columns, labelled)
    anew = "shares" in dataset  # the study pools all rows
    if args.demo:
        rows = split_by_column(SAMPLE / dataset["sample"], columns)
        return pooled(rows) if anew else rows, f"sample ({dataset['sample']})"
    if os.environ.get("DATA_DIR"):
        folder = Path(os.environ["DATA_DIR"]).expanduser() / dataset["name"]
        if folder.is_dir() and anew:
            files = [split_file(folder, (name,), needed=False) for name in ("train", "validation", "test")]
            rows = {file: table(file, columns) for file in files if file}
            names = ", ".join(file.name for file in rows)
            return pooled(rows), f"{dataset['name']} from DATA_DIR ({names}, split anew)"
        if folder.is_dir():
            return splits(folder, columns), f"{dataset['name']} from DATA_DIR ({describe(folder)})"
    rows, source = from_hub(dataset, columns)
    return pooled(rows) if anew else rows, source


def pooled(splits):
    """All rows as training rows, for `split` to divide."""
    return {"train": [row for rows in splits.values() for row in rows], "test": []}


def own(path, columns, labelled):
    """--data: a folder with train.* and test.*, or one file that is split 80/20, by class where there are classes."""
    if path.is_dir():
        return splits(path, columns), f"{path} ({describe(path)})"
    if not path.is_file():
        raise InputError(f"no file or folder {path} (--data)")
    rows = spread(table(path, columns), labelled)
    cut = max(1, round(len(rows) * 0.8))
    return {"train": rows[:cut], "test": rows[cut:]}, f"{path.name} (80/20 split, seed {SPLIT_SEED})"


def split_file(folder, names, needed=True):
    for name in names:
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    if not needed:
        return None
    raise InputError(f"{folder} has none of {', '.join(f'{n}.parquet|jsonl|json|csv' for n in names)}")


def describe(folder):
    """Says when the training rows come from the validation split because there is no train split."""
    return (
        f"train from {split_file(folder, ('train', 'validation')).name}, test from {split_file(folder, ('test',)).name}"
    )


def splits(folder, columns):
    return {
        "train": table(split_file(folder, ("train", "validation")), columns),
        "test": table(split_file(folder, ("test",)), columns),
    }


def split_by_column(path, columns):
    rows = table(path, {**columns, "split": "split"})
    return {split: [row for row in rows if row["split"] == split] for split in ("train", "test")}


def table(path, columns):
    """Rows of one csv, jsonl, json or parquet file as dictionaries. columns: name in the row -> column of
    the file. Missing texts become ''."""
    import pandas

    try:
        if path.suffix == ".parquet":
            frame = pandas.read_parquet(path)
        elif path.suffix == ".csv":
            # keep_default_na: the word "None" is a class of one data set, "NA" and "null" are ordinary words
            frame = pandas.read_csv(path, keep_default_na=False, dtype=str)
        elif path.suffix in (".json", ".jsonl"):
            frame = pandas.read_json(path, lines=path.suffix == ".jsonl", dtype=False, convert_dates=False)
        else:
            raise InputError(f"{path.name}: --data takes csv, jsonl, json or parquet")
    except (ValueError, OSError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    missing = [name for name in columns.values() if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path.name} has no column {' or '.join(missing)}; its columns are {', '.join(map(str, frame.columns))}; "
            "name yours with --text_column and --label_column, --summary_column or --answer_column"
        )
    frame = frame[list(columns.values())].astype(object)
    frame = frame.where(frame.notna(), "")
    frame.columns = list(columns)
    return [{name: str(value) for name, value in row.items()} for row in frame.to_dict("records")]


def from_hub(dataset, columns):
    """The pinned revision from the hub. Raises InputError where the hub cannot be reached."""
    name, revision = dataset["hub"]
    try:
        import datasets

        downloaded = datasets.load_dataset(name, revision=revision)
    except Exception as error:  # the libraries raise a dozen kinds for "not there" and "not reachable"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no data: DATA_DIR has no {dataset['name']}/ and the hub's {name} cannot be read ({reason[:120]}); "
            f"put train.parquet and test.parquet into $DATA_DIR/{dataset['name']}/, or use --data, or --demo"
        ) from None
    rows = {}
    for split in ("train", "test"):
        part = downloaded[split] if split in downloaded else downloaded["train"].select([])
        if "label" in part.features and hasattr(part.features["label"], "names"):
            names = [{"neg": "negative", "pos": "positive"}.get(n, n) for n in part.features["label"].names]
            part = part.cast_column("label", datasets.Value("int64"))
            part = part.add_column("name", [names[i] for i in part["label"]]).remove_columns("label")
            part = part.rename_column("name", "label")
        rows[split] = [{name: row[column] or "" for name, column in columns.items()} for row in part]
    return rows, f"hub {name}@{revision or 'main'}"


def key(row):
    """What makes two rows the same text: case and white space do not count."""
    return " ".join(f"{row['text']} {row.get('input', '')}".lower().split())


def clean(rows, labelled, dropped, taken=frozenset()):
    """Drop empty texts and targets, the class "None", and texts that are in `taken`; count each in `dropped`."""
    kept = []
    for row in rows:
        if not row["text"].strip() or not row["target"].strip():
            dropped["empty"] += 1
        elif labelled and row["target"].strip() == "None":
            dropped["class None"] += 1
        elif key(row) in taken:
            dropped["also in test"] += 1
        else:
            kept.append({**row, "text": row["text"].strip(), "target": row["target"].strip()})
    return kept


def spread(rows, labelled):
    """Shuffle so that every prefix is a stratified sample: subsets are nested by construction.

    Each class is shuffled; row after row the next one comes from the class that is furthest behind its
    share (the quota method of Balinski and Young), so every prefix has every class to within one row.
    """
    generator = random.Random(SPLIT_SEED)
    classes = {}
    for row in rows:
        classes.setdefault(row["target"] if labelled else None, []).append(row)
    for members in classes.values():
        generator.shuffle(members)
    taken, ordered = dict.fromkeys(classes, 0), []
    for size in range(1, len(rows) + 1):
        behind = [name for name in classes if taken[name] * len(rows) < len(classes[name]) * size]
        name = max(behind, key=lambda name: (len(classes[name]) / (taken[name] + 1), generator.random()))
        ordered.append(classes[name][taken[name]])
        taken[name] += 1
    return ordered


def fingerprint(rows):
    """sha256 over the rows in their order: two records with one fingerprint saw the same data."""
    digest = hashlib.sha256()
    for row in rows:
        for name in sorted(row):
            if name != "split":
                digest.update(f"{name}\0{row[name]}\0".encode())
    return digest.hexdigest()


def newsgroups(run):
    """20 Newsgroups, 20 classes, for 20-way classification."""
    return of_run(run, NEWSGROUPS, labelled=True)


def samsum(run):
    """SAMSum: messenger dialogues with one-sentence summaries."""
    return of_run(run, SAMSUM, labelled=False)


def imdb(run):
    """IMDB: movie reviews, negative or positive, 70/10/20."""
    return of_run(run, IMDB, labelled=True)


def alpaca(run):
    """Alpaca: instructions, some with an input, and what to answer; a tenth is held out."""
    return of_run(run, ALPACA, labelled=False)


def of_run(run, dataset, labelled):
    """The rows that a run's flags ask for; the run remembers which, so that it is not resumed on others."""
    data = load(dataset, run.args, labelled, vars(run.facts).get("ROWS", {}).get(run.task))
    run.data_sha256 = data.summary()["sha256"]
    return data


def of_task(run):
    """The data set of the task that --task_type names."""
    return of_run(run, *TASKS[run.task])


def at_hand(run):
    """Whether the run's rows can be read without the hub."""
    if run.args.data or run.args.demo:
        return True
    folder = os.environ.get("DATA_DIR")
    return bool(folder) and (Path(folder).expanduser() / TASKS[run.task][0]["name"]).is_dir()
