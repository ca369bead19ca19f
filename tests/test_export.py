"""Exports of a trained run: other tools load them and answer the same; the card holds; nothing else is touched.

Answers are compared with generation.generate, which scored the run, in float32, on 20 prompts."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import types

import bitsandbytes
import huggingface_hub
import pytest
from conftest import ROOT, tool
from inprocess import contents, done

from common import checkpoints, export, generation, qlora
from common.bench import shared
from common.console import InputError
from common.export import card, gguf, hub, trained
from common.runs import folders, records
from common.runs.questions import Questions
from common.settings import Execution

TEXTS = [f"Ann: who is there? {'no ' * (7 * i % 23)}Bob: it is me, number {i}" for i in range(20)]
LABELS = ["cat's", "cow", "dog|s"]
TRAIN = ("--precision", "float32", "--max_document_tokens", "48", "--max_new_tokens", "12", "--no_before")
TRAIN += ("--learning_rate", "0.01", "--lora_r", "16", "--epochs", "1")  # more would write one token over and over


def train(script, base, folder):
    """The folder of a run on the sample."""
    return records.folder(done(ROOT / script, *TRAIN, "--demo", "--pretrained_ckpt", base, "--output_dir", folder).path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a tiny summarization run in plain format, on the sample."""
    import tiny

    base = tiny.write(tmp_path_factory.mktemp("base") / "tiny", tiny.config(initializer_range=0.2))
    return train("mistral/mistral_summarization.py", base, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """The same of a chat model whose turns end in a token that is not the end of sequence."""
    import tiny

    base = tiny.write(tmp_path_factory.mktemp("base") / "tiny-chat", tiny.config(initializer_range=0.2), chat="gemma")
    return train("smollm2/smollm2_summarization.py", base, tmp_path_factory.mktemp("chat") / "run")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Runs of a tiny encoder on rows of its own, in a csv that has to be described: {"full": every weight trained,
    "adapter": with an adapter, "rows": the csv, "reading": how it is read}."""
    import tiny

    place = tmp_path_factory.mktemp("encoder")
    shape = folders.load_module(ROOT / "distilbert" / "model.py").VARIANTS[0].shape
    base = tiny.write_encoder(place / "tiny-encoder", shape)
    lines = [f'"{word} number {i}"|{label}' for i in range(15) for label, word in enumerate(LABELS)]
    (place / "mine.csv").write_text("\n".join(["text|label", *lines]), encoding="cp500")
    (place / "names.txt").write_text("\n".join(LABELS))
    reading = ("--encoding", "cp500", "--delimiter", "|", "--label_names", place / "names.txt")
    words = ("--data", place / "mine.csv", *reading, "--pretrained_ckpt", base, "--precision", "float32")
    words += ("--epochs", "2")
    for name, more in (("full", ()), ("adapter", ("--lora_r", "8"))):
        done(
            ROOT / "distilbert/distilbert_classification.py", *words, "--no_before", "--output_dir", place / name, *more
        )
    return {"full": place / "full", "adapter": place / "adapter", "rows": place / "mine.csv", "reading": reading}


@pytest.fixture
def made(tmp_path):
    """made(run, kind, …) -> the folder of a new export."""

    def make(run, kind, *words):
        export.main([str(run), "--to", kind, "--output", str(tmp_path / kind), "--rows", "0", *map(str, words)])
        return tmp_path / kind

    return make


def reason(*words):
    """The message with which an export is refused."""
    with pytest.raises(InputError) as caught:
        export.main(list(map(str, words)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ours(run, model, tokenizer, texts=TEXTS):
    """What generation.generate answers to the texts in the run's wording."""
    exported = trained.find(run)
    encoder, found = exported.encoder(tokenizer), {}
    keep = lambda rows, answers, seconds: found.update(zip(rows, answers, strict=True))  # noqa: E731
    prompts = [encoder.prompt(text) for text in texts]
    generation.generate(model, encoder, prompts, exported.settings.max_new_tokens, 10, keep)
    return [found[i]["text"] for i in range(len(texts))]


def run_model(run):
    """(the run's model as it is scored: the adapter on its 4-bit base, its tokenizer)."""
    checkpoint = trained.find(run).checkpoint
    return qlora.trained(checkpoint, Execution(folder=run), run), qlora.tokenizer(checkpoint)


def on_the_card(folder, base=None, texts=TEXTS):
    """The code on the card of an export as a script that sets `answers` to its answers to the texts."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    code = code.replace('FOLDER = "."', f"FOLDER = {str(folder)!r}")
    code = re.sub(r"^BASE = .*$", f"BASE = {str(base)!r}", code, flags=re.MULTILINE)
    code = re.sub(r'(?<=Llama\()"(.*?)"', lambda found: repr(str(folder / found[1])), code)
    loading, asking = re.split(r"^document = .*\n", code, flags=re.MULTILINE)
    loop = "".join(f"    {line}\n" for line in asking.replace("print(", "answers.append(").splitlines())
    return f"{loading}\nanswers = []\nfor document in {texts!r}:\n{loop}"


def by_the_card(*args):
    """Answers by the code of `on_the_card`."""
    names = {}
    exec(on_the_card(*args), names)
    return names["answers"]


# what other tools make of it


def test_an_adapters_folder_has_what_plain_libraries_need_from_training_on(plain, chat):
    for run in (plain, chat):
        config = json.loads((run / "adapter" / "generation_config.json").read_text())
        tokenizer = qlora.tokenizer(trained.find(run).checkpoint)
        assert config["eos_token_id"] == trained.find(run).encoder(tokenizer).stop
        assert (config["max_new_tokens"], config["do_sample"]) == (12, False)
        assert (run / "adapter" / "tokenizer.json").is_file()
    assert len(config["eos_token_id"]) == 2  # end of turn and end of sequence


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_the_adapter_answers_the_same_in_plain_peft_by_the_code_on_its_card(form, made, request, monkeypatch):
    # On some processors bitsandbytes multiplies 4-bit weights in bfloat16, whatever the inputs are.
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
    run = request.getfixturevalue(form)
    folder = made(run, "adapter")
    expected = ours(run, *run_model(run))
    assert by_the_card(folder, trained.find(run).checkpoint.name) == expected
    assert len(set(expected)) > 5


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_the_merged_model_answers_the_same_in_plain_transformers_by_the_code_on_its_card(form, made, request):
    import peft
    import torch
    import transformers

    run = request.getfixturevalue(form)
    folder = made(run, "merged")
    tokenizer = qlora.tokenizer(checkpoints.find(str(folder)))
    auto, base = transformers.AutoModelForCausalLM, trained.find(run).checkpoint.name
    expected = ours(run, auto.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer)
    assert by_the_card(folder) == expected
    assert len(set(expected)) > 5
    unmerged = peft.PeftModel.from_pretrained(auto.from_pretrained(base, dtype=torch.float32), run / "adapter")
    assert ours(run, unmerged.eval(), tokenizer) == expected  # the adapter is in the weights
    assert ours(run, auto.from_pretrained(base, dtype=torch.float32).eval(), tokenizer) != expected


def test_the_merged_model_has_the_dtype_that_the_base_was_published_in(plain, made, monkeypatch):
    """In bfloat16 every weight is the sum of base and adapter, rounded once."""
    import safetensors.torch
    import torch

    run = trained.find(plain)
    assert run.published(types.SimpleNamespace(dtype=None)) == "bfloat16"
    monkeypatch.setattr(trained.Trained, "published", lambda self, config: "bfloat16")
    base = safetensors.torch.load_file(f"{run.checkpoint.name}/model.safetensors")
    adapter = safetensors.torch.load_file(run.weights)
    merged = safetensors.torch.load_file(made(plain, "merged") / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    name = "model.layers.1.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    scale = run.settings.lora_alpha / run.settings.lora_r
    expected = (base[f"{name}.weight"].bfloat16().float() + scale * b @ a).bfloat16()
    assert torch.equal(merged[f"{name}.weight"], expected)


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_classifier_answers_by_its_labels_names_in_plain_transformers(kind, classifier, made):
    import transformers

    from common import encoders

    folder, run = made(classifier[kind], "merged"), trained.find(classifier[kind])
    classify = transformers.pipeline("text-classification", model=str(folder), truncation=True)
    model = encoders.network(run.checkpoint, run.labels, run.settings, Execution(folder=run.folder), run.folder)
    reader = encoders.reader(qlora.tokenizer(run.checkpoint), run.template, run.settings)
    for text in ("cat's number 77", "dog|s number 3", "neither of them"):
        asked = Questions([{"text": text}], [0], 1.0)
        (own,) = encoders.answers(model, reader, asked, run.labels, Execution(folder=None))
        (found,) = classify(text)
        same = found["label"] == own["answer"] and found["score"] == pytest.approx(own["probabilities"][own["answer"]])
        assert same or kind == "adapter"
        assert found["label"] in run.labels
    saved = json.loads((run.weights.parent / "config.json").read_text()) if kind == "full" else None
    names = {str(i): label for i, label in enumerate(LABELS)}
    assert saved is None or saved["id2label"] == names  # after training, without an export


# scores and card


def test_scores_before_and_after_are_printed_and_on_the_card(plain, tmp_path, capsys):
    export.main([str(plain), "--to", "merged", "--output", str(tmp_path / "out"), "--rows", "5"])
    said = capsys.readouterr().out
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    (printed,) = re.findall(r"^ROUGE-1 .*$", said, re.MULTILINE)
    before, after, n = re.split(r"  +", printed.strip())[1:]
    assert n == "5"
    assert f"| ROUGE-1 | {before} | {after} | 5 |" in text
    run = trained.find(plain)
    rows = trained.test_rows(run, 5)
    assert len(rows.test) == 5
    # All rows give the record's figure: scored by the same code, prompt and decoding.
    everything = tmp_path / "all"
    export.main([str(plain), "--to", "merged", "--output", str(everything)])
    figure = card.metrics.figure(run.record["metrics"]["rouge1"])
    assert f"| ROUGE-1 | {figure} |" in (everything / "README.md").read_text(encoding="utf-8").split("### Before")[1]


def test_a_cards_header_is_the_hubs_and_the_text_has_what_one_asks(plain, made):
    folder, run = made(plain, "adapter"), trained.find(plain)
    found = huggingface_hub.ModelCard.load(folder / "README.md")
    header = found.data.to_dict()
    assert (header["library_name"], header["pipeline_tag"]) == ("peft", "text-generation")
    assert "base_model" not in header  # a local folder is no name on the hub
    assert header["license"] == "unknown"
    figure = card.metrics.figure(run.record["metrics"]["rouge1"])
    for words in (run.id, figure, "Rows: 44 train, 16 test", "95 %", "Base model: unknown", "Data: Apache-2.0"):
        assert words in found.text
    for setting in ("lora_r | 16", "learning_rate | 0.01", "epochs | 1", "seed | 42", "max_document_tokens | 48"):
        assert f"| {setting} |" in found.text
    assert json.dumps(run.fields["wording"]["text"].replace("{examples}", ""), ensure_ascii=False)[1:-1] in found.text


def on_the_hub(run, checkpoint, source="study", **changes):
    """`run` as if it had been trained on a published checkpoint and the study's rows."""
    facts, variant = folders.home(checkpoint)
    values = vars(trained.find(run)) | {"source": source, "facts": facts, "variant": variant, **changes}
    values["checkpoint"] = checkpoints.find(checkpoint, variant.revision)
    return trained.Trained(**{name: values[name] for name in trained.Trained.__dataclass_fields__})


@pytest.mark.parametrize(
    "checkpoint, source, licence, said",
    [
        ("mistralai/Mistral-7B-v0.1", "study", "other", "CC BY-NC-ND 4.0"),
        ("mistralai/Mistral-7B-v0.1", "own", "apache-2.0", "the owner's"),
        ("meta-llama/Llama-2-7b-hf", "own", "other", "Llama 2 Community License"),
    ],
)
def test_the_card_of_a_published_checkpoint(checkpoint, source, licence, said, plain):
    run = on_the_hub(plain, checkpoint, source)
    found = huggingface_hub.ModelCard(card.text(run, "adapter"))
    header = found.data.to_dict()
    assert (header["base_model"], header["license"]) == (checkpoint, licence)
    assert said in found.text
    assert f'revision="{run.variant.revision}"' in found.text
    if source == "study":
        assert header["datasets"] == ["knkarthick/samsum"]
        values = {result.metric_type: result.metric_value for result in found.data.eval_results}
        assert values["rouge1"] == round(run.record["metrics"]["rouge1"]["value"], 4)
    else:
        assert "datasets" not in header
        assert found.data.eval_results is None


def test_nothing_exported_names_a_place_on_this_machine(plain, chat, classifier, made):
    for run, kind in ((plain, "adapter"), (chat, "merged"), (classifier["full"], "merged")):
        for name, text in contents(made(run, kind)).items():
            if not name.endswith(".safetensors"):
                assert b"/tmp" not in text, name
                assert b"local_files_only" not in text, name
                assert str(run.parent.parent.parent).encode() not in text, name
        for path in (made(run, kind)).iterdir():
            assert path.stat().st_mode & 0o444 == path.parent.joinpath("README.md").stat().st_mode & 0o444
            assert path.suffix in (".safetensors", ".json", ".md", ".jinja", ".txt")


# GGUF and Ollama

CONVERTER = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("model"); parser.add_argument("--outfile"); parser.add_argument("--outtype")
args = parser.parse_args()
assert (pathlib.Path(args.model) / "model.safetensors").is_file()
pathlib.Path(args.outfile).write_text("GGUF " + args.outtype)
"""


@pytest.fixture
def converter(tmp_path):
    path = tmp_path / "convert_hf_to_gguf.py"
    path.write_text(CONVERTER)
    return path


def test_a_modelfile_asks_as_the_run_did(plain, chat, made, converter):
    folder = made(plain, "ollama", "--converter", converter, "--type", "q8_0")
    file = f"{plain.name}-q8_0.gguf"
    assert sorted(contents(folder)) == sorted(["Modelfile", "README.md", "export.json", file])
    assert (folder / file).read_text() == "GGUF q8_0"
    text = (folder / "Modelfile").read_text().splitlines()
    assert f"FROM ./{file}" in text
    assert 'TEMPLATE """{{ .Prompt }}"""' in text
    assert {"PARAMETER temperature 0", "PARAMETER repeat_penalty 1", "PARAMETER num_predict 12"} <= set(text)
    assert 'PARAMETER stop "</s>"' in text
    text = (made(chat, "ollama", "--converter", converter.parent) / "Modelfile").read_text()
    turns = "<start_of_turn>user\n{{ .Prompt }}<end_of_turn>\n<start_of_turn>model\n"
    assert f'TEMPLATE """{turns}"""' in text  # without <s>, which llama.cpp puts before every prompt
    assert 'PARAMETER stop "<end_of_turn>"' in text


def test_braces_of_a_chat_template_are_no_template_of_ollama():
    class Tokenizer:
        bos_token = None

        def apply_chat_template(self, turns, **_):
            return "{{x}} " + turns[0]["content"] + " {{"

    run = types.SimpleNamespace(fields={"format": "chat"})
    assert gguf.template(run, Tokenizer()) == '{{ "{{" }}x}} {{ .Prompt }} {{ "{{" }}'


def test_a_converter_that_is_missing_or_fails_is_one_line(plain, converter, tmp_path):
    assert "--converter" in reason(plain, "--to", "gguf")
    assert "pip download llama-cpp-python" in reason(plain, "--to", "gguf")
    assert f"no convert_hf_to_gguf.py at {tmp_path}/x" in reason(plain, "--to", "gguf", "--converter", tmp_path / "x")
    converter.write_text("import no_such_module")
    words = ("--to", "gguf", "--converter", converter, "--rows", 0, "--output", tmp_path / "new" / "out")
    assert "No module named 'no_such_module'" in reason(plain, *words)
    assert sorted(contents(tmp_path)) == ["convert_hf_to_gguf.py"]
    assert not (tmp_path / "new").exists()


def test_rows_of_ones_own_are_read_as_in_the_training(classifier, tmp_path):
    words = (classifier["adapter"], "--to", "merged", "--output", tmp_path / "out", "--data", classifier["rows"])
    assert reason(*words)  # no csv in UTF-8
    export.main(list(map(str, (*words, *classifier["reading"], "--rows", 5))))
    assert "5 test rows" in " ".join((tmp_path / "out" / "README.md").read_text().split())


# what it refuses, and what it leaves alone


def test_what_cannot_be_exported(plain, classifier, tmp_path):
    assert "cannot read" in reason(tmp_path / "none.json")
    assert "no trained run in" in reason(tmp_path)
    for kind in ("gguf", "ollama"):
        assert "encoder" in reason(classifier["full"], "--to", kind)
    assert "--to merged" in reason(classifier["full"], "--to", "adapter")
    words = (classifier["adapter"], "--to", "merged", "--output", tmp_path / "out")
    assert "--data" in reason(*words)
    other = tmp_path / "other.csv"
    other.write_text(classifier["rows"].read_text("cp500").replace("number", "no."), encoding="cp500")
    assert "has other test rows" in reason(*words, "--data", other, *classifier["reading"])
    assert sorted(contents(tmp_path)) == ["other.csv"]
    assert not (tmp_path / "out").exists()
    for words in (("--to", "onnx"), ("--rows", "-1"), ("--type", "q4_0"), ("--ouput", "x")):
        with pytest.raises(SystemExit):
            export.main([str(plain), *words])


def test_another_base_than_that_of_the_training_is_refused(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "content", lambda files: "0" * 12)
    assert "is now 000000000000, the adapter was trained on" in reason(plain, "--to", "merged", "--output", tmp_path)


def test_a_folder_that_no_export_wrote_or_that_was_changed_is_left_alone(plain, made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert "no export wrote" in reason(plain, "--output", tmp_path / "mine")
    assert "is a file" in reason(plain, "--output", tmp_path / "file")
    assert "no export wrote" in reason(plain, "--output", plain / "adapter")
    folder = made(plain, "adapter")
    first = contents(folder)
    assert contents(made(plain, "adapter")) == first  # again, in place of the old one
    for name, text in (("README.md", "mine"), ("notes.txt", "mine")):
        (folder / name).write_text(text)
        assert f"holds {name}" in reason(plain, "--output", folder)
        assert (folder / name).read_text() == text
        (folder / name).write_bytes(first[name]) if name in first else (folder / name).unlink()
    (folder / "export.json").write_text("[]")
    assert "export.json" in reason(plain, "--output", folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "file", "mine"]


def test_an_interrupted_export_leaves_nothing_or_the_old_one(plain, made, tmp_path, monkeypatch):
    folder = made(plain, "merged")
    before, around = contents(folder), sorted(tmp_path.iterdir())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(card, "text", interrupt)
    for place in (folder, tmp_path / "a" / "b"):
        with pytest.raises(KeyboardInterrupt):
            export.main([str(plain), "--to", "merged", "--rows", "0", "--output", str(place)])
    assert contents(folder) == before
    assert sorted(tmp_path.iterdir()) == around


# the hub


def test_a_dry_run_lists_the_files_and_writes_and_sends_nothing(plain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hub, "push", lambda *_: pytest.fail("it sent something"))
    before = contents(plain)
    for kind, name in (
        ("adapter", "adapter_model.safetensors"),
        ("merged", "model.safetensors"),
        ("gguf", "-f16.gguf"),
    ):
        export.main([str(plain), "--to", kind, "--push_to_hub", "me/mine", "--dry_run"])
        said = capsys.readouterr().out
        assert re.search(rf"{re.escape(name)} +\d", said)
        assert re.search(r"README.md +[\d.]+ kB", said)
        assert "https://huggingface.co/me/mine" in said
        assert said.endswith("nothing was written or sent\n")
    assert contents(plain) == before
    assert "owner/name" in reason(plain, "--push_to_hub", "mine", "--dry_run")
    assert "owner/name" in reason(plain, "--push_to_hub", "a/b/c", "--dry_run")


def test_without_token_or_hub_nothing_is_written(plain, tmp_path, monkeypatch):
    words = (plain, "--push_to_hub", "me/mine", "--output", tmp_path / "out")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "HF_TOKEN" in reason(*words)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(checkpoints, "hub_answers", lambda: False)
    assert "hub does not answer" in reason(*words)
    assert contents(tmp_path) == {}


class Hub:
    """Stands in for huggingface_hub.HfApi."""

    sent, error = (), None

    def __init__(self, token):
        self.token = token

    def create_repo(self, repo, private, exist_ok):
        assert (private, exist_ok) == (True, True)

    def upload_folder(self, repo_id, folder_path, ignore_patterns):
        if Hub.error:
            raise RuntimeError(f"401 with {self.token}\nmore")
        Hub.sent = (repo_id, self.token, sorted(set(os.listdir(folder_path)) - set(ignore_patterns)))


def test_an_upload_sends_the_folder_with_edits_and_never_prints_the_token(plain, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(checkpoints, "hub_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    folder = made(plain, "adapter", "--push_to_hub", "me/mine")
    names = sorted(path.name for path in folder.iterdir())
    assert Hub.sent == ("me/mine", "hf_secret", [name for name in names if name != "export.json"])
    (folder / "README.md").write_text("my own words")
    assert made(plain, "adapter", "--push_to_hub", "me/mine") == folder
    assert (folder / "README.md").read_text() == "my own words"
    monkeypatch.setattr(Hub, "error", True)
    refusal = reason(plain, "--output", folder, "--push_to_hub", "me/mine")
    assert "401 with (token)" in refusal
    said = capsys.readouterr()
    assert "hf_secret" not in said.out + said.err + refusal


def test_the_command_as_users_type_it(plain, tmp_path):
    done = tool(ROOT, "export", str(plain / "record.json"), "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "written: out"
    refused = tool(ROOT, "export", str(tmp_path), cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: no trained run in")


# the real thing


def shares(run, place, converter, texts):
    """{tool: number of texts that it answers as generation.generate does with the same weights}, each tool in a process
    of its own; "merged for 4 bits" are the same answers of the merged model and the run's own."""
    import torch
    import transformers

    for kind in ("adapter", "merged", "gguf"):
        words = ("--output", str(place / kind), "--rows", "0", "--converter", str(converter))
        export.main([str(run), "--to", kind, *words])
    checkpoint = trained.find(run).checkpoint
    tuned = ours(run, *run_model(run), texts)
    whole = transformers.AutoModelForCausalLM.from_pretrained(place / "merged", dtype=torch.float32).eval()
    merged = ours(run, whole, qlora.tokenizer(checkpoint), texts)
    found = {"merged for 4 bits": merged}
    for kind in ("adapter", "merged", "gguf"):
        code = on_the_card(place / kind, checkpoints.prepare(checkpoint), texts)
        if kind == "adapter":  # some processors' kernel rounds to bfloat16, as above
            code = f"import bitsandbytes\nbitsandbytes.nn.modules.has_avx512bf16 = lambda: False\n{code}"
        (place / "card.py").write_text(f"{code}\nimport json\nprint(json.dumps(answers))\n", encoding="utf-8")
        ended = subprocess.run(
            [llama_cpp_python() if kind == "gguf" else sys.executable, str(place / "card.py")],
            capture_output=True, text=True, check=False, cwd=place,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-3000:]
        found[kind] = json.loads(ended.stdout.strip().splitlines()[-1])
    expected = {"adapter": tuned, "merged for 4 bits": tuned, "merged": merged, "gguf": merged}
    return {kind: sum(a == b for a, b in zip(found[kind], expected[kind], strict=True)) for kind in found}


def llama_cpp_python():
    """Path of a Python that has llama-cpp-python."""
    return sys.executable if importlib.util.find_spec("llama_cpp") else shared.competitors_python()


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory):
    """vendor/llama.cpp of llama-cpp-python's sources, as the error message says."""
    place = tmp_path_factory.mktemp("sources")
    (wanted,) = [line for line in shared.REQUIRED.read_text().splitlines() if line.startswith("llama-cpp-python")]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", "-d", str(place)]
    fetched = subprocess.run([*pip, wanted], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"{wanted} cannot be fetched")
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(place, filter="data")
    return next(place.glob("*/vendor/llama.cpp"))


@pytest.mark.slow
def test_the_embedded_models_demo_answers_the_same_in_three_other_tools(tmp_path, llama_cpp, script):
    run = tmp_path / "run"
    words = ("--demo", "--precision", "float32", "--no_before", "--output_dir", str(run))
    ended = script("smollm2/smollm2_summarization.py", *words, tiny=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = (ROOT / "common" / "sample" / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    found = shares(run, tmp_path, llama_cpp, [json.loads(line)["dialogue"] for line in lines[-20:]])
    print(found)
    assert found["adapter"] == found["merged"] == 20
    assert found["gguf"] >= 15  # of float16 weights and keys
