"""The data sets: where their rows come from, which rows are dropped, how they are split and subsampled.

A change to this file changes every table: all models see the same rows in the same order. Rows come from `path` (own
data), else from the sample in this repository (`demo`), else from $DATA_DIR/<data set>/<split>.*, else from the hub.
"""

import functools
import hashlib
import os
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import checkpoints
from common.console import InputError, say
from common.rowfiles import split_file, table

SAMPLE = Path(__file__).parent / "sample"
SPLIT_SEED = 42  # rows and subsets never depend on --seed, so that seeds differ in training alone
MAX_CLASSES = 1000

# shares: all published rows are pooled and split anew into these shares of training, validation and test rows.
# hub: (id, commit); None: no commit is known, and records then say @main. A data set that is gone from the hub can be
# put into $DATA_DIR.
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

# task -> (data set, whether its targets are class names)
TASKS = {
    "classification": (NEWSGROUPS, True),
    "summarization": (SAMSUM, False),
    "sentiment": (IMDB, True),
    "instructions": (ALPACA, False),
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which rows a run uses. Subsampling comes after the splits, so that they stay the same."""

    path: str | None = None  # own data: a file, or a folder with train.*, test.* and optionally validation.*
    demo: bool = False  # the sample in this repository
    text_column: str | None = None  # None: the data set's own column
    target_column: str | None = None
    train_sample_fraction: float = 1.0  # 0 < f <= 1, stratified; smaller ones are subsets of larger ones
    max_train_samples: int | None = None
    max_validation_samples: int | None = None  # None: the same share as of the training rows
    max_test_samples: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Rows {"text": str, "target": str} (instructions also "input") of every split, and where they come from."""

    name: str  # of the data set or the own file, or "sample"
    source: str  # where the rows come from, in words
    kind: str  # "study", "own" or "sample"
    columns: dict  # {"text", "target"}: the columns that were read
    train: list
    validation: list = field(default_factory=list)  # for choosing an epoch
    test: list
    labels: list  # sorted class names; empty where the target is free text
    dropped: dict  # reason -> number of rows

    @property
    def n(self):
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    @functools.cached_property
    def sha256(self):
        """{split: digest or None}. Each split has its own: two records may share their test rows only."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: fingerprint(rows) if rows else None for split, rows in splits.items()}


def newsgroups(**rows):
    """20 Newsgroups, 20 classes, for 20-way classification. rows: fields of `Rows`."""
    return of_task("classification", **rows)


def samsum(**rows):
    """SAMSum: messenger dialogues with one-sentence summaries. rows: fields of `Rows`."""
    return of_task("summarization", **rows)


def imdb(**rows):
    """IMDB: movie reviews, negative or positive, 70/10/20. rows: fields of `Rows`."""
    return of_task("sentiment", **rows)


def alpaca(**rows):
    """Alpaca: instructions, some with an input, and what to answer; a tenth is held out. rows: fields of `Rows`."""
    return of_task("instructions", **rows)


def of_task(task, **rows):
    """The rows of a task, read once per process: equal arguments give the same object. rows: fields of `Rows`."""
    return _load_cached(task, Rows(**rows), os.environ.get("DATA_DIR"))


@functools.lru_cache(maxsize=4)
def _load_cached(task, rows, data_dir):
    return load(task, **asdict(rows))


def at_hand(task, path=None, demo=False):
    """Whether the rows can be read without the hub."""
    return path is not None or demo or of_data_dir(TASKS[task][0]) is not None


def load(task, **rows):
    """Read, clean, split and subsample the rows of a task or of own data. rows: fields of `Rows`.

    Where targets are class names, rows of the class "None" are dropped and subsets are stratified. Raises InputError
    for missing columns, for no rows, and for other than 2 to MAX_CLASSES classes.
    """
    (dataset, labelled), rows = TASKS[task], Rows(**rows)
    columns = columns_of(dataset, rows)
    raw, meta = read(dataset, rows, columns, labelled)
    source, dropped = meta["source"], {}
    resplit = "shares" in dataset and meta["kind"] != "own"
    if resplit:
        raw = {"train": [row for part in raw.values() for row in part], "test": []}
    test = clean(raw["test"], labelled, dropped)
    test_keys = {key(row): "also in test" for row in test}
    validation = clean(raw.get("validation", []), labelled, dropped, test_keys)
    train = clean(raw["train"], labelled, dropped, {key(row): "also in validation" for row in validation} | test_keys)
    if resplit:
        train, validation, test = split(train, dataset["shares"], labelled, dropped)
    if not train or not test:
        raise InputError(f"no rows left to {'test' if train else 'train'} on in {source}; dropped: {dropped or 'none'}")
    labels = classes(train, {"test": test, "validation": validation}, source) if labelled else []
    full_size, (train, validation, test) = len(train), (spread(part, labelled) for part in (train, validation, test))
    train = train[: max(1, int(rows.train_sample_fraction * full_size))][: rows.max_train_samples]
    same_share = -(-len(validation) * len(train) // full_size)  # rounded up
    validation = validation[: same_share if rows.max_validation_samples is None else rows.max_validation_samples]
    test, columns = test[: rows.max_test_samples], {name: columns[name] for name in ("text", "target")}
    data = Data(**meta, columns=columns, train=train, validation=validation, test=test, labels=labels, dropped=dropped)
    sizes = ", ".join(f"{n} {split} rows" for split, n in data.n.items() if n).replace("train ", "training ")
    say(f"data: {source}; {sizes}, dropped: {dropped or 'none'}")
    return data


def columns_of(dataset, rows):
    """{field of a row: column of the file}. Raises InputError for an empty name, or one column for two fields."""
    options = {"--data": rows.path, "--text_column": rows.text_column, "the target's column": rows.target_column}
    for flag in (name for name, value in options.items() if value is not None and not str(value).strip()):
        raise InputError(f"{flag}: an empty text names nothing")
    columns = {"text": rows.text_column or dataset["text"], "target": rows.target_column or dataset["target"]}
    if columns["text"] == columns["target"]:
        raise InputError(f"the column {columns['text']} cannot be both the text and the target: name two columns")
    if "input" in dataset and dataset["input"] not in columns.values():
        columns["input"] = dataset["input"]
    return columns


def classes(train, others, source):
    """Sorted classes of the training rows. Raises InputError for 1 or > MAX_CLASSES, or one that only `others` have."""
    labels = sorted({row["target"] for row in train})
    if len(labels) < 2:
        raise InputError(f"{source} has one class only ({labels[0]}): nothing to tell apart")
    if len(labels) > MAX_CLASSES:
        raise InputError(f"{source} has {len(labels)} classes, more than {MAX_CLASSES}: is it the column of the label?")
    for split_name, rows in others.items():
        unseen = sorted({row["target"] for row in rows} - set(labels))
        if unseen:
            raise InputError(f"class {unseen[0]!r} is in the {split_name} rows of {source}, not in the training rows")
    return labels


def split(rows, shares, labelled, dropped):
    """(training, validation, test) of the pooled rows without duplicates, by `shares`, stratified, seed SPLIT_SEED."""
    unique = {key(row): row for row in reversed(rows)}  # the first of equal texts stays
    if len(unique) < len(rows):
        dropped["duplicate"] = len(rows) - len(unique)
    ordered = spread(list(unique.values())[::-1], labelled)
    train_end, validation_end = (round(sum(shares[:n]) * len(ordered)) for n in (1, 2))
    return ordered[:train_end], ordered[train_end:validation_end], ordered[validation_end:]


def read(dataset, rows, columns, labelled):
    """({split or file: rows}, {"name", "source", "kind"}). The columns are renamed to the fields of a row."""
    if rows.path is not None:
        path = Path(os.path.expanduser(rows.path))
        splits, source = own(path, columns, labelled)
        return splits, {"name": Path(os.path.abspath(path)).name or "own", "source": source, "kind": "own"}
    if rows.demo:
        splits = {"train": [], "test": []}
        for row in table(SAMPLE / dataset["sample"], {**columns, "split": "split"}):
            splits[row.pop("split")].append(row)
        return splits, {"name": "sample", "source": f"sample ({dataset['sample']})", "kind": "sample"}
    folder = of_data_dir(dataset)
    if folder is None:
        splits, source = from_hub(dataset, columns)
    elif "shares" in dataset:
        files = [split_file(folder, (name,), required=False) for name in ("train", "validation", "test")]
        splits = {file.name: table(file, columns) for file in files if file}
        source = f"{dataset['name']} from DATA_DIR ({', '.join(splits)}, split anew)"
    else:
        files = {"train": split_file(folder, ("train", "validation")), "test": split_file(folder, ("test",))}
        splits = {name: table(file, columns) for name, file in files.items()}
        source = f"{dataset['name']} from DATA_DIR ({described(files)})"
    return splits, {"name": dataset["name"], "source": source, "kind": "study"}


def of_data_dir(dataset):
    """The data set's folder below $DATA_DIR, or None."""
    base = os.environ.get("DATA_DIR")
    folder = Path(os.path.expanduser(base), dataset["name"]) if base else None
    return folder if folder and os.path.isdir(folder) else None


def own(path, columns, labelled):
    """({split: rows}, source in words) of own data: a folder with train.*, test.* and optionally validation.*, or one
    file, which is split 80/20 and stratified by class."""
    if os.path.isdir(path):
        files = {"train": split_file(path, ("train", "validation"))}
        validation = split_file(path, ("validation",), required=False)
        if validation not in (None, files["train"]):
            files["validation"] = validation
        files["test"] = split_file(path, ("test",))
        return {name: table(file, columns, own=True) for name, file in files.items()}, f"{path} ({described(files)})"
    if not os.path.isfile(path):
        raise InputError(f"no file or folder {path} (--data)")
    rows = spread(table(path, columns, own=True), labelled)
    train_size = max(1, round(len(rows) * 0.8))
    train, test = rows[:train_size], rows[train_size:]
    if labelled:  # a class with a single row needs it for training
        trained = {row["target"] for row in train}
        train += [row for row in test if row["target"] not in trained]
        test = [row for row in test if row["target"] in trained]
    return {"train": train, "test": test}, f"{path.name} (80/20 split, seed {SPLIT_SEED})"


def described(files):
    """The file of each split, in words: without a train file, training rows come from the validation file."""
    return ", ".join(f"{split} from {file.name}" for split, file in files.items())


def from_hub(dataset, columns):
    """({split: rows}, source in words) from the hub or its cache. Raises InputError if neither has them."""
    name, revision = dataset["hub"]
    online = checkpoints.hub_answers()
    try:
        import datasets

        downloaded = datasets.load_dataset(name, revision=revision)
    except Exception as error:  # a dozen types of exception mean "not there" or "not reachable"
        lines = str(error).splitlines() or [type(error).__name__]
        reason = f"cannot be read ({lines[0][:120]})" if online else "is not in the cache, and the hub does not answer"
        place = f"DATA_DIR has no {dataset['name']}/" if os.environ.get("DATA_DIR") else "DATA_DIR is not set"
        advice = f"put train.parquet and test.parquet into $DATA_DIR/{dataset['name']}/, or use --data, or --demo"
        raise InputError(f"no data: {place} and the hub's {name} {reason}; {advice}") from None
    splits = {}
    for split in ("train", "test"):
        part = downloaded[split] if split in downloaded else downloaded["train"].select([])
        if "label" in part.features and hasattr(part.features["label"], "names"):
            names = [{"neg": "negative", "pos": "positive"}.get(n, n) for n in part.features["label"].names]
            targets = [names[i] for i in part["label"]]
            part = part.remove_columns("label").add_column("label", targets)
        missing = set(columns.values()) - set(part.column_names)
        if missing:
            raise InputError(f"{name} has no column {min(missing)}; its columns are {', '.join(part.column_names)}")
        splits[split] = [{name: row[column] or "" for name, column in columns.items()} for row in part]
    return splits, f"hub {name}@{revision or 'main'}"


def key(row):
    """Two rows with this key are duplicates: case and white space do not count."""
    return " ".join(f"{row['text']} {row.get('input', '')}".lower().split())


def clean(rows, labelled, dropped, excluded=()):
    """Drop empty texts and targets, the class "None", and keys in `excluded` ({key: reason}). Counts in `dropped`."""
    cleaned = []
    for row in rows:
        text, target = row["text"].strip(), row["target"].strip()
        reason = "empty" if not text or not target else "class None" if labelled and target == "None" else None
        reason = reason or (excluded and excluded.get(key(row)))
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            cleaned.append({**row, "text": text, "target": target})
    return cleaned


def spread(rows, labelled):
    """Shuffle the rows so that every prefix is a stratified sample, and smaller subsets are parts of larger ones.

    Each class is shuffled. Every next row comes from the class that is furthest behind its share (the quota
    method of Balinski and Young), so that a prefix has each class's share to within one row.
    """
    generator, by_class = random.Random(SPLIT_SEED), {}
    for row in rows:
        by_class.setdefault(row["target"] if labelled else None, []).append(row)
    for class_rows in by_class.values():
        generator.shuffle(class_rows)
    if len(by_class) < 2:
        return [row for class_rows in by_class.values() for row in class_rows]
    import numpy

    tie_breaker = numpy.random.RandomState()  # continues the generator's numbers, in arrays
    tie_breaker.set_state(("MT19937", generator.getstate()[1][:-1], generator.getstate()[1][-1]))
    queues, sizes = [iter(class_rows) for class_rows in by_class.values()], numpy.array([*map(len, by_class.values())])
    taken, ordered = numpy.zeros_like(sizes), []
    for size in range(1, len(rows) + 1):
        under_quota = numpy.flatnonzero(taken * len(rows) < sizes * size)
        shares, ties = sizes[under_quota] / (taken[under_quota] + 1), tie_breaker.random_sample(len(under_quota))
        chosen = under_quota[numpy.where(shares == shares.max(), ties, -1).argmax()]
        ordered.append(next(queues[chosen]))
        taken[chosen] += 1
    return ordered


def fingerprint(rows):
    """sha256 over the rows in their order: two records with one fingerprint saw the same data."""
    digest = hashlib.sha256()
    for row in rows:
        for name in sorted(row):
            digest.update(f"{name}\0{row[name]}\0".encode())
    return digest.hexdigest()
