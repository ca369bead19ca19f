"""Broken and odd files of rows, and what is to become of each: it trains, or one line refuses it.

    python tests/broken.py FOLDER        writes them all

The kinds are those of which users of other trainers complain. A comment at each says the complaint, and the issue where
it was read.
"""

import codecs
import gzip
import io
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROWS = [(f"post {i} about tea", "ab"[i % 2]) for i in range(20)]
EMPTY = {"empty": 1}


@dataclass(frozen=True)
class File:
    """A file, or a folder of files, for a classification script.

    content: bytes, or {name: bytes} of a folder; beside: (name, bytes) of files next to it; flags: of the script;
    kept: (text, label) of every row that trains, validates or tests; dropped: (reason, rows) of the others; says: a
    regular expression of the line that refuses the file, which also has its name; none if it trains."""

    content: bytes | dict
    flags: tuple = ()
    kept: tuple = ()
    dropped: tuple = ()
    says: str = ""
    beside: tuple = ()


FILES = {}


def trains(name, content, kept=ROWS, flags="", dropped=(), beside=()):
    assert name not in FILES
    FILES[name] = File(content, tuple(flags.split()), tuple(kept), tuple(dict(dropped).items()), beside=tuple(beside))


def refused(name, content, says, flags="", beside=()):
    assert name not in FILES
    FILES[name] = File(content, tuple(flags.split()), says=says, beside=tuple(beside))


def lines(rows=ROWS, header="text,label", delimiter=",", end="\n"):
    """A csv without any quoting."""
    return end.join([header, *(delimiter.join(row) for row in rows), ""])


def csv(*arguments, **keywords):
    return lines(*arguments, **keywords).encode()


def quoted(rows=ROWS, header='"text","label"'):
    cells = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    return "\n".join([header, *cells, ""])


def objects(rows=ROWS, **more):
    return [{"text": text, "label": label, **more} for text, label in rows]


