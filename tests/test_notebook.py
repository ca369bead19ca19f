"""assets/own_data.ipynb: kept without outputs, and run as a user runs it, from its own folder."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, copied
from test_folders import FOLDERS

NOTEBOOK = ROOT / "assets" / "own_data.ipynb"
MINUTES = 10


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_from_a_csv_to_answers_within_its_time(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    home = copied(tmp_path / "home", "common", *(folder.name for folder in FOLDERS), "assets")
    shutil.copy(ROOT / "requirements.txt", home)
    monkeypatch.setenv("PYTHONPATH", str(home))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(home / "assets" / "own_data.ipynb", 4)
    began = time.monotonic()
    client = nbclient.NotebookClient(notebook, timeout=60 * MINUTES, resources={"metadata": {"path": home / "assets"}})
    client.execute()
    assert time.monotonic() - began < 60 * MINUTES
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "error:" not in said, said[said.index("error:") - 500 :]
    folder = home / "experiments" / "own_data"
    assert (folder / "answers.csv").read_text(encoding="utf-8").splitlines()[0] == (
        "ticket,message,predicted,probability,probabilities"
    )
    for kind in ("minilm", "smollm2"):
        record = json.loads((folder / kind / "record.json").read_text())
        assert (record["status"], record["data"]["kind"]) == ("done", "own")
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
