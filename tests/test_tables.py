"""READMEs' tables: made of records and published figures, in a copy of the repository."""

import re

import pytest
from conftest import ROOT, tool
from test_join import (
    CLASSIFICATION,
    FOLDERS,
    METRIC,
    SUMMARIZATION,
    TRAINING,
    add,
    bare,
    every_line,
    inferred,
    record,
    scores,
)

from common import files
from common.console import InputError
from common.reports import cells, runs, tables
from common.runs import folders

PAGES = [ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]
PAGES += sorted(ROOT.glob("common/*/README.md"))


@pytest.fixture
def pages(tmp_path, monkeypatch):
    return rendered(tmp_path, monkeypatch)


def rendered(tmp_path, monkeypatch):
    """A copy of the folders with the front page, tables as they are without records."""
    home = bare(tmp_path, monkeypatch)
    (home / "README.md").write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    tables.main([])
    return home


def markdown_tables(text):
    """[[row of cells]] of every table of a page, the head first."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [line.strip().strip("|").split("|") for line in block.splitlines()]
        yield [[cell.strip() for cell in line] for line in lines if not set("".join(line)) <= set("-: ")], block


def block(home, name, page="mistral/README.md"):
    """The text between the markers of a table, rewritten before it is read."""
    tables.main(["mistral"])
    return (home / page).read_text(encoding="utf-8").split(f"<!-- table:{name} -->")[1].split("<!-- /table -->")[0]


def rows(text):
    """{first cell: {head: cell}} of all tables in a text, joined on their first cells."""
    joined = {}
    for (head, *body), _ in markdown_tables(text):
        for row in body:
            joined.setdefault(row[0], {}).update(zip(head, row, strict=True))
    return joined


def test_the_readmes_of_this_repository_are_what_its_records_say():
    done = tool(ROOT, "tables", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_have_seven_columns_and_120_characters_at_most(page):
    """D.2: they were 320 to 645 characters wide. Tables that were typed by hand count too."""
    wide = []
    for (head, *_), text in markdown_tables(page.read_text(encoding="utf-8")):
        if len(head) > 7 or max(map(len, text.splitlines())) > 120:
            wide.append((len(head), max(map(len, text.splitlines())), head))
    assert wide == []


def test_the_pages_have_tables():
    assert sum(len(list(markdown_tables(page.read_text(encoding="utf-8")))) for page in PAGES) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_table_has_a_column_of_dashes_or_two_of_one_name(page):
    """D.2: columns of dashes stood beside filled ones."""
    for (head, *body), _ in markdown_tables(page.read_text(encoding="utf-8")):
        assert len(set(head)) == len(head)
        assert [name for name, *column in zip(head, *body, strict=True) if set(column) == {"-"}] == []


def test_no_page_shows_one_models_figures_for_another_ones():
    for page in PAGES:
        heads = [head for (head, *_), _ in markdown_tables(page.read_text(encoding="utf-8"))]
        assert not [head for head in heads if any("instead" in cell for cell in head)]


def test_a_table_too_wide_goes_on_in_a_second_one_with_the_same_first_column():
    head = ["run", *(f"column {i}" for i in range(9))]
    text = cells.table(head, [["a", *map(str, range(9))], ["b", *("x" * 30 for _ in range(9))]])
    made = [table for table, _ in markdown_tables(text)]
    assert len(made) > 2
    assert all(len(table[0]) <= 7 and table[1][0] == "a" for table in made)
    assert [name for table in made for name in table[0][1:]] == head[1:]
    assert cells.table(["run", "lost", "kept"], [["a", "-", "1"]]).splitlines()[0] == "| run | kept |"
    assert cells.table(["run", "lost"], [["a", "-"]]) == ""


def test_a_figure_has_one_decimal_its_interval_and_n():
    assert cells.figure({"value": 37.24, "ci95": [32.93, 41.71], "n": 64}, n=True) == "37.2 [32.9, 41.7], n = 64"
    assert cells.figure({"value": 0.0, "ci95": None, "n": 1}) == "0.0"
    assert cells.figure({"value": None, "ci95": None, "n": None}, n=True) == cells.figure(None) == "-"


def test_rewriting_twice_changes_nothing_and_the_check_finds_what_was_edited_by_hand(pages, capsys):
    add(pages, record(SUMMARIZATION))
    tables.main([])
    capsys.readouterr()
    assert tables.main([]) is None
    assert capsys.readouterr().out.endswith("READMEs, 0 rewritten\n")
    page = pages / "mistral" / "README.md"
    edited = page.read_text(encoding="utf-8").replace("49.3 †", "49.4 †", 1)
    page.write_text(edited, encoding="utf-8")
    assert tables.main(["mistral", "--check"]) == 1
    assert "stale: mistral/README.md; run python -m common tables" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == edited
    tables.main(["mistral"])
    assert "49.4 †" not in page.read_text(encoding="utf-8")


def test_the_check_fails_after_a_record_is_added(pages, capsys):
    add(pages, record(SUMMARIZATION))
    assert tables.main(["--check"]) == 1
    told = capsys.readouterr().out
    assert {"mistral/README.md", "README.md"} <= set(re.findall(r"[\w/]*README\.md", told))


@pytest.mark.parametrize(
    ("words", "mention"), [(["nothere"], "no model folder nothere; there are: distil"), (["--chek"], "--check")]
)
def test_wrong_words_are_refused_in_one_line(words, mention):
    done = tool(ROOT, "tables", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")
    assert mention in done.stderr


def test_a_record_that_is_not_valid_is_refused_and_nothing_is_rewritten(pages):
    before = {path: path.read_bytes() for path in pages.rglob("README.md")}
    made = record(CLASSIFICATION)
    add(pages, record(SUMMARIZATION))
    files.write_json(pages / "zephyr" / "results" / "a.json", {**made, "model": 3})
    with pytest.raises(InputError, match="field model"):
        tables.main([])
    assert {path: path.read_bytes() for path in pages.rglob("README.md")} == before


def test_a_marker_without_its_end_or_of_no_table_is_named(pages):
    page = pages / "mistral" / "README.md"
    text = page.read_text(encoding="utf-8")
    for broken, said in (
        (text.replace("<!-- /table -->", "", 1), "without its <!-- /table -->"),
        (text.replace("table:mistral-1 ", "table:mistral-99 "), "no table mistral-99"),
        (text + "<!-- figure:nothing at all --><!-- /figure -->", "no figure nothing"),
        (text + "<!-- figure:published mistral-2 | a | b --><!-- /figure -->", "no published figure mistral-2"),
    ):
        page.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError, match=re.escape(said)):
            tables.main(["mistral"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_published_figure_stands_in_its_cell_with_its_mark_and_its_note(folder):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    lines = [line for name, line in every_line() if name == folder]
    assert {line["table"] for line in lines} == set(re.findall(rf"<!-- table:({folder}-\d+) -->", text))
    for line in lines:
        part = text.split(f"<!-- table:{line['table']} -->")[1].split("<!-- /table -->")[0]
        if line["value"]:
            cell = rows(part)[line["row"]][f"published: {line['column']}"]
            assert cell.split()[0] == line["value"]
            assert ("†" in cell) == bool(line["suspect"])
            if line["note"]:
                letter = re.search("<sup>(.)</sup>", cell)[1]
                assert f"<sup>{letter}</sup> {line['note']}" in part
    assert all(line["note"] for line in lines if line["suspect"])


def test_a_published_table_names_its_study_with_a_link(pages):
    assert "(https://github.com/AbhimanyuAryan/llm-finetuning), IMDB study README" in block(pages, "mistral-6")
    assert "(https://github.com/Ouroborosrex/AlpacaFineTuning), Alpaca study README" in block(pages, "mistral-7")


def test_a_table_says_what_it_takes_to_measure_it_until_there_is_a_figure(pages):
    text = block(pages, "mistral-2")
    assert "measured:" not in text
    line = next(line for line in text.splitlines() if line.startswith("Not measured here yet. To measure it: "))
    assert "`python mistral/mistral_summarization.py`" in line
    assert re.search(r"\d+ GB, \d+ (s|min|h).*, [\d.]+ USD", line)
    assert "`bash mistral/baseline_inference.sh --task_type classification`" in block(pages, "mistral-4")
    add(pages, record(SUMMARIZATION))
    text = block(pages, "mistral-2")
    assert "To measure" not in text
    assert rows(text)["fine-tuning + QLoRA"]["measured: ROUGE-1"] == "41.0 [36.0, 46.0], n = 300"
    assert rows(text)["zero-shot"]["measured: ROUGE-1"] == "-"


def test_a_table_with_nothing_published_and_nothing_measured_is_one_line(pages):
    tables.main(["gemma"])
    text = (pages / "gemma/README.md").read_text(encoding="utf-8").split("<!-- table:gemma-1 -->")[1]
    text = text.split("<!-- /table -->")[0].strip()
    assert text.startswith("To measure it: `python gemma/gemma_classification.py`")
    assert text.count("\n") == 0


def test_runs_show_before_and_after_with_rows_and_reasons(pages):
    add(pages, record(SUMMARIZATION, "--lora_r", "2"))
    lost = {"status": "OOM", "reason": "memory | does <b>not</b> hold", "metrics": None, "metrics_before": None}
    add(pages, record(SUMMARIZATION, "--lora_r", "4", **lost))
    text = block(pages, "runs")
    row = rows(text)["qlora, lora_r 2"]
    assert row["ROUGE-1, base → tuned"] == "20.0 [15.0, 25.0] → 41.0 [36.0, 46.0]"
    assert (row["rows: train / test"], row["learning"]) == ("281 / 300", "10 min")
    assert row["ROUGE-2"] == "20.0 [15.0, 25.0] → 41.0 [36.0, 46.0]"
    assert rows(text)["qlora, lora_r 4"]["ROUGE-1, base → tuned"] == "OOM"
    on_one = record(SUMMARIZATION, "--lora_r", "8")
    on_one["environment"] |= {"threads": 1, "cpu_count": 2}
    add(pages, on_one)
    assert rows(block(pages, "runs"))["qlora, lora_r 8"]["learning"] == "10 min on 1 core"
    assert "qlora, lora_r 4: OOM, memory &#124; does &#60;b&#62;not&#60;/b&#62; hold" in text
    assert "python mistral/mistral_summarization.py --lora_r 2" in text


def test_the_grid_of_adapters_and_the_shares_of_the_rows_have_tables(pages):
    """D.6: run_lora.sh had no results table."""
    assert "`bash mistral/run_lora.sh`, 600 epochs" in block(pages, "run-lora")
    for rank, value in ((2, 30.0), (4, 35.0)):
        words = ("--lora_r", str(rank), "--epochs", "5", "--dropout", "0.2")
        add(pages, record(SUMMARIZATION, *words, metrics=scores(value)))
    found = rows(block(pages, "run-lora"))
    assert found["2, 0.2"]["5 epochs"] == "30.0 [25.0, 35.0], n = 300"
    assert found["4, 0.2"]["5 epochs"] == "35.0 [30.0, 40.0], n = 300"
    add(pages, record(SUMMARIZATION, "--lora_r", "4", "--max_train_samples", "900", n=(900, 0, 300)))
    assert rows(block(pages, "run-lora")) == found  # a run on other rows is no cell of this grid
    assert "trained on 281 dialogues" in block(pages, "run-lora")
    folder = folder_of("smollm2")
    assert "`bash smollm2/sample_ablate.sh`" in runs.sample_efficiency(folder)
    script = "smollm2/smollm2_classification.py"
    add(pages, record(script, "--train_sample_fraction", "0.1", n=(1129, 0, 300)), "smollm2")
    add(pages, record(script, "--train_sample_fraction", "0.05", "--neftune", "5"), "smollm2")
    found = rows(runs.sample_efficiency(folder_of("smollm2")))
    assert found["10.0%"] == {
        "share of the rows": "10.0%",
        "trained on": "1,129 rows",
        "qlora": "41.0 [36.0, 46.0], n = 300",
        "qlora+neftune": "-",
    }


def folder_of(name):
    return next(each for each in folders.all_folders() if each.name == name)


def test_ways_of_decoding_are_rows_and_the_echo_is_the_last(pages):
    trained = record("mistral/mistral_instructions.py")
    for settings in ({"temperature": 0.25}, {"num_beams": 4}, {}):
        add(pages, inferred(trained, "mistral/mistral_instructions_inference.py", **settings))
    found = rows(runs.decoding(folder_of("mistral")))
    assert list(found) == ["greedy", "temperature 0.25", "4 beams", "an echo of the prompt"]
    assert found["4 beams"]["BLEU"] == "41.0 [36.0, 46.0]"


UNKNOWN = [("training", name) for name in TRAINING if name not in ("losses", "validation", "curves")]
UNKNOWN += [("training",), ("metrics_before",), ("inference",), ("metrics", "accuracy", "value")]
UNKNOWN += [("metrics", "accuracy", "ci95"), ("environment", "cpu_count")]


def test_whatever_a_record_does_not_know_is_a_dash(pages):
    for path in UNKNOWN:
        made = record(CLASSIFICATION, "--epochs", str(len(list(pages.rglob("results/*"))) + 10))
        made = {**made, "metrics": {name: dict(metric) for name, metric in made["metrics"].items()}}
        place = made
        for name in path[:-1]:
            place[name] = dict(place[name])
            place = place[name]
        place[path[-1]] = None
        add(pages, made)
    odd = {"base": {"labels": ["a", "b"], "counts": [[1], [2, 3]]}, "tuned": {"labels": ["a"], "counts": [[1], [2]]}}
    add(pages, record("mistral/mistral_sentiment.py", confusion=odd, training={**TRAINING, "curves": {}} | EMPTY))
    add(pages, record(CLASSIFICATION, "--seed", "99", metrics={"accuracy": METRIC}, metrics_before=None))
    add(pages, record(CLASSIFICATION, "--seed", "98", training=None))  # merged with the one before
    text = block(pages, "runs")
    assert len([line for line in text.splitlines() if line.startswith("| qlora, epochs ")]) >= len(UNKNOWN)
    assert "None" not in text


EMPTY = {"validation": [], "losses": [], "curves": TRAINING["curves"]}


HARM = "a|b <script>x</script> <!-- table:cost -->\n[c](javascript:d) `e` *f* $g$ \\h &amp;"


def test_texts_of_records_are_escaped_once_at_the_edge(pages):
    """B.4: they broke rows, stood in READMEs as HTML, and made the next rendering impossible."""
    assert set("|<>[]`*\\") & set(cells.markdown(HARM)) == set()
    assert "\n" not in cells.markdown(HARM) + cells.plain(HARM)
    assert cells.plain("a $x_1$") == r"a \$x_1\$"
    failed = {"status": "failed", "reason": HARM, "metrics": None, "metrics_before": None}
    environment = {**record(CLASSIFICATION)["environment"], "device": HARM}
    add(pages, record(CLASSIFICATION, "--seed", "2", **failed))
    add(pages, record(CLASSIFICATION, "--seed", "1", "--text_column", HARM, environment=environment))
    labels = {"tuned": {"labels": [HARM, "b"], "counts": [[1, 0], [0, 1]]}}
    add(pages, record("mistral/mistral_sentiment.py", confusion=labels))
    tables.main([])
    page = pages / "mistral" / "README.md"
    first = page.read_text(encoding="utf-8")
    assert "<script>" not in first
    assert "](javascript" not in first
    for (head, *body), _ in markdown_tables(first):
        assert all(len(row) == len(head) for row in body)
    tables.main([])
    assert page.read_text(encoding="utf-8") == first
