"""How a file is stored: compressed or not, rows or something else, in which encoding, with which delimiter."""

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import zlib

from common.console import InputError, warn

MARKS = {  # the first bytes of a file, longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OTHERS = {  # the first bytes of files that hold no rows as text or parquet, in lower case: what to say
    b"pk\x03\x04": "a zip archive or an Excel workbook: unpack it, or save its sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save its sheet as CSV UTF-8",
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` gets the file itself",
    b"<!doctype html": "an HTML page: get the file that the page links to",
    b"<html": "an HTML page: get the file that the page links to",
    b"<?xml": "XML: save it as CSV or JSON lines",
    b"%pdf-": "a PDF: save its rows as CSV or JSON lines",
    b"sqlite format 3": "an SQLite database: export its table as CSV",
    b"arrow1\0\0": "an Arrow file: save it as parquet",
    b"\x1f\x8b": "compressed twice: decompress it once",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: decompress it, or use gzip",
    b"\xfd7zxz": "compressed by xz: decompress it, or use gzip",
    b"bzh91ay&sy": "compressed by bzip2: decompress it, or use gzip",
}
SNIFFED = 50  # rows by which a delimiter is chosen
LATIN = 0.2  # largest share of bytes beyond ASCII in a text that is taken for Windows-1252


@contextlib.contextmanager
def readable(path, encoding=None):
    """Context in which the errors of three parsers and a decompressor become an InputError."""
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError:
        if encoding is None:
            raise InputError(f"{path.name} has a text that is not UTF-8: save it anew") from None
        problem = f"it has a byte that is not {encoding}: save the file as UTF-8, or name its --encoding"
        raise InputError(f"{path.name}, line {misfit(path, encoding)[0]}: {problem}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path.name} is compressed, and cut or damaged: get it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a dozen types for a broken file
        said = str(error).splitlines()
        said = said[0][:300].rstrip(".") if said else type(error).__name__
        raise InputError(f"cannot read {path}: {said}; is it whole? Get it again, or save it anew") from None


def is_compressed(path):
    """Whether the file is gzip's by its first bytes, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def binary(path):
    """The file's bytes, decompressed if they are gzip's."""
    return gzip.open(path) if is_compressed(path) else path.open("rb")


@contextlib.contextmanager
def characters(path, encoding):
    """Context of the file as text, line ends as they are, without the marks it begins with (there may be two)."""
    with binary(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text_stream:
        start = text_stream.tell()
        while text_stream.read(1) == "\ufeff":
            start = text_stream.tell()
        text_stream.seek(start)
        yield text_stream


def is_parquet(path):
    """Whether the file is parquet by its first bytes. Raises InputError for a file that is empty or holds no rows."""
    with binary(path) as stream:
        head = stream.read(256)
    if not head:
        raise InputError(f"{path.name} is empty: get it again, or save it anew")
    start = head.lstrip(codecs.BOM_UTF8 + b" \r\n\t").lower()
    for mark, kind in OTHERS.items():
        if start.startswith(mark):
            raise InputError(f"{path.name} is {kind}")
    return head.startswith(b"PAR1")


def known(encoding):
    """The encoding's name if Python knows it. Raises InputError."""
    try:
        return encoding and codecs.lookup(encoding).name
    except LookupError:
        raise InputError(f"--encoding {encoding} is unknown; usual are utf-8, cp1252, utf-16, gb18030") from None


def encoding_of(path):
    """UTF-8 or, by its first bytes, UTF-16 or UTF-32; Windows-1252 if it is no UTF-8. Raises InputError for a file that
    is mostly UTF-8 and has bytes that are not, and for one with too many other letters for Windows-1252."""
    with binary(path) as stream:
        head = stream.read(1 << 16)
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if head[1:4:2] == b"\0\0":  # UTF-16 without a mark: every other byte of a name in Latin letters is zero
        return "utf-16-le"
    if head[:3:2] == b"\0\0":
        return "utf-16-be"
    line, others, cut = misfit(path, "utf-8")
    if line is None:
        return "utf-8"
    if others and cut:
        raise InputError(f"{path.name}, line {line}: the file ends in the middle of a character: get it again")
    if others:
        raise InputError(
            f"{path.name}, line {line}: it has a byte that is not UTF-8, after {others} characters that are: "
            "save the file as UTF-8, or name its --encoding"
        )
    if len(head.decode("ascii", "ignore")) < (1 - LATIN) * len(head):
        problem = "it is not UTF-8, and has too many letters beyond ASCII for Windows-1252"
        raise InputError(f"{path.name}, line {line}: {problem}: name its --encoding, as gb18030, cp1251 or shift_jis")
    warn(f"{path.name} is not UTF-8 (line {line}): read as Windows-1252; --encoding names another")
    return "cp1252"


def misfit(path, encoding):
    """(line, characters beyond ASCII before it, whether the file ends within it) of the first character that is not of
    this encoding; (None, 0, False) if there is none."""
    decoder, line, others = codecs.getincrementaldecoder(encoding)(), 1, 0
    with binary(path) as stream:
        while True:
            block = stream.read(1 << 20)
            try:
                part, wrong = decoder.decode(block, final=not block), None
            except UnicodeDecodeError as error:
                part, wrong = error.object[: error.start].decode(encoding, "ignore"), error
            line += part.count("\n")
            others += 0 if part.isascii() else len(part) - len(part.encode("ascii", "ignore"))
            if wrong:
                return line, others, not block
            if not block:
                return None, 0, False


def fields(stream, delimiter, strict):
    """The rows of a text as lists of fields. Blanks after a delimiter go: a quote that follows them opens a cell."""
    return csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=strict)


def delimiter_of(path, encoding, usual):
    """The delimiter by which the first rows all have the same number of fields, more than one; else the most frequent
    one of the first line, else the usual one."""
    with characters(path, encoding) as stream:
        head = stream.read(1 << 18)
    candidates = list(dict.fromkeys((usual, ",", ";", "\t", "|")))
    for candidate in candidates:
        reader = fields(io.StringIO(head, newline=""), candidate, strict=False)
        with contextlib.suppress(csv.Error):
            sizes = [len(row) for row in itertools.islice(reader, SNIFFED) if row]
            if len(set(sizes[: -1 if len(sizes) > 1 else None])) == 1 and sizes[0] > 1:  # the last row may be cut
                return candidate
    header = head.splitlines()[0] if head else ""
    return max(candidates, key=header.count)
