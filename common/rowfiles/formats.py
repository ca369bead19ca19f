"""The rows of each format, one after the other, as (number, {column: value})."""

import csv
import io
import json
import math
import sys

from common.console import InputError
from common.rowfiles.storage import binary, characters, readable

csv.field_size_limit(sys.maxsize)  # 128 kB by default: a long document is no error


def csv_lines(source):
    """Yields (line where it begins, fields) of every row that is not blank; the first one is the header's, stripped."""
    start, header = 1, True
    with characters(source.path, source.encoding) as stream:
        reader = csv.reader(stream, delimiter=source.delimiter, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                problem = str(error)
                if "end of data" in problem:
                    problem = "a quote opens in this row and never closes"
                elif "expected after" in problem:
                    problem = "text follows a closing quote"
                raise source.error(start, f"{problem}: write a quote within a quoted cell twice") from None
            if fields is None:
                return
            if fields:
                yield start, [name.strip().lstrip("\ufeff") for name in fields] if header else fields
                header = False
            start = reader.line_num + 1


def csv_rows(source):
    """`Source.rows` of a csv or tsv file. Raises InputError for a row with more fields than the header."""
    with readable(source.path):
        names = []
        for line, fields in csv_lines(source):
            if not names:
                names = fields
                continue
            if len(fields) > len(names) and any(field.strip() for field in fields[len(names) :]):
                problem = f"{len(fields)} fields, but the first line names {len(names)} columns: "
                raise source.error(line, problem + "put quotes around a cell that holds the delimiter")
            yield line, dict(zip(names, fields, strict=False))


def json_format(path, encoding, suffix):
    """ ".json" for one array or object, ".jsonl" for an object a line; the file's suffix only if neither is clear."""
    with characters(path, encoding) as stream:
        first, *more = stream.read(1 << 16).strip("\ufeff \t\r\n").split("\n", 1)
    if not first.startswith("{"):
        return ".json" if first.startswith("[") else suffix
    try:
        row = json.loads(first)
    except ValueError:
        return suffix
    return ".json" if not more and any(isinstance(value, list | dict) for value in row.values()) else ".jsonl"


def decoded(content, exact):
    numbers = {"parse_float": str, "parse_int": str} if exact else {}
    return json.loads(content, parse_constant=lambda name: None, **numbers)


def json_lines(source, exact=True):
    """`Source.rows` of a file with one object a line."""
    with readable(source.path), characters(source.path, source.encoding) as stream:
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
    with readable(source.path), characters(source.path, source.encoding) as stream:
        content = stream.read().strip("\ufeff \t\r\n")
        try:
            value = decoded(content, exact)
        except ValueError as error:
            raise InputError(f"{source.path.name}: no JSON ({error}): write one array of objects") from None
        if isinstance(value, dict):
            arrays = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
            value = arrays[0] if len(arrays) == 1 else of_columns(source, value)
        for number, row in enumerate(value, 1):
            yield number, checked(source, number, row)


def of_columns(source, value):
    """Rows of {column: [values]} or {column: {number: value}}."""
    parts = {name: list(each.values()) if isinstance(each, dict) else each for name, each in value.items()}
    if not parts or not all(isinstance(part, list) for part in parts.values()):
        raise InputError(f"{source.path.name} has no array of rows: write [{{…}}, {{…}}], or one object a line")
    if len({len(part) for part in parts.values()}) > 1:
        raise InputError(f"{source.path.name}: its columns have different numbers of values")
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def checked(source, number, row):
    if not isinstance(row, dict):
        raise source.error(number, f"a {type(row).__name__}, not an object with the columns' names")
    return {name.strip(): value for name, value in row.items()}


def parquet(path):
    import pyarrow.parquet

    if not path.name.lower().endswith(".gz"):
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
