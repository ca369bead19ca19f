"""Rows from files: csv, tsv, jsonl, json, parquet, and .gz of these. Each format gives the same texts."""

from pathlib import Path

from common.console import InputError

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


def table(path, columns, own=False):
    """Rows of one file as dictionaries of texts. columns: {field of a row: column of the file}. Missing values become
    "". Rows of own data have an "input" only if the file has that column. Raises InputError for a missing column."""
    frame = parse(path)
    if own and columns.get("input", "") not in frame.columns:
        columns = {name: column for name, column in columns.items() if name != "input"}
    missing = [name for name in columns.values() if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path.name} has no column {' or '.join(missing)}; its columns are {', '.join(map(str, frame.columns))}; "
            "name yours with --text_column and --label_column, --summary_column or --answer_column"
        )
    texts = {name: as_texts(frame[column], f"column {column} of {path.name}") for name, column in columns.items()}
    return [dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)]


def parse(path):
    """One file as a pandas DataFrame. Raises InputError if it cannot be parsed."""
    import gzip
    import io

    import pandas

    plain = path.name.lower().removesuffix(".gz")
    suffix = Path(plain).suffix
    if suffix not in FORMATS:
        raise InputError(f"{path.name}: --data takes csv, tsv, jsonl, json or parquet, or a .gz of these")
    try:
        if suffix == ".parquet":
            compressed = plain != path.name.lower()
            return pandas.read_parquet(io.BytesIO(gzip.open(path).read()) if compressed else path)
        if suffix in (".json", ".jsonl"):
            return pandas.read_json(
                path, lines=suffix == ".jsonl", dtype=False, convert_dates=False, convert_axes=False, precise_float=True
            )
        # keep_default_na: the word "None" is a class of one data set, "NA" and "null" are ordinary words
        separator = "\t" if suffix == ".tsv" else ","
        frame = pandas.read_csv(path, sep=separator, keep_default_na=False, dtype=str)
    except Exception as error:  # four parsers and two decompressors raise a dozen types for a broken file
        raise InputError(f"cannot read {path}: {str(error)[:300] or type(error).__name__}") from None
    if not isinstance(frame.index, pandas.RangeIndex):  # pandas would shift the columns by one
        raise InputError(f"{path.name}: its rows have more fields than its first line has names")
    return frame


def as_texts(series, where):
    """The values as a list of str: "" for missing ones, numbers as they are written. where: for error messages."""
    import pandas

    if getattr(series, "ndim", 1) != 1:
        raise InputError(f"{where}: there are two of that name")
    present = series.dropna()
    if pandas.api.types.is_float_dtype(series) and (present % 1 == 0).all():
        series = series.astype("Int64")  # a missing value turns a column of whole numbers into floats
    values = series.astype(object).where(series.notna(), "").tolist()
    unsupported = next((value for value in values if hasattr(value, "__len__") and not isinstance(value, str)), None)
    if unsupported is not None:
        raise InputError(f"{where} holds a {type(unsupported).__name__}, not a text or a number")
    texts = [str(value) for value in values]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds half a character (a lone surrogate), which is no text") from None
    return texts