def jsonl(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet(columns):
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def latin_texts():
    """A column of texts, by their type, whose bytes are Windows-1252."""
    import pyarrow

    return pyarrow.array(["thé".encode("cp1252")] * len(ROWS)).view(pyarrow.string())


def archive(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def row(number, text, label="a", rows=ROWS):
    """ROWS with another row at this place."""
    return [*rows[:number], (text, label), *rows[number + 1 :]]


def without(*numbers):
    return [pair for i, pair in enumerate(ROWS) if i not in numbers]


COLUMNS = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
QUOTED = 'she said "tea, please", twice'

# The header

# autotrain #101: 'sentence' could not be found, though the file has it
trains("blanks in the header.csv", csv(header=" text , label "))
# pandas #4793: the first name begins with the mark that Excel writes
trains("bom.csv", codecs.BOM_UTF8 + quoted().encode())
# a file with a mark was saved as UTF-8 with a mark again, and again
trains("three boms.csv", codecs.BOM_UTF8 * 3 + quoted().encode())
# a name copied from a web page ends in a zero-width blank
trains("invisible blank.csv", csv(header="text\u200b,\xa0label"))
# the columns are called TEXT and Label
trains("upper case.csv", csv(header="TEXT,Label"))
# pandas writes 0, 1 where no names were given
trains("numbers as names.csv", csv(header="0,1"), flags="--text_column 0 --label_column 1")
# names with a comma, or that are keywords of Python
trains("odd names.csv", csv(header='"post,full",class'), flags="--text_column post,full --label_column class")
# unsloth #4470: 'Unnamed: 0', and columns not recognised in a csv
trains("index of pandas.csv", "\n".join([",text,label", *(f"{i},{t},{n}" for i, (t, n) in enumerate(ROWS))]).encode())
# a name stands twice
refused(
    "two of a name.csv", csv([(*pair, "x") for pair in ROWS], "text,label,text"), "2 columns called text.*rename one"
)
# dask/distributed #240: the first row was taken for the header
refused(
    "no header.csv",
    csv(header="post x about tea,a"),
    "no column text or label; its first line names 'post x about tea', 'a'.*--text_column",
)
# LLaMA-Factory #3874, axolotl #879: KeyError 'instruction'
refused("other names.csv", csv(header="body,topic"), "'body', 'topic'.*--text_column")
# autotrain #101: each line is one quoted cell, so the column is there and is not
refused(
    "lines in quotes.csv",
    quoted([(",".join(pair),) for pair in ROWS], '"text,label"').encode(),
    "'text,label'.*--text_column",
)
# a line of comment above the header
refused(
    "comment first.csv", b"# exported on Monday\n" + csv(), "its first line names '# exported on Monday'.*name yours"
)
# Excel's line sep=; above the header
refused("sep line.csv", b"sep=;\n" + csv(delimiter=";", header="text;label"), "its first line names 'sep='.*name yours")
# two csv files were joined by cat
refused("header again.csv", csv() + csv(), "line 22.*remove this line")
# text and label are asked from one column
refused("one column twice.csv", csv(), "both the text and the target.*name two columns", flags="--label_column text")

# Delimiters and rows that do not fit

SEMI = row(3, "tea, milk, sugar")
# pandas, datasets #1773: all is one column, because Excel writes semicolons in half of Europe
trains("semicolons.csv", csv(SEMI, "text;label", ";"), SEMI)
# datasets #1773: tabs in a .csv
trains("tabs.csv", csv(SEMI, "text\tlabel", "\t"), SEMI)
# daf-dataportal #176: pandas.read_csv(sep="|") was needed
trains("bars.csv", csv(SEMI, "text|label", "|"), SEMI)
# a delimiter of one's own
trains("other delimiter.csv", csv(SEMI, "text^label", "^"), SEMI, flags="--delimiter ^")
# fast-bert #96: quotes break the format
trains("delimiter in quotes.csv", quoted(row(3, QUOTED)).encode(), row(3, QUOTED))
# pandas: skipinitialspace was needed
trains(
    "blank before a quote.csv",
    quoted(row(3, QUOTED), '"text", "label"').replace('","', '", "').encode(),
    row(3, QUOTED),
)
# fast-bert #96: Expected 8 fields in line 7, saw 11
refused(
    "delimiter without quotes.csv",
    csv(row(3, "tea, milk")),
    "line 5: 3 fields.*2 columns.*put quotes around a cell that holds a ','",
)
# R's write.table: one name less than fields
refused("row names.csv", csv([(str(i), *pair) for i, pair in enumerate(ROWS)]), "line 2: 3 fields.*2 columns")
# Excel ends every line in delimiters
trains("trailing delimiters.csv", csv([(*pair, "", "") for pair in ROWS]))
# Excel ends every line in a delimiter, the first one, too
trains("trailing in the header.csv", csv([(*pair, "") for pair in ROWS], "text,label,"))
# the last row of a download lacks its label
trains("short row.csv", csv([*ROWS, ("post 20",)]), dropped=EMPTY)
# datasets #1989: a row broken in two
trains("line break without quotes.csv", csv(row(3, "post 3\nabout tea", "b")), row(3, "about tea", "b"), dropped=EMPTY)
# blank lines between the rows and at the end
trains("blank lines.csv", csv(end="\n\n") + b"\n\n")
# Excel keeps emptied rows
trains("lines of delimiters.csv", csv() + b",\n,\n", dropped={"empty": 2})
# comments between the rows
trains("comment between.csv", csv()[:-1] + b"\n# the end\n", dropped=EMPTY)

# Quotes and line ends

CODE = "if tea:\n\tdrink()\n\tdrink()"
OTHER_LETTER = row(12, 'the end"', rows=row(10, '"tea'))
LETTER = ("tea,a\npost 4 about tea,a\nthe end", "a")
# turicreate #1692, vroom #484: all rows after an open quote are gone, silently
refused("open quote.csv", csv(row(3, '"post 3')), 'line 5: a quote opens in this row and never closes.*twice, ""')
# pandas #25228: 19988 rows of 20000
refused(
    "text after a quote.csv",
    csv(row(3, '"Tea" she said', rows=row(1, '"two\nlines"'))),
    'line 6: text follows a closing quote.*twice, ""',
)
# label-sleuth #590: "\"blah blah", as databases write it
refused(
    "backslashes.csv", csv(row(3, '"she said \\"tea\\" twice"')), r'line 5: text follows a closing quote.*not as \\"'
)
# pandas #39857: 30219 rows of 30423 of a tsv that was written without quoting
refused(
    "quote over rows.tsv",
    csv(row(5, 'the end"', rows=row(3, '"tea')), "text\tlabel", "\t"),
    'line 5: a quote opens a cell here that seems to hold several rows.*twice, ""',
)
# the same by two quotes of a csv, which is warned of: prose has commas, too
trains(
    "quote over rows.csv",
    csv(row(5, 'the end"', rows=row(3, '"tea', rows=OTHER_LETTER))),
    [*ROWS[:3], LETTER, *ROWS[6:10], (LETTER[0].replace("4 about tea,a", "11 about tea,b"), "a"), *ROWS[13:]],
)
# a program's text in a tsv, with tabs and line ends in its cells
trains("program.tsv", quoted(row(3, CODE), '"text"\t"label"').replace('","', '"\t"').encode(), row(3, CODE))
# dask/distributed #240: line ends within a text
trains("line breaks in cells.csv", quoted(row(3, "tea\n\nmilk\r\nsugar")).encode(), row(3, "tea\n\nmilk\r\nsugar"))
# datasets #1989: ^M in some lines
trains("mixed line ends.csv", (lines(ROWS[:10], end="\r\n") + lines(ROWS[10:]).split("\n", 1)[1]).encode())
# lines that end in CR alone
trains("old mac.csv", csv(end="\r"))
# pandas #19886: the text after a NUL is gone
trains("nul.csv", csv(row(3, "tea\0milk")), row(3, "tea\0milk"))
# datasette-lite #84, pytext #477: field larger than field limit (131072)
trains("long cell.csv", csv(row(3, "tea " * 50_000 + "end")), row(3, "tea " * 50_000 + "end"))
# datasets #2181: block size, because of one very long document
trains("cell of 2 MB.csv", csv(row(0, "tea; " * 400_000 + "end")), row(0, "tea; " * 400_000 + "end"))

# Encodings

CAFE, CHINA = row(3, "café, naïve - 5 €"), [(f"第{i}条: 喝茶", "ab"[i % 2]) for i in range(20)]
MIXED = quoted(row(5, "thé")).encode() + '"café"'.encode("cp1252") + b',"b"\n'
# Excel's Unicode text
trains("utf-16.csv", quoted(CHINA).encode("utf-16"), CHINA)
# turicas/rows #273: line contains NULL byte, because it is UTF-16
trains("utf-16 without a mark.csv", quoted(CHINA).encode("utf-16-le"), CHINA)
# UnicodeDecodeError: 'utf-8' codec can't decode byte 0x96
trains("windows.csv", quoted(CAFE).encode("cp1252"), CAFE)
# two files of two encodings were joined
refused("half utf-8.csv", MIXED, "line 22.*not UTF-8, after 1 characters.*--encoding")
# ChatGLM #1196: invalid encoding in a string
trains("gb18030.csv", quoted(CHINA).encode("gb18030"), CHINA, flags="--encoding gb18030")
# ChatGLM #1196: Chinese text is read as ÄãºÃ
refused("gb18030 not named.csv", quoted(CHINA).encode("gb18030"), "line 2.*not UTF-8.*--encoding, as gb18030")
# the encoding that is named is not the file's
refused("wrong encoding.csv", quoted(CAFE).encode("cp1252"), "line 5.*not utf-8.*--encoding", flags="--encoding utf-8")
# a download ends in the middle of a character
refused("cut character.csv", quoted(CHINA).encode()[:-8], "line 21.*middle of a character.*get it again")

# Files that are something else than their name says

# datasets #6851: can't decode byte 0x8b in position 1: a csv that is gzip's
trains("packed.csv", gzip.compress(csv(), mtime=0))
# gzip.BadGzipFile: Not a gzipped file, because the browser unpacked it
trains("not packed.csv.gz", csv())
# RedPajama #34: Compressed file ended before the end-of-stream marker
refused("cut.csv.gz", gzip.compress(csv(), mtime=0)[:-30], "cut or damaged.*get it again")
# gzip was called twice
refused(
    "packed twice.csv.gz", gzip.compress(gzip.compress(csv(), mtime=0), mtime=0), "compressed twice.*decompress it once"
)
# a download that was a zip archive
refused("zip.csv", archive(**{"rows.csv": csv()}), "a zip archive.*unpack it")
# an xlsx with another name
refused(
    "excel.csv",
    archive(**{"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}),
    "Excel workbook.*save its sheet as CSV",
)
# an xls with another name
refused("old excel.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "old Excel workbook.*save its sheet as CSV")
# a parquet with another name
trains("parquet.csv", parquet(COLUMNS))
# a csv with another name
refused("csv.parquet", csv(), r"no parquet file.*name it \.csv")
# pyarrow: Parquet magic bytes not found in footer
refused("cut.parquet", parquet(COLUMNS)[:-20], "cannot read.*[Gg]et it again")
# a parquet whose texts are not UTF-8
refused("latin.parquet", parquet(COLUMNS | {"text": latin_texts()}), "a text that is not UTF-8: save it anew")
# tidytuesday #2: <!DOCTYPE html> is the first column
refused(
    "web page.csv",
    b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "an HTML page.*get the file that the page links to",
)
# git-lfs #4278: version https://git-lfs.github.com/spec/v1 in place of the csv
refused(
    "pointer.csv",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 175385569\n",
    "Git LFS pointer.*git lfs pull",
)
# LLaMA-Factory #3018: rows in a .txt
refused("words.txt", jsonl(objects()), "csv, tsv, jsonl, json or parquet")
# autotrain #140: jsonl is read as csv
trains("lines.csv", jsonl(objects()))

# JSON

# LLaMA-Factory #8805: Column() changed from object to array in row 0
trains("array.jsonl", json.dumps(objects(), indent=1).encode())
# datasets #1784, ChatGLM #1196: JSONDecodeError: Extra data: line 2 column 1
trains("lines.json", jsonl(objects()))
LONG = row(0, "tea " * 20_000 + "end")
# datasets #2573: Extra data, because of one long line
trains("long lines.json", jsonl(objects(LONG)), LONG)
# datasets #4107: objects over several lines
refused(
    "pretty.jsonl",
    b"\n".join(json.dumps(each, indent=2).encode() for each in objects()),
    "line 1: no JSON object.*write one object a line",
)
# datasets #4107: two objects in a line
refused(
    "two on a line.jsonl",
    jsonl(objects(ROWS[:3])) + jsonl(objects(), end=" "),
    "line 3: no JSON object.*write one object a line",
)
# the rows stand under a key, as APIs answer
trains("wrapped.json", json.dumps({"version": "1", "data": objects()}).encode())
# both splits in a file
refused(
    "train and test.json",
    json.dumps({"train": objects(ROWS[:10]), "test": objects(ROWS[10:])}).encode(),
    "2 arrays of rows.*into its own file",
)
# columns, one of objects and one of lists
trains("nested columns.json", json.dumps(COLUMNS | {"tags": [[1]] * 20, "meta": [{"id": 1}] * 20}).encode())
# pandas.to_json()
trains("columns.json", json.dumps({name: dict(enumerate(part)) for name, part in COLUMNS.items()}).encode())
# columns of different lengths
refused(
    "uneven columns.json",
    json.dumps(COLUMNS | {"label": ["a"]}).encode(),
    "20 in text and 1 in label.*write one object a row",
)
# pandas.to_json(orient='index')
refused("by row.json", json.dumps(dict(enumerate(objects()))).encode(), "no column text or label.*'0', '1'")
# as in LLaMA-Factory #8323: a comma after the last object
refused(
    "trailing comma.json",
    json.dumps(objects(), indent=0).replace("}\n]", "},\n]").encode(),
    "line 8[12]: no JSON.*write one array of objects",
)
# lines of an array, without its brackets
refused("commas.jsonl", jsonl(objects(), end=",\n"), "line 1: no JSON object.*write one object a line")
# Expecting property name enclosed in double quotes: str() of a dict
refused(
    "python.jsonl",
    "\n".join(map(str, objects())).encode(),
    "line 1: no JSON object.*double quotes.*write one object a line",
)
# the last line of a download is cut
refused("cut.jsonl", jsonl(objects())[:-9], "line 20: no JSON object.*write one object a line")
# the download of an array is cut
refused("cut.json", json.dumps(objects(), indent=1).encode()[:-30], r"line 7\d.*write one array of objects")
# blank lines between the objects
trains("blank lines.jsonl", b"\n" + jsonl(objects(), end="\n\n \n") + b"\n\n")
# of two values with one key the last one wins, silently
refused(
    "key twice.jsonl",
    jsonl(objects()) + b'\n{"text": "tea", "label": "a", "text": "milk"}',
    "line 21.*a name stands twice.*keep one",
)
# two names that blanks alone tell apart
refused("names alike.jsonl", jsonl(objects(**{"text ": "milk"})), "line 1: two of its names.*rename one")
# json.dumps writes NaN for pandas' missing values
trains("nan.jsonl", jsonl([*objects(), {"text": "tea", "label": float("nan")}]), dropped=EMPTY)
# datasets #7222: couldn't cast string to null
trains("null labels.jsonl", jsonl([{"text": "milk", "label": None}, *objects()]), dropped=EMPTY)
# axolotl #618: KeyError 'text' after thousands of rows that have it
trains("other keys.jsonl", jsonl([*objects(), {"txt": "tea", "label": "a"}]), dropped=EMPTY)
# TextEncodeInput must be a text: the texts are numbers
trains(
    "numbers.jsonl",
    "\n".join(f'{{"text": {i}.50, "label": {i % 2}}}' for i in range(20)).encode(),
    [(f"{i}.50", str(i % 2)) for i in range(20)],
)
# labels are true and false
trains(
    "booleans.jsonl",
    jsonl([{"text": text, "label": label == "a"} for text, label in ROWS]),
    [(text, str(label == "a")) for text, label in ROWS],
)
# trl #1777: KeyError of a conversational data set
refused(
    "messages.jsonl",
    jsonl([{"messages": [{"role": "user", "content": text}]} for text, _ in ROWS]),
    "no column text or label.*'messages'",
)
# axolotl #1649: conversations
refused(
    "sharegpt.jsonl",
    jsonl([{"conversations": [{"from": "human", "value": text}], "label": label} for text, label in ROWS]),
    "line 1: column conversations holds a list.*a column of text",
    flags="--text_column conversations",
)
# fast-bert #235: a list of labels
refused(
    "several labels.jsonl",
    jsonl([*objects(), {"text": "tea", "label": ["a", "b"]}]),
    "line 21: column label holds a list.*a column of text",
)
# datasets #7092: empty lists where a text is missing
refused(
    "empty lists.jsonl",
    jsonl([*objects(), {"text": [], "label": "a"}]),
    "line 21: column text holds a list.*a column of text",
)
# an array of arrays
refused(
    "rows as lists.jsonl",
    json.dumps([*objects(), ["tea", "a"]]).encode(),
    "row 21: a list, not an object.*write the columns' names",
)
# transformers #8886: surrogates not allowed
refused(
    "half a character.jsonl",
    jsonl(objects()) + b'\n{"text": "tea \\ud83d", "label": "a"}',
    "line 21: column text holds half a character.*write the text anew",
)

# Too few rows, and labels

# EmptyDataError: No columns to parse from file
refused("empty.csv", b"", "is empty.*get it again")
# LLaMA-Factory #2461: Empty dataset!
refused("blank.jsonl", b"\n\n", "has no rows.*one object a row")
# LLaMA-Factory #2460: StopIteration
refused("header only.csv", b"text,label\n", "no rows left.*10 rows or more")
# a first try with one row
refused("one row.csv", csv(ROWS[:1]), "no rows left to test on.*10 rows or more")
# a first try with two rows
refused("two rows.csv", csv(ROWS[:2]), "no rows left to test on.*10 rows or more")
# all labels are alike
refused("one class.csv", csv([(text, "a") for text, _ in ROWS]), r"one class only \(a\).*add rows of another")
# the wrong column is taken for the label
refused(
    "1001 classes.csv",
    csv([(f"tea {i}", f"c{i % 1001}") for i in range(2002)]),
    "1001 classes, more than 1000.*name the label's column",
)
# text-classification #1: the least populated class in y has only 1 member
refused(
    "a row a class.csv", csv([(text, text) for text, _ in ROWS]), "no rows left to test on.*two or more of each class"
)
# text-classification #1: the least populated class in y has only 1 member
trains("a class of one.csv", csv([*ROWS, ("milk", "c")]), [*ROWS, ("milk", "c")])
# asreview #1636: labels become floats where one is missing
trains(
    "float labels.csv",
    csv([*((text, f"{'ab'.index(label)}.0") for text, label in ROWS), ("tea", "")]),
    [(text, f"{'ab'.index(label)}.0") for text, label in ROWS],
    dropped=EMPTY,
)
# asreview #1636: labels become floats where one is missing
trains(
    "float labels.parquet",
    parquet({"text": [*COLUMNS["text"], "tea"], "label": [*map(float, map("ab".index, COLUMNS["label"])), None]}),
    [(text, str("ab".index(label))) for text, label in ROWS],
    dropped=EMPTY,
)
# nequip #198: ' text' is the column's name
trains("blanks in a name.parquet", parquet({" text": COLUMNS["text"], "Label ": COLUMNS["label"]}))
# autotrain #71: one class is duplicated due to casing
trains(
    "label variants.csv",
    csv([(text, ("Spam", "spam ", " ham")[i % 3]) for i, (text, _) in enumerate(ROWS)]),
    [(text, ("Spam", "spam", "ham")[i % 3]) for i, (text, _) in enumerate(ROWS)],
)
# a text stands twice, with two labels: the first one counts
trains("conflicting labels.csv", csv([*ROWS, ("Post 3  about TEA", "a")]), dropped={"duplicate": 1})
# all rows are one
refused("duplicates.csv", csv(ROWS[:1] * 20), "'duplicate': 19.*10 rows or more")
# unsloth #10813: the word None was trained for blank cells
trains("empty texts.csv", csv(row(2, " ", rows=row(5, ""))), without(2, 5), dropped={"empty": 2})
# the wrong column is taken for the text
refused("all texts empty.csv", csv([("", label) for _, label in ROWS]), "'empty': 20.*10 rows or more")
# rows without a class are called None
trains("class none.csv", csv([*ROWS, ("tea", "None")]), dropped={"class None": 1})
# a label that the file of names lacks
refused(
    "no name.csv",
    csv([(text, str(i % 3)) for i, (text, _) in enumerate(ROWS)]),
    "line 4: the label '2' has no name.*--label_names",
    flags="--label_names names.txt",
    beside=[("names.txt", b"ham\nspam\n")],
)
# labels are numbers, their names stand in another file
trains(
    "names.csv",
    csv([(text, str("ab".index(label))) for text, label in ROWS]),
    [(text, {"a": "ham", "b": "spam"}[label]) for text, label in ROWS],
    flags="--label_names names.txt",
    beside=[("names.txt", b"ham\r\nspam\r\n")],
)

# Folders

# datasets: there is no test split
refused("no test", {"train.csv": csv()}, r"no test\.csv.*add it")
# test rows stand in the training rows, too
trains("test in train", {"train.csv": csv(), "test.jsonl": jsonl(objects(ROWS[:4]))}, dropped={"also in test": 4})
# autotrain #71: 61 labels for training, 60 for validation
refused(
    "class in test only",
    {"train.csv": csv(), "test.csv": csv([("milk", "c")])},
    "class 'c' is in the test rows.*move some of its rows there",
)
# train and test were saved by two programs
trains(
    "two dialects",
    {"train.csv": csv(ROWS[:15]), "test.tsv": csv([(label, text) for text, label in ROWS[15:]], "Label\tText", "\t")},
)


def write(folder, names=FILES):
    """Writes the files of these names, and what stands beside them."""
    for name in names:
        file = FILES[name]
        parts = {name: file.content}
        if isinstance(file.content, dict):
            parts = {f"{name}/{part}": content for part, content in file.content.items()}
        for place, content in (parts | dict(file.beside)).items():
            path = Path(folder, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    write(sys.argv[1])
    for name, file in FILES.items():
        print(f"{name}: {'refused' if file.says else f'trains, {len(file.kept)} rows, dropped: {dict(file.dropped)}'}")
