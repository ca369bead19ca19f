"""What the documents promise, and rules that every file keeps."""

import ast
import os
import re
import shlex

import pytest
from conftest import ROOT

from common import sweeps
from common.__main__ import VERBS
from common.runs import folders

FOLDERS = sorted(path.parent for path in ROOT.glob("*/model.py"))
MEASURED = ("minilm", "smollm2")  # models that run on any machine
GUIDES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "common/README.md")]
PAGES = [*GUIDES, *(folder / "README.md" for folder in FOLDERS), *sorted(ROOT.glob("common/*/README.md"))]
SHELL = [*sorted(ROOT.glob("*/*.sh")), ROOT / ".ci" / "run"]
MODULES = sorted(path for path in (ROOT / "common").rglob("*.py") if "competitors" not in path.parts)
CODE = [*MODULES, *(path for folder in FOLDERS for path in sorted(folder.glob("*.py")))]
PACKAGES = sorted(path.parent for path in (ROOT / "common").glob("*/__init__.py") if path.parent.name != "sample")


def in_pages():
    """Command lines of the READMEs' shell blocks and indented blocks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```shell\n(.*?)```", text, re.DOTALL):
            yield from block.splitlines()
        yield from re.findall(r"^    (\S.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
        yield from re.findall(r"`((?:python|bash) [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def in_docstrings():
    """Command lines of the docstrings of the model folders' scripts: indented, or between backticks."""
    for path in CODE:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if path.parent in FOLDERS:
            yield from re.findall(r"^    (\S.*)$", text, re.MULTILINE)
            yield from re.findall(r"`((?:python|bash) [^`]*)`", text)


def commands():
    """Every `python …` and `bash …` command as words, without comments and placeholders, each once."""
    parts = [part.strip() for line in [*in_pages(), *in_docstrings()] for part in line.split(" && ")]
    words = []
    for part in parts:
        if re.match(r"(python|bash) ", part) and not re.search(r"[<…]|\bMODEL\b|\bSCRIPT\b|\bVERB\b", part):
            words.append(tuple(shlex.split(part, comments=True)))
    return sorted(set(words))


COMMANDS = commands()


