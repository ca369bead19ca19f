"""Broken files of rows (tests/broken.py): each trains, or one line says what is wrong with it and what to do."""

import re

import broken
import pytest
from conftest import ROOT, record_of

from common import console, data
from common.console import InputError
from common.runs import folders

TRAIN = [name for name, file in broken.FILES.items() if not file.says]
REFUSED = [name for name, file in broken.FILES.items() if file.says]


def load(folder, name):
    """The rows of a file as the script reads them."""
    broken.write(folder, [name])
    flags = dict(zip(broken.FILES[name].flags[::2], broken.FILES[name].flags[1::2], strict=True))
    rows = {flag.removeprefix("--").replace("label_column", "target_column"): value for flag, value in flags.items()}
    rows |= {"label_names": str(folder / rows["label_names"])} if "label_names" in rows else {}
    return data.load("classification", path=str(folder / name), **rows)


def test_there_are_sixty_kinds_and_more_of_both_sorts():
    assert len(TRAIN) >= 30
    assert len(REFUSED) >= 30


@pytest.mark.parametrize("name", TRAIN)
def test_an_odd_file_gives_its_rows_word_for_word_and_counts_the_others(name, tmp_path):
    file, found = broken.FILES[name], load(tmp_path, name)
    rows = found.train + found.validation + found.test
    assert sorted((row["text"], row["target"]) for row in rows) == sorted((t.strip(), n.strip()) for t, n in file.kept)
    assert found.dropped == dict(file.dropped)


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_by_a_line_with_file_place_and_remedy(name, tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path, name)
    line = console.one_line(caught.value)
    assert re.search(broken.FILES[name].says, line), line
    assert name in line
    assert len(line) < 500


@pytest.mark.parametrize(
    ("name", "said"),
    [("windows.csv", r"line 5\): read as Windows-1252"), ("quote over rows.csv", "line 5: .*several rows")],
)
def test_what_may_be_misread_is_warned_of_once(name, said, tmp_path, capsys):
    load(tmp_path, name)
    warning = capsys.readouterr().err
    assert re.fullmatch(rf"warning: {name}.*{said}.*\n", warning), warning


def test_a_letter_in_a_csv_is_no_quote_over_rows(tmp_path, capsys):
    letter = '"Dear Ann,\nthe tea, with milk, was good.\nBob",a\n'
    (tmp_path / "letters.csv").write_text(broken.lines() + letter)
    assert sum(data.load("classification", path=str(tmp_path / "letters.csv")).n.values()) == 21
    assert capsys.readouterr().err == ""


# By the scripts, as users start them

SAMPLED = [
    *["no header.csv", "header again.csv", "delimiter without quotes.csv", "open quote.csv", "quote over rows.tsv"],
    *["gb18030 not named.csv", "cut.csv.gz", "excel.csv", "pointer.csv", "pretty.jsonl", "half a character.jsonl"],
    *["empty.csv", "one row.csv", "no name.csv", "class in test only"],
]


@pytest.mark.parametrize("name", SAMPLED)
def test_a_script_refuses_with_exit_code_2_and_one_line_and_writes_nothing(name, tmp_path, script):
    file = broken.FILES[name]
    broken.write(tmp_path, [name])
    before = sorted(tmp_path.rglob("*"))
    words = ["--data", name, *file.flags, "--output_dir", "out"]
    done = script("minilm/minilm_classification.py", *words, tiny=False, cwd=tmp_path)
    assert done.returncode == console.BAD_INPUT
    assert re.fullmatch(r"error: .+\n", done.stderr), done.stderr
    assert re.search(file.says, done.stderr)
    assert name in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A random encoder, as a local folder."""
    import tiny

    facts = folders.load_module(ROOT / "distilbert" / "model.py")
    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"), facts.VARIANTS[0].shape)


MORE = [pytest.param(name, marks=pytest.mark.slow) for name in ("test in train", "names.csv", "cell of 2 MB.csv")]


@pytest.mark.parametrize("name", ["windows.csv", "null labels.jsonl", *MORE])
def test_a_script_trains_on_an_odd_file_and_its_record_counts_every_row(name, tmp_path, script, tiny_encoder):
    file = broken.FILES[name]
    broken.write(tmp_path, [name])
    words = [
        "--data",
        name,
        *file.flags,
        "--pretrained_ckpt",
        str(tiny_encoder),
        "--epochs",
        "1",
        "--output_dir",
        "out",
    ]
    record = record_of(script("distilbert/distilbert_classification.py", *words, tiny=False, cwd=tmp_path), tmp_path)
    assert record["status"] == "done"
    assert sum(record["data"]["n"].values()) == len(file.kept)
    assert record["data"]["dropped"] == dict(file.dropped)
