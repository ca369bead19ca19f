"""The data sets: where their rows come from, which rows are dropped, how they are split and subsampled.

A change to this file changes every table: all models see the same rows in the same order. Rows come from `path` (own
data), else from the sample in this repository (`demo`), else from $DATA_DIR/<data set>/<split>.*, else from the hub.
"""

import functools
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import checkpoints, files
from common.console import InputError, say
from common.rowfiles import split_file, table
from common.splits import SPLIT_SEED, classes, clean, fingerprint, key, split, spread

SAMPLE = Path(__file__).parent / "sample"
# Shares of training, validation and test rows of an own file. Validation rows calibrate the probabilities of classes.
OWN_SHARES = {True: (0.7, 0.1, 0.2), False: (0.8, 0.0, 0.2)}

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
    encoding: str | None = None  # None: found by the file's first bytes
    delimiter: str | None = None
    label_names: str | None = None  # a file with a name for each label of own data
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
    for missing columns, for no rows, and for other than 2 to splits.MAX_CLASSES classes.
    """
    (dataset, labelled), rows = TASKS[task], Rows(**rows)
    columns = columns_of(dataset, rows)
    saved = saved_split(rows.path)
    raw, meta, shares = read(dataset, rows, columns, labelled, saved)
    source, dropped = meta["source"], {}
    if shares:
        pooled = clean([row for part in raw.values() for row in part], labelled, dropped)
        train, validation, test = split(pooled, shares, labelled, dropped, saved)
    else:
        test = clean(raw["test"], labelled, dropped)
        used = {key(row): "also in test" for row in test}
        validation = clean(raw.get("validation", []), labelled, dropped, used)
        train = clean(raw["train"], labelled, dropped, {key(row): "also in validation" for row in validation} | used)
    if not train or not test:
        few = f"no rows left to {'test' if train else 'train'} on in {source}; dropped: {dropped or 'none'}"
        advice = "give it 10 rows or more, and two or more of each class"
        if train and saved:
            advice = f"none is in {split_record(rows.path).name}: is it of another column? Remove it to split anew"
        raise InputError(f"{few}; {advice}")
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
        file = f"{Path(rows.path).name}: " if rows.path else ""
        raise InputError(f"{file}the column {columns['text']} cannot be both the text and the target: name two columns")
    if "input" in dataset and dataset["input"] not in columns.values():
        columns["input"] = dataset["input"]
    return columns


def read(dataset, rows, columns, labelled, saved=None):
    """({split or file: rows}, {"name", "source", "kind"}, shares by which the rows are pooled and split anew, or None).
    The columns are renamed to the fields of a row. saved: from `saved_split`."""
    if rows.path is not None:
        path = files.expanded(rows.path)
        splits, source, shares = own(path, rows, columns, labelled, saved)
        return splits, {"name": Path(os.path.abspath(path)).name or "own", "source": source, "kind": "own"}, shares
    if rows.demo:
        splits = {"train": [], "test": []}
        for row in table(SAMPLE / dataset["sample"], {**columns, "split": "split"}):
            splits[row.pop("split")].append(row)
        meta = {"name": "sample", "source": f"sample ({dataset['sample']})", "kind": "sample"}
        return splits, meta, dataset.get("shares")
    folder = of_data_dir(dataset)
    if folder is None:
        splits, source = from_hub(dataset, columns)
    elif "shares" in dataset:
        found = [split_file(folder, (name,), required=False) for name in ("train", "validation", "test")]
        splits = {file.name: table(file, columns) for file in found if file}
        source = f"{dataset['name']} from DATA_DIR ({', '.join(splits)}, split anew)"
    else:
        found = {"train": split_file(folder, ("train", "validation")), "test": split_file(folder, ("test",))}
        splits = {name: table(file, columns) for name, file in found.items()}
        source = f"{dataset['name']} from DATA_DIR ({described(found)})"
    return splits, {"name": dataset["name"], "source": source, "kind": "study"}, dataset.get("shares")


def of_data_dir(dataset):
    """The data set's folder below $DATA_DIR, or None."""
    base = os.environ.get("DATA_DIR")
    folder = files.expanded(base) / dataset["name"] if base else None
    return folder if folder and os.path.isdir(folder) else None


def own(path, rows, columns, labelled, saved):
    """({split: rows}, source in words, shares or None) of own data: a folder with train.*, test.* and optionally
    validation.*, or one file, which is split by OWN_SHARES and stratified by class. rows: the `Rows` asked for; saved:
    from `saved_split`."""
    names = names_of_labels(rows.label_names) if labelled and rows.label_names else None

    def read_file(file):
        return table(file, columns, own=True, encoding=rows.encoding, delimiter=rows.delimiter, labels=names)

    if os.path.isdir(path):
        files = split_files(path)
        return {name: read_file(file) for name, file in files.items()}, f"{path} ({described(files)})", None
    if not os.path.isfile(path):
        raise InputError(f"no file or folder {path} (--data)")
    shares = OWN_SHARES[labelled]
    how = "split as in " + split_record(path).name if saved else f"split, seed {SPLIT_SEED}"
    parts = "/".join(f"{100 * share:.0f}" for share in shares if share)
    return {"all": read_file(path)}, f"{path.name} ({parts} {how})", shares


def split_files(folder):
    """{split: file} of a folder with train.*, test.* and optionally validation.*. Raises InputError."""
    files = {"train": split_file(folder, ("train", "validation"))}
    validation = split_file(folder, ("validation",), required=False)
    if validation not in (None, files["train"]):
        files["validation"] = validation
    return files | {"test": split_file(folder, ("test",))}


def split_record(path):
    """The file beside an own file that keeps its split: `python -m common look` writes it."""
    path = Path(os.path.abspath(files.expanded(path)))  # "." has no name
    return path.parent / f"{path.name}.split.json"


def saved_split(path):
    """{"validation", "test"}: digests of rows, of an own file's split; None if there is none. Raises InputError."""
    if not path or os.path.isdir(files.expanded(path)) or not os.path.isfile(split_record(path)):
        return None
    saved = files.read_json(split_record(path))
    parts = [saved.get(part) for part in ("validation", "test")] if isinstance(saved, dict) else [None]
    if not all(isinstance(part, list) and all(isinstance(each, str) for each in part) for part in parts):
        raise InputError(f"{split_record(path)} is no split that `look` wrote: remove it, and the file is split anew")
    return saved


def names_of_labels(path):
    """{label in the file: its name}. path: a text file with a name a line, of label 0, 1, …, or a JSON object or array.
    Raises InputError."""
    path = files.expanded(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
        lines = [line for line in content.splitlines() if line.strip()]
        names = json.loads(content) if path.suffix == ".json" else lines
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} (--label_names): {error}") from None
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not names or not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{path} (--label_names) has no names: write one a line, or a JSON object of label and name")
    return {str(label): name.strip() for label, name in names.items()}


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
    for name_of_split in ("train", "test"):
        part = downloaded[name_of_split] if name_of_split in downloaded else downloaded["train"].select([])
        if "label" in part.features and hasattr(part.features["label"], "names"):
            names = [{"neg": "negative", "pos": "positive"}.get(n, n) for n in part.features["label"].names]
            targets = [names[i] for i in part["label"]]
            part = part.remove_columns("label").add_column("label", targets)
        missing = set(columns.values()) - set(part.column_names)
        if missing:
            raise InputError(f"{name} has no column {min(missing)}; its columns are {', '.join(part.column_names)}")
        splits[name_of_split] = [{name: row[column] or "" for name, column in columns.items()} for row in part]
    return splits, f"hub {name}@{revision or 'main'}"
