"""What the documents promise, and rules that every file keeps."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path.parent for path in ROOT.glob("*/model.py"))
PAGES = [ROOT / "README.md", *(folder / "README.md" for folder in FOLDERS)]
SHELL = [*sorted(ROOT.glob("*/*.sh")), ROOT / ".ci" / "run"]
MODULES = sorted((ROOT / "common").glob("*.py"))
CODE = [*MODULES, *(path for folder in FOLDERS for path in sorted(folder.glob("*.py")))]


def in_pages():
    """Command lines of the READMEs' shell blocks."""
    for page in PAGES:
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            yield from block.splitlines()


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
    words = [shlex.split(part, comments=True) for part in parts if part and "<" not in part]
    return sorted({tuple(each) for each in words if each and each[0] in ("python", "bash")})


COMMANDS = commands()
# Commands a folder, in its README and in its scripts' docstrings.
SHOWN = dict(distilbert=29, falcon=10, gemma=24, llama2=22, mistral=24, mpt=10, phi2=16, zephyr=22)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a training script leaves for an inference script to find, as far as a dry run looks."""
    folders = {}
    for task in ("classification", "summarization", "instructions"):
        folders[task] = tmp_path_factory.mktemp(task)
        (folders[task] / "adapter").mkdir()
        kept = {"checkpoint": "smollm2", "task": task, "method": "qlora", "setting": "", "settings": {}}
        (folders[task] / "settings.json").write_text(json.dumps(kept))
    return folders


def test_every_folder_shows_its_commands():
    shown = [words[1].partition("/")[0] for words in COMMANDS]
    assert {folder.name: shown.count(folder.name) for folder in FOLDERS} == SHOWN
    assert sum(words[0] == "bash" for words in COMMANDS) >= 3 * len(FOLDERS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_documents_parses(words, trained):
    if words[1] == "-m":
        assert find_spec(words[2])
        return
    program, script, *rest = words
    assert (ROOT / script).is_file()
    more = ["--dry_run"] if script.endswith(".sh") else ["--dry_run", "plan"]
    if script.endswith("run_lora.sh"):
        more += ["--epochs", "2", "--dropout", "0.1"]  # all 72 cells are listed in test_sweep.py
    uses = script.endswith(("_inference.py", "decoding_sweep.sh")) and "baseline" not in script
    if uses and "--experiment_dir" not in rest:
        task = next((task for task in trained if task in script), "instructions")
        more += ["--experiment_dir", str(trained[task])]
    done = subprocess.run(
        [{"python": sys.executable}.get(program, program), script, *rest, *more],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_make_target_that_the_readme_names_exists():
    named = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text(encoding="utf-8")))
    text = (ROOT / "Makefile").read_text()
    assert named >= {"demo", "test", "lint", "tables", "bench"}
    assert named <= set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    for module in re.findall(r"-m (common\.\w+)", text):
        assert find_spec(module), module


def test_the_readmes_map_names_every_file_of_common_and_no_other():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("| file of `common/`")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+\.py)`", section))
    assert named == {path.name for path in MODULES} - {"__init__.py"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folders_readme_names_every_file_of_the_folder(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    files = [path.name for path in folder.iterdir() if path.suffix in (".py", ".sh", ".csv")]
    assert len(files) >= 11
    assert [name for name in files if f"`{name}`" not in text] == []


def test_links_between_the_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("path", SHELL, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shell_scripts_stop_at_the_first_error_and_are_executable(path):
    assert "set -euo pipefail" in path.read_text().splitlines()
    assert os.access(path, os.X_OK)


def test_there_are_three_shell_scripts_a_folder_and_those_of_single_studies():
    assert len(SHELL) == 3 * len(FOLDERS) + 2 + 3 + 1 + 1  # NEFTune, decoding, executions, .ci/run
    assert len(FOLDERS) == 8


@pytest.mark.parametrize("path", CODE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_code_is_taken_from_data_or_checkpoints(path):
    unsafe = r"trust_remote_code|\bpickle\b|torch\.load\(|(?<![\w.])(?:eval|exec)\("
    assert re.findall(unsafe, path.read_text(encoding="utf-8")) == []


FAMILIES = re.compile(r"\b(?:mistral(?:ai)?|zephyr|mpt|llama|falcon|phi|gemma|distilbert)\d*\b", re.IGNORECASE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_common_code_knows_no_models_name(path):
    lines = enumerate(path.read_text(encoding="utf-8").replace("llama.cpp", "").splitlines(), 1)
    assert [f"{path.name}:{number}: {line.strip()}" for number, line in lines if FAMILIES.search(line)] == []