def test_every_folder_and_every_package_shows_its_commands():
    shown = [words[1].partition("/")[0] for words in COMMANDS]
    assert {folder.name: shown.count(folder.name) for folder in FOLDERS if shown.count(folder.name) < 8} == {}
    assert len(COMMANDS) > 150
    verbs = {words[3] for words in COMMANDS if words[1:3] == ("-m", "common") and len(words) > 3}
    assert verbs >= set(VERBS) - {"checkpoints", "records"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_documents_parses(words, capsys):
    """By the script's own parser. A shell script's further flags are its script's."""
    if words[1] == "-m":
        assert words[2] == "common"
        assert len(words) == 3 or words[3] in VERBS
        if len(words) > 4 and words[3] in ("sweep", "budget") and words[4].endswith(".py"):
            assert (ROOT / words[4]).is_file()
        return
    path = ROOT / words[1]
    assert path.is_file()
    flags = list(words[2:])
    if path.name == "evidence.sh" or path.parent.name == "tests":  # several scripts (test_sweep.py), or no experiment
        return
    if path.suffix == ".sh":
        assert os.access(path, os.X_OK)
        (name,) = set(re.findall(r"\$here/(\w+\.py)", path.read_text()))
        path = path.parent / name
        flags = sweeps.parser().parse_known_args([str(path), *flags])[1]
    args = folders.experiment(path).arguments(flags)
    assert capsys.readouterr().err == ""
    assert args.task_type


def test_every_make_target_that_the_pages_name_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for page in PAGES:
        for line in re.findall(r"`make ([a-z -]+)`", page.read_text(encoding="utf-8")):
            named |= set(line.split())
    assert named >= {"demo", "test", "lint", "tables", "bench"}
    assert named <= targets
    for verb in re.findall(r"-m common (\w+)", (ROOT / "Makefile").read_text()):
        assert verb in VERBS


def test_the_front_page_fits_three_screens_and_asks_answers_and_links():
    """D.1: it asked which model, how much data, at what cost, and never answered."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert text.index("Which open language model should I fine-tune") < text.index("## The answer so far")
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 2  # of the answer, and of the page to choose by
    assert text.count("<!-- table:models -->") == 1
    for folder in FOLDERS:
        assert f"]({folder.name})" in text
    for package in PACKAGES:
        assert f"]({package.relative_to(ROOT)}/README.md)" in text
    for study in (
        "georgian-io/LLM-Finetuning-Toolkit",
        "AbhimanyuAryan/llm-finetuning",
        "Ouroborosrex/AlpacaFineTuning",
    ):
        assert f"https://github.com/{study}" in text  # D.3: "the source" was never named


def test_the_front_page_says_how_to_use_own_data_and_what_a_laptop_needs():
    """D.4, D.5."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for words in ("--data my.csv", "--text_column", "--label_column", "--instruction", "figure:memory", "CPU wheels"):
        assert words in text


def test_sentences_of_the_answer_have_no_typed_figures():
    """Scores, intervals and prices stand between markers that the renderer fills."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## The answer so far")[1].split("## Models")[0]
    assert text.count("<!-- figure:") >= 12
    typed = re.sub(r"<!-- figure:.*?<!-- /figure -->|<!-- table:.*?<!-- /table -->", "", text, flags=re.DOTALL)
    assert re.findall(r"\d+\.\d\d|\[\d|USD|± ?\d", re.sub(r"0\.00?\b", "", typed)) == []


@pytest.mark.parametrize("folder", MEASURED)
def test_a_measured_folder_has_figures_in_its_tables_and_sentences(folder):
    """Nine cells of ten, and every sentence: a run that another one replaced leaves no hole."""
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (.*) \|$", text, flags=re.MULTILINE)
    table_cells = [cell.strip() for line in lines for cell in line.split(" | ")]
    assert len(table_cells) > 400
    assert table_cells.count("-") <= len(table_cells) / 10
    for page in (text, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.findall(r"<!-- figure:(.*?) -->not (?:measured|compared)", page) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folders_readme_names_every_file_of_the_folder(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    files = [path.name for path in folder.iterdir() if path.suffix in (".py", ".sh", ".csv")]
    assert len(files) >= 11
    assert [name for name in files if f"`{name}`" not in text] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_has_a_readme(package):
    assert len((package / "README.md").read_text(encoding="utf-8").splitlines()) >= 20


def test_the_readme_of_the_reports_names_every_file_of_theirs():
    text = (ROOT / "common/reports/README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "common/reports").iterdir() if path.suffix in (".py", ".json")}
    assert {name for name in files - {"__init__.py"} if name not in text} == set()


def test_links_between_the_documents_lead_somewhere():
    pages = [*PAGES, *sorted(ROOT.glob("*.md"))]
    links = 0
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
            links += 1
    assert links > 60


@pytest.mark.parametrize("path", SHELL, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shell_scripts_stop_at_the_first_error_and_are_executable(path):
    assert "set -euo pipefail" in path.read_text().splitlines()
    assert os.access(path, os.X_OK)


def test_there_are_three_shell_scripts_a_folder_and_those_of_single_studies():
    assert len(FOLDERS) == 10
    counts = {"zephyr": 5, "llama2": 4, "phi2": 4, "mistral": 4, "gemma": 4, "smollm2": 6, "minilm": 4}
    assert {folder.name: len(list(folder.glob("*.sh"))) for folder in FOLDERS} == {
        folder.name: counts.get(folder.name, 3) for folder in FOLDERS
    }


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_is_taken_from_data_or_checkpoints(path):
    unsafe = r"trust_remote_code(?!=False)|pickle\.(?:load|Unpickler\b)|torch\.load\(|(?<![\w.])(?:eval|exec)\("
    assert re.findall(unsafe, path.read_text(encoding="utf-8")) == []


FAMILIES = re.compile(r"\b(?:mistral(?:ai)?|zephyr|mpt|llama|falcon|phi|gemma|distilbert)\d*\b", re.IGNORECASE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_common_code_knows_no_models_name(path):
    tools = r"llama\.cpp|llama-cpp-python|llama_cpp\.Llama"
    lines = enumerate(re.sub(tools, "", path.read_text(encoding="utf-8")).splitlines(), 1)
    assert [f"{path.name}:{number}: {line.strip()}" for number, line in lines if FAMILIES.search(line)] == []


def test_the_lock_has_every_requirement_at_its_version_and_with_hashes():
    """torch's file depends on the device: it is installed first."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entry = r"^([\w.-]+)==([^\s;]+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)*)"
    entries = re.findall(entry, lock, re.MULTILINE)
    assert len(entries) > 80
    assert [name for name, _, hashes in entries if not hashes] == []
    locked = {name.lower().replace("_", "-"): version for name, version, _ in entries}
    wanted = re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert {name: version for name, version in wanted if name != "torch"}.items() <= locked.items()
