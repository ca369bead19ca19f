"""Rows from files: csv, tsv, jsonl, json, parquet, and .gz of these, one after the other. Each format gives the same
texts, and every error names the file and the row."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from common.console import InputError
from common.rowfiles import formats, storage

FORMATS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = FORMATS + tuple(f"{suffix}.gz" for suffix in FORMATS)


def split_file(folder, names, required=True):
    """The first of the files `names` that the folder has, in any format. If there is none: None, or InputError if it is
    required."""
    for name in names:
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    if required:
        expected = " or ".join(f"{name}.csv|tsv|jsonl|json|parquet" for name in names)
        raise InputError(f"{folder} has no {expected}, nor a .gz of one: add it")
    return None


def table(path, columns, own=False, encoding=None, delimiter=None, labels=None):
    """Rows of one file as dictionaries of texts. Arguments are those of `opened` and `named_rows`."""
    return [row for _, row in named_rows(opened(path, encoding, delimiter), columns, own, labels)]


def named_rows(source, columns, own=False, labels=None):
    """Yields (number, row as a dictionary of texts) of a Source. columns: {field of a row: column of the file}; labels:
    {target: its name}, where targets get names. Missing values become "". Rows of own data have an "input" only if the
    file has that column. Raises InputError for a missing column, and for a target without a name."""
    found = {name: source.column(column) for name, column in columns.items()}
    if own and found.get("input", "") is None:
        del found["input"]
    missing = [columns[name] for name, column in found.items() if column is None]
    if missing:
        raise InputError(
            f"{source.path.name} has no column {' or '.join(missing)}; {source.described()}; "
            "name yours with --text_column and --label_column, --summary_column or --answer_column"
        )
    names = list(found.items())
    for number, cells in source.rows(set(found.values())):
        row = {name: text(cells.get(column), source, number, column) for name, column in names}
        if labels and (target := row["target"].strip()):
            if target not in labels:
                raise source.error(number, f"the label {target!r:.60} has no name: add it to the file of --label_names")
            row["target"] = labels[target]
        yield number, row


@dataclass(frozen=True)
class Source:
    """A file of rows. format: one of FORMATS; encoding, delimiter: None where the format has none; columns: their names
    as in the file, without blanks around them."""

    path: Path
    format: str
    encoding: str | None
    delimiter: str | None
    columns: list

    @property
    def unit(self):
        """What the numbers of `rows` count."""
        return "row" if self.format in (".parquet", ".json") else "line"

    @property
    def compressed(self):
        return storage.is_compressed(self.path)

    def described(self):
        """A clause that says the columns, in quotes, so that blanks, and a line that is one column, can be seen."""
        shown = ", ".join(repr(name if len(name) < 40 else name[:40] + "…") for name in self.columns[:12])
        where = "its first line names" if self.delimiter else "its columns are"
        return f"{where} {shown}{', …' if len(self.columns) > 12 else ''}"

    def column(self, name):
        """The file's column of this name, upper and lower case alike if no other is meant; None without one. Raises
        InputError for a name that two columns have."""
        matches = [name] * self.columns.count(name)
        wanted = formats.bare(name).lower()
        matches = matches or [column for column in self.columns if formats.bare(column).lower() == wanted]
        if len(matches) > 1:
            raise InputError(f"{self.path.name} has {len(matches)} columns called {name}: rename one")
        return matches[0] if matches else None

    def rows(self, columns=None, exact=True):
        """Yields (number, {column: value}) of every row. columns: the ones that are needed (default: all). exact:
        whether numbers of JSON are texts, as they are written."""
        if self.format == ".parquet":
            return formats.parquet_rows(self, columns)
        if self.format in (".json", ".jsonl"):
            return {".jsonl": formats.json_lines, ".json": formats.json_rows}[self.format](self, exact)
        return formats.csv_rows(self)

    def error(self, number, problem):
        return InputError(f"{self.path.name}, {self.unit} {number}: {problem}")


def opened(path, encoding=None, delimiter=None):
    """The Source of a file. encoding, delimiter: found by its first rows if not given. Raises InputError if it cannot
    be read."""
    path, suffix = Path(path), Path(Path(path).name.lower().removesuffix(".gz")).suffix
    with storage.readable(path):
        if storage.is_parquet(path):
            return Source(path, ".parquet", None, None, formats.parquet(path).schema_arrow.names)
        if suffix not in FORMATS:
            raise InputError(f"{path.name}: --data takes csv, tsv, jsonl, json or parquet, or a .gz of these")
        if suffix == ".parquet":
            raise InputError(f"{path.name} is no parquet file: get it again, or name it .csv or .jsonl if it is one")
        encoding = storage.known(encoding) or storage.encoding_of(path)
    with storage.readable(path, encoding):
        suffix = formats.text_format(path, encoding, suffix)
        if suffix in (".json", ".jsonl"):
            source, columns = Source(path, suffix, encoding, None, []), {}
            for _, row in source.rows():
                columns |= dict.fromkeys(row)
        else:
            delimiter = delimiter or storage.delimiter_of(path, encoding, "\t" if suffix == ".tsv" else ",")
            source = Source(path, suffix, encoding, delimiter, [])
            columns = next(formats.csv_lines(source), (1, []))[1]
        if not columns:
            raise InputError(f"{path.name} has no rows: write one line of column names, or one object a row")
        return replace(source, columns=list(columns))


def text(value, source, number, column):
    """A cell as text: "" for a missing one, a number as it is written. Raises InputError for lists and objects, and for
    half a character (JSON can hold one)."""
    if isinstance(value, str):
        if source.encoding is None or source.format.startswith(".json"):
            try:
                value.encode()
            except UnicodeEncodeError:
                problem = f"column {column} holds half a character (a lone surrogate): write the text anew"
                raise source.error(number, problem) from None
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if hasattr(value, "__len__"):
        problem = f"column {column} holds a {type(value).__name__}, not a text or a number: give it a column of text"
        raise source.error(number, problem)
    return str(value)
