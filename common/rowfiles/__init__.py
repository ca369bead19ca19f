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
        raise InputError(f"{folder} has no {expected}, nor a .gz of one")
    return None


def table(path, columns, own=False, encoding=None, delimiter=None):
    """Rows of one file as dictionaries of texts. Arguments are those of `opened` and `named_rows`."""
    return [row for _, row in named_rows(opened(path, encoding, delimiter), columns, own)]


def named_rows(source, columns, own=False):
    """Yields (number, row as a dictionary of texts) of a Source. columns: {field of a row: column of the file}. Missing
    values become "". Rows of own data have an "input" only if the file has that column. Raises InputError for a missing
    column."""
    found = {name: source.column(column) for name, column in columns.items()}
    if own and found.get("input", "") is None:
        del found["input"]
    missing = [columns[name] for name, column in found.items() if column is None]
    if missing:
        raise InputError(
            f"{source.path.name} has no column {' or '.join(missing)}; its columns are {', '.join(source.columns)}; "
            "name yours with --text_column and --label_column, --summary_column or --answer_column"
        )
    names = list(found.items())
    for line, row in source.rows(set(found.values())):
        yield line, {name: text(row.get(column), source, line, column) for name, column in names}


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

    def column(self, name):
        """The file's column of this name, upper and lower case alike if no other is meant; None without one. Raises
        InputError for a name that two columns have."""
        matches = [name] * self.columns.count(name)
        matches = matches or [column for column in self.columns if column.lower() == name.lower().strip()]
        if len(matches) > 1:
            raise InputError(f"{self.path.name} has {len(matches)} columns called {name}: rename one")
        return matches[0] if matches else None

    def rows(self, columns=None):
        """Yields (number, {column: value}) of every row. columns: the ones that are needed (default: all)."""
        if self.format == ".parquet":
            return formats.parquet_rows(self, columns)
        return {".jsonl": formats.json_lines, ".json": formats.json_rows}.get(self.format, formats.csv_rows)(self)

    def error(self, number, problem):
        return InputError(f"{self.path.name}, {self.unit} {number}: {problem}")


def opened(path, encoding=None, delimiter=None):
    """The Source of a file. encoding, delimiter: found by its first rows if not given. Raises InputError if it cannot
    be read."""
    path, plain = Path(path), Path(path).name.lower().removesuffix(".gz")
    suffix = Path(plain).suffix
    if suffix not in FORMATS:
        raise InputError(f"{path.name}: --data takes csv, tsv, jsonl, json or parquet, or a .gz of these")
    with storage.readable(path):
        if suffix == ".parquet":
            return Source(path, suffix, None, None, formats.parquet(path).schema_arrow.names)
        encoding = storage.known(encoding) or storage.encoding_of(path)
        if suffix in (".json", ".jsonl"):
            source = Source(path, formats.json_format(path, encoding, suffix), encoding, None, [])
            columns = {}
            for _, row in source.rows():
                columns |= dict.fromkeys(row)
            return replace(source, columns=list(columns))
        delimiter = delimiter or storage.delimiter_of(path, encoding, "\t" if suffix == ".tsv" else ",")
        source = Source(path, suffix, encoding, delimiter, [])
        return replace(source, columns=next(formats.csv_lines(source), (1, []))[1])


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
