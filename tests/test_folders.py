"""What holds across the model folders: one set of files, one experiment, only the declared differences."""

import ast
import csv
import re
from pathlib import Path

import pytest

from common import folders

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/model.py"))
WRITERS = [name for name in FOLDERS if name != "distilbert"]
TASKS = (
    "classification",
    "summarization",
    "classification_inference",
    "summarization_inference",
    "baseline_inference",
)
INSTRUCTIONS = {"MODEL_instructions.py", "MODEL_instructions_inference.py", "decoding_sweep.sh"}
MORE_FILES = {
    "zephyr": {"run_lora_neftune.sh", "sample_ablate_neftune.sh"},
    "llama2": INSTRUCTIONS,
    "phi2": INSTRUCTIONS,
    "mistral": INSTRUCTIONS | {"MODEL_sentiment.py"},
    "gemma": {"MODEL_sentiment.py", "sentiment_executions.sh"},
    "distilbert": {"MODEL_sentiment.py", "MODEL_sentiment_loop.py", "MODEL_features.py"},
}
# An encoder gets a head instead of a prompt: the same stages, from another file of common/.
ENCODER = [
    ("training.tune(run, run.model(), posts)", "encoders.tune(run, encoders.network(run, posts.labels), posts)"),
    ("training.tune(run, run.model(), dialogues)", "encoders.tune(run, encoders.network(run, []), dialogues)"),
    ("evaluation.labels(run, run.model(), posts)", "encoders.labels(run, encoders.network(run, posts.labels), posts)"),
    (
        "evaluation.summaries(run, run.model(), dialogues)",
        "encoders.summaries(run, encoders.network(run, []), dialogues)",
    ),
    ("evaluation.of_task(run, run.model(), rows)", "encoders.baseline(run, rows)"),
    ("evaluation.", "encoders."),
]


def files(folder):
    """Names of a folder's files, its own name out of them."""
    found = (path.name for path in (ROOT / folder).iterdir() if path.is_file())
    return {re.sub(f"^{folder}_", "MODEL_", name) for name in found}


def main_of(folder, task):
    """The `main` of a script, without comments, as text."""
    tree = ast.parse((ROOT / folder / f"{folder}_{task}.py").read_text(encoding="utf-8"))
    return ast.unparse(next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"))


def test_there_are_eight_folders():
    assert FOLDERS == ["distilbert", "falcon", "gemma", "llama2", "mistral", "mpt", "phi2", "zephyr"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_has_the_same_set_of_files(folder):
    same = files("falcon")
    assert len(same) == 12
    assert files(folder) == same | MORE_FILES.get(folder, set())


@pytest.mark.parametrize("task", TASKS)
def test_the_mains_of_a_task_are_equal_but_for_the_declared_differences(task):
    expected = main_of("mistral", task)
    assert {folder: main_of(folder, task) for folder in WRITERS} == dict.fromkeys(WRITERS, expected)
    for writer, encoder in ENCODER:
        expected = expected.replace(writer, encoder)
    assert main_of("distilbert", task) == expected


@pytest.mark.parametrize("task", ["instructions", "instructions_inference"])
def test_the_mains_of_the_alpaca_study_are_equal(task):
    assert len({main_of(folder, task) for folder in ("llama2", "mistral", "phi2")}) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_causal_folders_script_differs_from_mistrals_in_its_docstring_alone(task):
    def code(folder):
        text = (ROOT / folder / f"{folder}_{task}.py").read_text(encoding="utf-8")
        return text.split('"""\n', 1)[1]

    assert {folder for folder in WRITERS if code(folder) != code("mistral")} == set()


@pytest.mark.parametrize("folder", WRITERS)
def test_a_causal_folder_adds_350_lines_of_python_or_fewer(folder):
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).glob("*.py"))
    assert 150 < lines <= 350


def logic(path):
    """Runs of logic of a file, each a list of lines: the bodies of its functions but `arguments`, and what the
    module does besides importing and naming facts and wording."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name != "arguments"]
    rest = [
        n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.Import | ast.ImportFrom | ast.Assign | ast.Expr)
    ]
    return [ast.unparse(node).splitlines() for node in [*functions, *rest]]


def test_no_six_line_run_of_logic_stands_in_two_folders():
    seen, twice, runs = {}, [], 0
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            for lines in logic(path):
                runs += 1
                for start in range(len(lines) - 5):
                    run = "\n".join(lines[start : start + 6])
                    if seen.setdefault(run, folder) != folder:
                        twice.append((seen[run], str(path.relative_to(ROOT)), run))
    scripts = 8 * 5 + 3 * 2 + 5
    assert runs == scripts * 2 + 2  # a main and a start of every script, and the loop; facts and wording have none
    assert twice == []


def published():
    """(folder, line) of every figure in the folders' published.csv."""
    for folder in FOLDERS:
        with open(ROOT / folder / "published.csv", encoding="utf-8", newline="") as stream:
            yield from ((folder, line) for line in csv.DictReader(stream))


def test_every_published_figure_has_one_home():
    key = ("study", "model", "method", "setting", "metric", "value")
    homes, cited = {}, {}
    for folder, line in published():
        if line["value"]:
            where = homes if line["home"] == folder else cited
            where.setdefault(tuple(line[name] for name in key), set()).add((folder, line["home"]))
    assert len(homes) == 333
    assert [figure for figure, places in homes.items() if len(places) > 1] == []
    for figure, places in cited.items():
        assert homes[figure] == {(home, home) for _, home in places}, figure


def test_every_line_of_published_csv_stands_in_a_table_of_its_folders_readme():
    for folder in FOLDERS:
        wanted = {line["table"] for home, line in published() if home == folder}
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        assert wanted == set(re.findall(rf"<!-- table:({folder}-\d) -->", text))


def test_a_figure_that_is_suspect_says_why():
    marked = [line for _, line in published() if line["suspect"]]
    assert len(marked) > 60
    assert all(line["note"] for line in marked)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_first_variant_is_the_default_and_every_variant_is_a_row_of_the_tables(folder):
    facts = folders.load_module(ROOT / folder / "model.py")
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    for variant in facts.VARIANTS:
        assert re.fullmatch("[0-9a-f]{40}", variant.revision), variant
        assert variant.checkpoint in front
        assert variant.checkpoint in readme
    named = {line["model"] for home, line in published() if home == folder and line["home"] == folder}
    assert facts.VARIANTS[0].name.lower() in named
