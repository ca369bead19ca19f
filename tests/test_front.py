"""The front page's figures, what equals the studies and what does not, and the tables of speed."""

import pytest
from conftest import ROOT
from test_join import FOLDERS, SUMMARIZATION, add, record, scores
from test_tables import block, rendered, rows

from common import files
from common.reports import front, protocol, runs, tables
from common.runs import folders


@pytest.fixture
def pages(tmp_path, monkeypatch):
    return rendered(tmp_path, monkeypatch)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_difference_from_the_study_has_its_reason_beside_the_value(folder):
    """A.22: the pages said that the settings were the source's."""
    path = ROOT / folder
    here = folders.Folder(path, folders.load_module(path / "model.py"), [], [])
    silent = []
    for task in runs.SHOWN:
        script = path / f"{folder}_{task}.py"
        if script.is_file() and (here.facts.VARIANTS[0].format != "encoder" or task == "sentiment"):
            assert f"<!-- table:protocol-{task} -->" in (path / "README.md").read_text(encoding="utf-8")
            beside = protocol.comments(script)
            _, differing = protocol.compared(here, task, protocol.of_task(here, task)[0])
            names = [what.strip("`") for what, *_ in differing if what.startswith("`")]
            silent += [f"{script.name}: {name}" for name in names if name not in beside]
    assert silent == []


def test_equal_and_different_settings_are_read_from_the_script(pages):
    script = pages / "mistral" / "mistral_summarization.py"
    text = script.read_text(encoding="utf-8")
    assert "`learning_rate` 0.0002" in block(pages, "protocol-summarization").split("Different on purpose")[0]
    script.write_text(text.replace("learning_rate=2e-4,", "learning_rate=1e-4,  # halved for this test"))
    folders.load_module.cache_clear()
    front.join.training_settings.cache_clear()
    changed = block(pages, "protocol-summarization")
    folders.load_module.cache_clear()
    front.join.training_settings.cache_clear()
    row = next(row for name, row in rows(changed).items() if name.startswith("`learning_rate`"))
    assert (row["in the study"], row["here"]) == ("0.0002", "0.0001")
    assert "halved for this test" in changed


def test_the_front_page_shows_a_row_a_folder_and_its_default_run(pages):
    add(pages, record(SUMMARIZATION, "--max_train_samples", "100", n=(100, 0, 64)))
    add(pages, record(SUMMARIZATION, "--neftune", "5", metrics=scores(99.0)))
    tables.main([])
    found = rows((pages / "README.md").read_text("utf-8").split("<!-- table:models -->")[1].split("<!-- /table")[0])
    assert list(found) == [f"[{folder}]({folder})" for folder in FOLDERS]
    row = found["[mistral](mistral)"]
    assert row["SAMSum, ROUGE-1"] == "53.61 or 51.71 †; 41.0 [36.0, 46.0], n = 64"
    assert found["[zephyr](zephyr)"]["SAMSum, ROUGE-1"] == "52.84"


def test_sentences_figures_come_from_records_and_published_lines(pages):
    all_folders = folders.all_folders()
    assert front.figure("published distilbert-1 | 2.5% (266) | BERT", all_folders) == "16.91"
    assert front.figure("measured mistral summarization", all_folders) == "not measured yet"
    assert front.figure("memory", all_folders) == "not measured yet"
    add(pages, record(SUMMARIZATION, n=(1400, 0, 300)))
    all_folders = folders.all_folders()
    told = front.figure("measured mistral summarization", all_folders)
    assert told == "ROUGE-1 from 20.0 [15.0, 25.0] to 41.0 [36.0, 46.0], n = 300"
    assert front.figure("training mistral summarization", all_folders) == "1,400 rows in 10 min"
    assert front.figure("interval summarization", all_folders) == "± 5.0 with n = 300"
    low, high = front.figure("range summarization qlora", all_folders).split(" to ")
    reliable = [line for line in front.comparable(all_folders, "summarization", "qlora")]
    assert not any(line["suspect"] for line in reliable)
    values = [float(line["value"]) for line in reliable]
    assert (float(low), float(high)) == (min(values), max(values))


def test_figures_that_speed_tables_show_are_those_of_the_files():
    text = (ROOT / "common" / "bench" / "README.md").read_text(encoding="utf-8")
    assert "<!-- table:bench -->" in text
    kept = files.read_json(ROOT / "assets" / "bench.json")
    lines = sum(len(part["lines"]) for part in kept.values())
    assert len(rows(text.split("<!-- table:bench -->")[1].split("<!-- /table")[0])) == lines
