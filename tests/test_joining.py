"""CONTRIBUTING.md is true: an eleventh folder made from it alone trains, and the tools find it."""

import os
import re
import subprocess
import sys

from conftest import ROOT, copied, tool


def written(home):
    """Write the files that the guide shows into `home`; returns the number of their lines."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"^`(qwen/\S+)`.*?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in shown] == ["qwen/model.py", "qwen/prompts.py", "qwen/qwen_summarization.py"]
    published = (ROOT / "phi2" / "published.csv").read_text(encoding="utf-8").splitlines(keepends=True)[0]
    for name, content in [*shown, ("qwen/published.csv", published)]:
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(content, encoding="utf-8")
    return sum(content.count("\n") for _, content in shown) + 1


def test_an_eleventh_folder_from_the_guide_runs_its_demo(tmp_path, tiny_folder):
    home = copied(tmp_path, "common", "phi2")
    assert written(home) < 120
    words = ["--demo", "--pretrained_ckpt", str(tiny_folder), "--max_test_samples", "2", "--max_new_tokens", "4"]
    command = [sys.executable, str(home / "qwen" / "qwen_summarization.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(home)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    record = run.stdout.strip().splitlines()[-1].removeprefix("record: ")
    assert "/qwen/experiments/" in record
    assert "valid" in tool(home, "records", record).stdout
    budget = tool(home, "budget", str(home / "qwen" / "qwen_summarization.py"))
    assert budget.returncode == 0, budget.stderr
    assert "Qwen2.5-0.5B" in budget.stdout
    cells = tool(home, "sweep", str(home / "qwen" / "qwen_summarization.py"), "--lora_r", "2", "4", "--dry_run")
    assert cells.returncode == 0, cells.stderr
    report = tool(home, "report", "--output", str(tmp_path / "page.html"))
    assert report.returncode == 0, report.stderr


def test_the_counts_of_the_guide_are_those_of_the_architecture(tmp_path):
    import torch
    import transformers

    from common.runs import folders

    written(tmp_path)
    variant = folders.load_module(tmp_path / "qwen" / "model.py").VARIANTS[0]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**variant.shape))
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    assert model.num_parameters() == variant.parameters
    assert sum(layer.weight.numel() for layer in linear) == variant.linear_parameters
