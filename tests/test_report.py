"""The page to choose by: every figure in it is that of its record; torn records, files of others, size and time."""

import csv
import json
import resource

import numpy
import pytest
from conftest import ROOT, tool
from test_join import CLASSIFICATION, SUMMARIZATION, TRAINING, add, altered, bare, record

from common import budget, data, files
from common.console import InputError
from common.evaluation.kept import row_scores
from common.reports import page as report
from common.reports import runs, statistics
from common.reports.page import build, choices, picture

MAIN = {task: names[0] for task, names in runs.SHOWN.items()}
PRICE = 1.212  # USD an hour of the instance whose price the READMEs show
FIELD = '<script type="application/json" id="content">'


def inside(path):
    """The data in a page."""
    return json.loads(path.read_text(encoding="utf-8").split(FIELD)[1].split("</script>")[0])


def at(path):
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def labels(one):
    """Labelled rows that the run of a record learned from, or saw in its prompt."""
    settings = one["identity"]["settings"]
    learned = one["identity"]["kind"] != "baseline" or settings["baseline"] not in (None, "dummy")
    return one["data"]["n"]["train"] if learned else settings["shots"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(path of the page of the committed records, its content, processor seconds that the command took)."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    began = children()
    done = tool(ROOT, "report", "--output", str(path))
    assert done.returncode == 0, done.stderr
    return path, inside(path), children() - began


def children():
    """Processor seconds of finished child processes: unlike the clock, they do not depend on who else is working."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_every_record_is_made_into_a_page_within_ten_seconds(made):
    _, content, seconds = made
    assert seconds < 10
    shown = [path for each in content["choices"] if each["measured"] for path in each["record"]]
    assert sorted(shown) == sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/results/*.json"))
    assert content["left_out"] == []


def test_every_measured_figure_equals_its_record(made):
    _, content, _ = made
    measured = [each for each in content["choices"] if each["measured"]]
    assert len(measured) > 40
    for each in measured:
        records = [at(path) for path in each["record"]]
        first, fields = records[0], records[0]["identity"]
        scores = [one["metrics"][MAIN[fields["task"]]] for one in records]
        score = scores[0] if len(scores) == 1 else statistics.over_seeds(scores)
        assert (each["score"], each["interval"], each["n"]) == (score["value"], score["ci95"], score["n"])
        assert each["text"] == "{:.1f} [{:.1f}, {:.1f}]".format(score["value"], *score["ci95"])
        assert each["labels"] == labels(first)
        trained = first
        if fields["kind"] == "inference":
            (path,) = ROOT.glob(f"*/results/*_{fields['trained']['id']}.json")
            trained = at(path)
        training = trained["training"]
        assert each["bytes"] == (training["peak_memory_bytes"] if training else None)
        if training:
            assert each["usd"] == mean_seconds(records if trained is first else [trained]) / 3600 * PRICE


def mean_seconds(records):
    """Seconds of training, the mean of the runs that had as many threads as the first."""
    alike = [one for one in records if one["environment"]["threads"] == records[0]["environment"]["threads"]]
    return sum(one["training"]["seconds"] for one in alike) / len(alike)


def test_every_figure_of_an_opened_run_equals_its_record(made):
    _, content, _ = made
    scores = points = 0
    measured = [each["record"] for each in content["choices"] if each["measured"]]
    groups = {paths[0]: [at(path) for path in paths] for paths in measured}
    for path, details in content["details"].items():
        one = at(path)
        assert details["command"] == one["command"]
        both = [one["metrics_before"] or {}, one["metrics"]]
        if one["identity"]["kind"] == "baseline":
            both = [one["metrics"], {}]
        if not details["seeds"]:
            assert details["metrics"] == {
                name: [stage.get(name) for stage in both] for stage in both for name in both[0] | stage
            }
            scores += len(details["metrics"])
        for name, values in (details["curves"] or {}).items():
            recorded = {value if isinstance(value, int) else float(f"{value:.5g}") for value in curve(one, name)}
            assert set(values) <= recorded
            assert values[-1] in recorded
            points += len(values)
        for name, value in details["training"].items():
            wanted = mean_seconds(groups[path]) if name == "seconds" else one["training"][name]
            assert value == wanted
    assert scores > 250
    assert points > 1000


def curve(one, name):
    return [value for value in one["training"]["curves"][name] if value is not None]


def test_the_price_of_a_baseline_is_of_its_fit_and_not_of_its_test(made):
    _, content, _ = made
    found = [each for each in content["choices"] if each["name"].startswith("frozen-features") and each["usd"]]
    assert len(found) >= 5
    for each in found:
        stages = at(each["record"][0])["inference"]["stages"]
        learned = stages["base, features of the training rows"] + stages["base, regression"]
        assert each["usd"] == pytest.approx(learned / 3600 * PRICE)
    old = at(found[0]["record"][0])
    del old["inference"]["stages"]  # records of the first month have none: unknown, and not 0
    assert choices.price_of(old)["usd"] is None


def rows_of(paths):
    """Array of shape (seeds, rows): the main metric of every test row in these records."""
    arrays = []
    for one in map(at, paths):
        stage = one["row_scores"].get("tuned") or one["row_scores"]["base"]
        arrays.append(row_scores(stage[MAIN[one["identity"]["task"]]]))
    return numpy.array(arrays)


def test_every_test_is_of_the_rows_of_its_records(made):
    _, content, _ = made
    records = {each["id"]: each["record"] for each in content["choices"]}
    assert len(content["tests"]) > 5
    for test in content["tests"]:
        one, other = (rows_of(records[test[side]]) for side in ("one", "other"))
        hashes = {at(test[side])["identity"]["data"]["sha256"]["test"] for side in ("one", "other")}
        assert len(hashes) == 1
        if test["claim"] == "methods":
            is_fixed = bool((other == other[0]).all())  # the same answers with every seed
            found = statistics.methods_differ(other, one, fixed=is_fixed)
        else:
            found = statistics.models_differ(other[0], one[0])
        assert (test["value"], test["low"], test["high"]) == pytest.approx((found.value, found.low, found.high))
        assert found.p <= test["p"] <= 1
        assert (test["word"] == "no difference seen") == (test["p"] >= 0.05)


def test_every_published_figure_equals_its_line(made):
    _, content, _ = made
    printed = [each for each in content["choices"] if not each["measured"]]
    assert len(printed) > 150
    for each in printed:
        lines = []
        for place in each["record"]:
            name, number = place.rsplit(":", 1)
            with open(ROOT / name, encoding="utf-8", newline="") as stream:
                lines.append(list(csv.DictReader(stream))[int(number) - 2])
        for line in lines:
            shown = each["text"], each["score"], each["dataset"]
            assert (line["value"], float(line["value"]), line["task"]) == shown
        assert each["suspect"] == all(line["suspect"] for line in lines)
        assert each["interval"] is None
    small = next(each for each in printed if each["record"] == ["distilbert/published.csv:2"])
    training = ("distilbert/distilbert-base-uncased", "classification")
    assert small["usd"] == budget.of_defaults(*training)["usd"] * 0.025
    assert small["bytes"] == budget.peak_of_defaults(*training)
    assert small["labels"] == 266


def test_the_page_asks_for_nothing_and_is_small(made):
    path, *_ = made
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < build.LIMIT
    policy = text.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in text.split("<script type")[0].replace("http-equiv", "")
    risky = ("innerHTML", "insertAdjacentHTML", "document.write", "fetch(", "eval(")
    for name in build.SCRIPTS:
        script = (build.HERE / name).read_text(encoding="utf-8")
        assert [word for word in risky if word in script] == []


def test_the_picture_on_the_front_page_is_of_todays_figures():
    shown, _ = build.content()
    command = "python -m common report --screenshot assets/report.png"
    assert picture.stamp_of(ROOT / "assets" / "report.png") == build.stamp(shown), command
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(assets/report.png)" in front
    assert "python -m common report" in front


def test_a_torn_and_a_foreign_record_are_left_out_with_a_line_that_names_them(tmp_path, monkeypatch, capsys):
    home = bare(tmp_path, monkeypatch)
    add(home, record(SUMMARIZATION))
    add(home, altered(record(CLASSIFICATION), checkpoint="somebody/else"))
    (home / "mistral" / "results" / "torn.json").write_text('{"schema_version": 2, "stat')
    report.main(["--output", str(tmp_path / "report.html")])
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out: " in line]
    content = inside(tmp_path / "report.html")
    assert len(lines) == len(content["left_out"]) == 2
    assert sum("mistral/results/torn.json" in line for line in lines) == 1
    assert sum("not a run of one of this folder's checkpoints" in line for line in lines) == 1
    assert sum(each["measured"] for each in content["choices"]) == 1


@pytest.mark.parametrize(("name", "content"), [("notes.html", "<p>mine</p>"), ("folder", None)])
def test_what_is_no_page_of_ours_is_not_overwritten(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content) if content else path.mkdir()
    with pytest.raises(InputError, match="is no page of this command"):
        report.main(["--output", str(path)])
    with pytest.raises(InputError, match="no folder"):
        report.main(["--output", str(tmp_path / "nowhere" / "report.html")])
    (tmp_path / "mine.png").write_bytes(b"mine")
    reason = "is no picture of this command" if picture.browser() else "no browser"
    with pytest.raises(InputError, match=reason):
        report.main(["--output", str(tmp_path / "new.html"), "--screenshot", str(tmp_path / "mine.png")])
    assert not (tmp_path / "new.html").exists()


def test_five_hundred_runs_fit_two_megabytes(tmp_path, monkeypatch):
    home = bare(tmp_path, monkeypatch)
    points = {name: [i + 0.123456 for i in range(300)] for name in TRAINING["curves"]}
    base = record(SUMMARIZATION, training={**TRAINING, "curves": points})
    for i in range(500):
        one = altered(base, settings={**base["identity"]["settings"], "learning_rate": 1e-5 * (i + 1)})
        files.write_json(home / "mistral" / "results" / f"{one['id']}.json", one)
    monkeypatch.setattr(build.folders.records, "validate", lambda *_: None)  # 500 times the same schema
    text, shown = build.page()
    assert sum(each["measured"] for each in shown["choices"]) == len(shown["details"]) == 500
    assert len(text.encode()) <= build.LIMIT
    details = next(iter(shown["details"].values()))
    assert details["metrics"]["rouge1"][1] == base["metrics"]["rouge1"]
    assert details["command"]


def demo(home, **changes):
    """A record of the sample's reviews under experiments/, with predictions of both stages: "negative" from the base
    model, "positive" from the tuned one. Returns the test rows."""
    sample = data.of_task("sentiment", demo=True)
    one = record("mistral/mistral_sentiment.py", n=(28, 4, len(sample.test)), kind="sample")
    one = altered(one, data={**one["identity"]["data"], "name": "sample", "sha256": sample.sha256})
    matrix = {"labels": ["negative", "positive"], "counts": [[1, 0], [0, 1]]}
    folder = home / "mistral" / "experiments" / "demo"
    files.write_json(folder / "record.json", {**one, "confusion": {"base": matrix, "tuned": matrix}, **changes})
    for stage, scores in (("base", [0.0, -1.0]), ("tuned", [-1.0, 0.0])):
        rows = list(range(len(sample.test)))
        batch = {"rows": rows, "seconds": 1.0, "found": [{"scores": scores}] * len(rows)}
        (folder / f"predictions-{stage}-labels.jsonl").write_text(json.dumps(batch) + "\n{torn")
    return sample.test


def test_answers_stand_side_by_side_with_right_and_wrong(tmp_path, monkeypatch):
    rows = demo(bare(tmp_path, monkeypatch))
    _, shown = build.page(experiments=True)
    found = shown["details"]["mistral/experiments/demo/record.json"]["answers"]
    assert (found["total"], found["labelled"], len(found["rows"])) == (len(rows), True, len(rows))
    for row, (_, text, wanted, base, tuned, before, after) in zip(rows, found["rows"], strict=True):
        assert text.startswith(row["text"][:400])
        assert (wanted, base, tuned) == (row["target"], "negative", "positive")
        assert (before, after) == (100.0 * (wanted == "negative"), 100.0 * (wanted == "positive"))
    (dataset,) = (each for each in shown["datasets"] if each["own"])
    assert dataset["title"].startswith("sample, test rows")
    _, shown = build.page()
    assert not any(each["own"] for each in shown["datasets"])


def test_texts_of_own_data_stand_beside_answers_if_their_hash_is_the_records(tmp_path, monkeypatch):
    home = bare(tmp_path, monkeypatch)
    lines = [f"text {i} of {label},{label}" for label in ("negative", "positive") for i in range(20)]
    (tmp_path / "my.csv").write_text("\n".join(["text,label", *lines]))
    rows = data.of_task("sentiment", path=str(tmp_path / "my.csv"))
    demo(home)
    path = home / "mistral" / "experiments" / "demo" / "record.json"
    one = files.read_json(path)
    one["data"] |= {"kind": "own", "n": {**one["data"]["n"], "test": len(rows.test)}}
    fields = {**one["identity"]["data"], "name": rows.name, "sha256": rows.sha256}
    files.write_json(path, altered(one, data=fields))
    for own, texts in ((None, {None}), (str(tmp_path / "my.csv"), {row["text"] for row in rows.test})):
        _, shown = build.page(experiments=True, own=own)
        answers = shown["details"]["mistral/experiments/demo/record.json"]["answers"]
        assert {text for _, text, *_ in answers["rows"]} == texts
    (choice,) = (each for each in shown["choices"] if each["measured"])
    assert "my.csv" not in choice["title"]  # it is the data set
    assert "my.csv" in next(each["title"] for each in shown["datasets"] if each["own"])
