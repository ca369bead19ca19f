"""The rows of each format, one after the other, as (number, {column: value})."""

import csv
import io
import json
import math
import sys

from common.console import InputError, warn
from common.rowfiles import storage
from common.rowfiles.storage import binary, characters, readable

csv.field_size_limit(sys.maxsize)  # 128 kB by default: a long document is no error
TWICE = 'write a quote within a quoted cell twice, "", not as \\"'


def bare(name):
    """The name of a column without blanks and invisible marks around it."""
    return name.strip().strip("\ufeff\u200b").strip()


def csv_lines(source):
    """Yields (line where it begins, fields) of every row that is not blank; the first one is the header's, stripped."""
    start, header = 1, True
    with characters(source.path, source.encoding) as stream:
        reader = storage.fields(stream, source.delimiter, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                problem = str(error)
                if "end of data" in problem:
                    problem = "a quote opens in this row and never closes"
                elif "expected after" in problem:
                    problem = "text follows a closing quote"
                raise source.error(start, f"{problem}: {TWICE}") from None
            if fields is None:
                return
            if fields:
                yield start, [bare(name) for name in fields] if header else fields
                header = False
            start = reader.line_num + 1


def csv_rows(source):
    """`Source.rows` of a csv or tsv file. Raises InputError for a row with more fields than the header, and for a
    second header."""
    with readable(source.path, source.encoding):
        names, warned = [], False
        for line, fields in csv_lines(source):
            if not names:
                names = fields
                continue
            if len(fields) > len(names) and any(field.strip() for field in fields[len(names) :]):
                problem = f"{len(fields)} fields, but the first line names {len(names)} columns: "
                raise source.error(
                    line, problem + f"put quotes around a cell that holds a {source.delimiter!r}, or name all columns"
                )
            if fields[-1].strip() == names[-1] and [bare(name) for name in fields] == names and len(names) > 1:
                raise source.error(line, "the names of the columns stand here again: remove this line")
            if not warned and any("\n" in field for field in fields) and swallows_rows(fields, source.delimiter):
                error = source.error(line, f"a quote opens a cell here that seems to hold several rows: {TWICE}")
                if source.delimiter == "\t":
                    raise error
                warn(error)  # lines of prose have commas, too
                warned = True
            yield line, dict(zip(names, fields, strict=False))


def swallows_rows(fields, delimiter):
    """Whether every line of a row that has several looks like a row by itself: then a quote that is a letter of the
    text, where quotes were not written twice, has opened a cell."""
    return all(line.count(delimiter) == len(fields) - 1 for line in delimiter.join(fields).split("\n"))


def text_format(path, encoding, suffix):
    """ ".json" for one array or object, ".jsonl" for an object a line; the file's suffix only if neither is clear."""
    with characters(path, encoding) as stream:
        lines = filter(None, (line.strip() for line in stream))
        first = next(lines, "")
        if first.startswith("["):
            rows = (first[1:].lstrip() or next(lines, "")).startswith("{")
            return ".json" if rows or suffix == ".jsonl" else suffix
        if not first.startswith("{"):
            return suffix
        try:
            row = decoded(first)
        except ValueError:
            return suffix
        alone = next(lines, None) is None
    return ".json" if alone and any(isinstance(value, list | dict) for value in row.values()) else ".jsonl"


def decoded(content, exact=True):
    """A JSON value; with `exact` numbers are texts, as they are written. Raises ValueError."""
    numbers = {"parse_float": str, "parse_int": str} if exact else {}
    try:
        return json.loads(content, parse_constant=lambda name: None, object_pairs_hook=unique, **numbers)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def unique(pairs):
    """The object of these (name, value). Raises ValueError for a name that stands twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name stands twice in it, keep one")
    return row


def json_lines(source, exact=True):
    """`Source.rows` of a file with one object a line."""
    with readable(source.path, source.encoding), characters(source.path, source.encoding) as stream:
        for number, line in enumerate(stream, 1):
            content = line.strip("\ufeff \t\r\n")
            if not content:
                continue
            try:
                row = decoded(content, exact)
            except ValueError as error:
                problem = str(error).split(":")[0]
                raise source.error(number, f"no JSON object ({problem}): write one object a line") from None
            yield number, checked(source, number, row)


def json_rows(source, exact=True):
    """`Source.rows` of an array of objects, of an object with one such array or with an array a column."""
    with readable(source.path, source.encoding), characters(source.path, source.encoding) as stream:
        try:
            value = decoded(stream.read(), exact)
        except ValueError as error:
            line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            problem = str(error).split(":")[0]
            raise InputError(f"{source.path.name}{line}: no JSON ({problem}): write one array of objects") from None
        if isinstance(value, dict):
            lists = [each for each in value.values() if isinstance(each, list) and each]
            arrays = [each for each in lists if isinstance(each[0], dict)]
            by_column = len(arrays) < len(lists) == len(value) and len({len(each) for each in lists}) == 1
            if len(arrays) > 1 and not by_column:
                raise InputError(f"{source.path.name} has {len(arrays)} arrays of rows: write each into its own file")
            value = arrays[0] if arrays and not by_column else of_columns(source, value)
        if not isinstance(value, list):
            raise no_rows(source)
        for number, row in enumerate(value, 1):
            yield number, checked(source, number, row)


def of_columns(source, value):
    """Rows of {column: [values]} or {column: {number: value}}."""
    parts = {name: list(each.values()) if isinstance(each, dict) else each for name, each in value.items()}
    if not parts or not all(isinstance(part, list) for part in parts.values()):
        raise no_rows(source)
    sizes = {len(part): name for name, part in parts.items()}
    if len(sizes) > 1:
        some = " and ".join(f"{size} in {name}" for size, name in list(sizes.items())[:2])
        raise InputError(f"{source.path.name}: its columns differ in length ({some}): write one object a row")
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def no_rows(source):
    return InputError(f"{source.path.name} has no array of rows: write [{{…}}, {{…}}], or one object a line")


def checked(source, number, row):
    if not isinstance(row, dict):
        raise source.error(number, f"a {type(row).__name__}, not an object: write the columns' names with the values")
    columns = {bare(name): value for name, value in row.items()}
    if len(columns) < len(row):
        raise source.error(number, "two of its names are alike but for blanks: rename one")
    return columns


def parquet(path):
    import pyarrow.parquet

    if not storage.is_compressed(path):
        return pyarrow.parquet.ParquetFile(path)
    with binary(path) as stream:
        return pyarrow.parquet.ParquetFile(io.BytesIO(stream.read()))


def parquet_rows(source, columns=None):
    """`Source.rows` of a parquet file. Whole numbers in a column of floats are written as such: pandas makes floats of
    integers where a value is missing."""
    with readable(source.path):
        file = parquet(source.path)
        names = [name for name in source.columns if columns is None or name in columns]
        whole = {name for name in names if is_whole(file, name)}
        number = 0
        for batch in file.iter_batches(4096, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield (
                    number,
                    {n: int(v) if n in whole and v is not None and math.isfinite(v) else v for n, v in row.items()},
                )


def is_whole(file, name):
    """Whether a column of floats has whole numbers only, or none."""
    import pyarrow
    from pyarrow import compute

    if not pyarrow.types.is_floating(file.schema_arrow.field(name).type):
        return False
    values = compute.drop_null(file.read([name]).column(0))
    values = compute.filter(values, compute.is_finite(values))
    return bool(compute.all(compute.equal(compute.floor(values), values), min_count=0).as_py())
