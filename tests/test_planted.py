"""What strangers may have put into a file: no pickle is loaded, no code of a checkpoint is run, no path leads out of
a folder, no token is repeated."""

import json
import os
import pickle
import shutil

import pytest
from conftest import ROOT, tool
from inprocess import contents, little_training, refused, start

from common import checkpoints, console
from common.console import InputError

SCRIPT = ROOT / "mistral" / "mistral_baseline_inference.py"
BASELINE = ("--task_type", "summarization", "--demo", "--max_test_samples", "1", "--max_new_tokens", "1")
BASELINE += ("--precision", "float32")
CODE = "import pathlib\npathlib.Path({!r}).touch()\n"


class Planted:
    """What a pickle runs when it is loaded: it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def mark(tmp_path):
    """A path without blanks at which the planted code makes a file."""
    return tmp_path / "ran"


@pytest.fixture
def evil(mark):
    """The planted pickle; it works."""
    content = pickle.dumps(Planted(mark))
    pickle.loads(content)
    assert mark.is_file()
    mark.unlink()
    return content


@pytest.fixture
def base(tmp_path, tiny_folder):
    return shutil.copytree(tiny_folder, tmp_path / "base")


# Checkpoints


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "tf_model.h5", "adapter_model.bin"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_pickle_in_a_checkpoint_is_not_loaded(base, mark, evil, name, beside, tmp_path):
    if not beside or name == "model.safetensors":
        (base / "model.safetensors").unlink()
    (base / name).write_bytes(evil)
    run = start(SCRIPT, "--pretrained_ckpt", base, *BASELINE, "--output_dir", tmp_path / "out")
    if (base / "model.safetensors").is_file() and name != "model.safetensors":
        assert run.code == 0, run.err
    else:
        refused(run)
    assert not mark.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_of_a_checkpoint_is_not_run(base, mark, file, tmp_path):
    (base / "planted.py").write_text(CODE.format(str(mark)) + "class Planted: pass\n")
    path = base / file
    config = json.loads(path.read_text()) if path.is_file() else {}
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    config["auto_map"] = dict.fromkeys(names, "planted.Planted")
    config["custom_generate"] = "planted"
    path.write_text(json.dumps(config))
    run = start(SCRIPT, "--pretrained_ckpt", base, *BASELINE, "--output_dir", tmp_path / "out")
    assert run.code in (0, 2), run.err
    assert not mark.exists()


def test_a_chat_template_reaches_nothing_but_its_messages(base, mark, tmp_path):
    attack = "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}"
    (base / "chat_template.jinja").write_text(attack)
    refused(
        start(
            ROOT / "smollm2" / "smollm2_baseline_inference.py",
            *("--pretrained_ckpt", base, *BASELINE, "--output_dir", tmp_path / "out"),
        )
    )
    assert not mark.exists()


def test_an_index_names_files_of_its_own_folder_alone(base, tmp_path):
    (base / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="leads out of the folder"):
        checkpoints.prepare(checkpoints.find(str(base)))


# Adapters, rows, records


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_folder):
    """The folder of a trained run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    little_training(tiny_folder, folder)
    return folder


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "adapter_model.safetensors", "training_args.bin", "optimizer.pt"]
)
def test_a_pickle_beside_or_in_place_of_an_adapter_is_not_loaded(run, mark, evil, name, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "adapter" / name).write_bytes(evil)
    if name == "adapter_model.bin":
        (folder / "adapter" / "adapter_model.safetensors").unlink()
    asked = ("--experiment_dir", folder, "--text", "Ann: keys?", "--max_new_tokens", "1")
    answer = start(ROOT / "mistral" / "mistral_summarization_inference.py", *asked)
    assert answer.code == (2 if name.startswith("adapter_model") else 0), answer.err
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["rows.pkl", "rows.csv", "rows.jsonl", "rows.json", "rows.parquet", "rows.npy", "rows.pt"]
)
def test_a_pickle_among_rows_is_not_loaded(mark, evil, name, tmp_path):
    (tmp_path / name).write_bytes(evil)
    words = ("--data", tmp_path / name, "--text_column", "text", "--label_column", "label", "--dry_run", "plan")
    run = start(ROOT / "minilm" / "minilm_classification.py", *words)
    assert run.code == 2, run.err
    assert name in run.err.splitlines()[-1]
    assert not mark.exists()


def test_a_script_and_a_pickle_in_a_data_folder_are_not_run(mark, evil, tmp_path, monkeypatch):
    samsum = tmp_path / "data" / "samsum"
    samsum.mkdir(parents=True)
    (samsum / "samsum.py").write_text(CODE.format(str(mark)))
    for split in ("train", "validation", "test"):
        (samsum / f"{split}.pkl").write_bytes(evil)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    run = start(ROOT / "mistral" / "mistral_summarization.py", "--dry_run", "plan")
    assert run.code in (0, 2), run.err
    assert not mark.exists()


# Tokens

SECRETS = {
    "HF_TOKEN": "hf_" + "aB3" * 11,
    "OPENAI_API_KEY": "sk-" + "xY9" * 12,
    "WANDB_API_KEY": "0123456789abcdef" * 2,
}


def test_tokens_are_in_no_file_and_no_line(run, tmp_path, tiny_folder, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    made = little_training(tiny_folder, tmp_path / "run")
    everything = [made.out, made.err, *(str(content) for content in contents(tmp_path / "run").values())]
    assert not [value for value in SECRETS.values() for text in everything if value in text]


def test_an_error_and_a_command_repeat_no_token():
    for value in SECRETS.values():
        told = tool(ROOT, "look", f"/none/{value}.csv").stderr
        if not value.startswith("0"):  # known by its shape
            assert value not in told
            assert "***" in told
    assert (
        console.masked("https://ann:secret@host/x and sk-learn, hf_model")
        == "https://***@host/x and sk-learn, hf_model"
    )


def test_the_value_of_a_variable_that_holds_a_secret_is_masked(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct horse")
    assert console.one_line("refused: correct horse\nagain") == "refused: *** again"
