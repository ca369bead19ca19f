"""How a file is stored: compressed or not, in which encoding, with which delimiter."""

import codecs
import contextlib
import csv
import gzip
import io
import itertools

from common.console import InputError, warn

MARKS = {  # the first bytes of a file, longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SNIFFED = 50  # rows by which a delimiter is chosen


@contextlib.contextmanager
def readable(path):
    """Context in which the errors of three parsers and a decompressor become an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a dozen types for a broken file
        said = str(error).splitlines()
        raise InputError(f"cannot read {path}: {said[0][:300] if said else type(error).__name__}") from None


def binary(path):
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


@contextlib.contextmanager
def characters(path, encoding):
    """Context of the file as text, line ends as they are."""
    with binary(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text_stream:
        yield text_stream


def known(encoding):
    """The encoding's name if Python knows it. Raises InputError."""
    try:
        return encoding and codecs.lookup(encoding).name
    except LookupError:
        raise InputError(f"--encoding {encoding} is unknown; usual are utf-8, cp1252, utf-16, gb18030") from None


def encoding_of(path):
    """UTF-8 or, by its first bytes, UTF-16 or UTF-32; Windows-1252 if it is no UTF-8. Raises InputError for a file that
    is mostly UTF-8 and has bytes that are not."""
    with binary(path) as stream:
        head = stream.read(1 << 16)
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if head[:400].count(0) * 3 > len(head[:400]) > 0:  # UTF-16 without a mark: every other byte of Latin text is zero
        return "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
    decoder, line, others = codecs.getincrementaldecoder("utf-8")(), 1, 0
    with binary(path) as stream:
        while True:
            block = stream.read(1 << 20)
            try:
                part, whole = decoder.decode(block, final=not block), True
            except UnicodeDecodeError as error:
                part, whole = error.object[: error.start].decode(), False
            line += part.count("\n")
            others += 0 if part.isascii() else len(part) - len(part.encode("ascii", "ignore"))
            if not whole:
                break
            if not block:
                return "utf-8"
    if others:
        raise InputError(
            f"{path.name}, line {line}: it has a byte that is not UTF-8, after {others} characters that are: "
            "save the file as UTF-8, or name its --encoding"
        )
    warn(f"{path.name} is not UTF-8 (line {line}): read as Windows-1252; --encoding names another")
    return "cp1252"


def delimiter_of(path, encoding, usual):
    """The delimiter by which the first rows all have the same number of fields, more than one; else the most frequent
    one of the first line, else the usual one."""
    with characters(path, encoding) as stream:
        head = stream.read(1 << 18)
    candidates = list(dict.fromkeys((usual, ",", ";", "\t", "|")))
    for candidate in candidates:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=candidate)
        with contextlib.suppress(csv.Error):
            sizes = [len(row) for row in itertools.islice(reader, SNIFFED) if row]
            if len(set(sizes[: -1 if len(sizes) > 1 else None])) == 1 and sizes[0] > 1:  # the last row may be cut
                return candidate
    header = head.splitlines()[0] if head else ""
    return max(candidates, key=header.count)
