"""The command line as users meet it: help at once, refusals in one line, plans that write nothing."""

import os
import shlex
import subprocess
import sys
import time

import pytest
from conftest import ROOT, tool

from common.runs import folders

MISTRAL = ROOT / "mistral"
SCRIPTS = sorted(path for facts in ROOT.glob("*/model.py") for path in facts.parent.glob(f"{facts.parent.name}_*.py"))
SUMMARIZATION, CLASSIFICATION = MISTRAL / "mistral_summarization.py", MISTRAL / "mistral_classification.py"
ENCODERS = ("distilbert", "minilm")


def call(script, *words, cwd, **variables):
    """The finished process of a script, run in `cwd` without DATA_DIR and without network."""
    environment = {name: value for name, value in os.environ.items() if name != "DATA_DIR"}
    environment |= {"FINETUNING_HUB_CACHE": str(cwd / "cache"), "HF_HUB_OFFLINE": "1", **variables}
    command = [sys.executable, str(script), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


def assert_refused(done, *mentions):
    """Exit code 2 and one line `error: …` on stderr that mentions what matters."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for mention in mentions:
        assert mention in done.stderr


def value_in_plan(done, name):
    assert done.returncode == 0, done.stderr
    return next(line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.split()[0] == name)


def test_there_are_five_scripts_a_folder_and_those_of_single_studies():
    assert len(SCRIPTS) == 5 * 10 + 4 * 2 + 9


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_answers_within_a_second(script, tmp_path):
    seconds = []
    while len(seconds) < 3 and min(seconds, default=9) > 1:
        began = time.monotonic()
        done = call(script, "--help", cwd=tmp_path)
        seconds.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        assert "--pretrained_ckpt" in done.stdout
    assert min(seconds) <= 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_unknown_flag_is_refused_and_the_nearest_one_is_named(script, tmp_path):
    assert_refused(call(script, "--max_test_sample", "3", cwd=tmp_path), "--max_test_sample ", "--max_test_samples?")
    assert not list(tmp_path.iterdir())


def test_help_shows_the_scripts_own_defaults(tmp_path):
    shown = " ".join(call(SUMMARIZATION, "--help", cwd=tmp_path).stdout.split())
    for flag, value in {"--lora_r R": 64, "--epochs N": 1, "--learning_rate LR": 0.0002}.items():
        assert f"(default: {value})" in shown.split(flag)[-1].split(" --")[0], flag


@pytest.mark.parametrize("words", [["--lora", "8"], ["--lora=8"], ["--epoch", "2"], ["--dry"]])
def test_abbreviated_flags_are_refused(words, tmp_path):
    assert_refused(call(SUMMARIZATION, *words, "--dry_run", cwd=tmp_path), words[0].split("=")[0])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[("--train_sample_fraction", value) for value in ("0", "1.5", "nan", "-1", "all")],
        *[("--lora_r", value) for value in ("0", "-4", "2.5", "1000000")],
        *[("--dropout", value) for value in ("1", "-0.1", "nan")],
        *[("--epochs", value) for value in ("0", "inf", "nan", "1e9")],
        *[("--learning_rate", value) for value in ("0", "inf", "nan")],
        ("--seed", "-1"),  # numpy takes no such seed
        ("--seed", str(2**32)),
        ("--max_train_samples", "0"),
        ("--price_per_hour", "-1"),
        ("--lr_scheduler", "sometimes"),
        *[(flag, "") for flag in ("--data", "--output_dir", "--pretrained_ckpt", "--text_column", "--report_to")],
    ],
)
def test_impossible_values_are_refused(flag, value, tmp_path):
    assert_refused(call(CLASSIFICATION, "--dry_run", f"{flag}={value}", cwd=tmp_path), flag)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flag", "value"), [("--num_beams", "100000"), ("--temperature", "1e-9"), ("--top_k", "0")])
def test_impossible_decodings_are_refused(flag, value, tmp_path):
    script = ROOT / "smollm2" / "smollm2_instructions_inference.py"
    assert_refused(call(script, f"{flag}={value}", cwd=tmp_path), flag)


def test_an_empty_text_is_refused_and_not_taken_for_none(tmp_path):
    assert_refused(call(MISTRAL / "mistral_summarization_inference.py", "--text", "", cwd=tmp_path), "--text")


@pytest.mark.parametrize(("script", "flag"), [("summarization_inference", "--text"), ("summarization", "--data")])
def test_bytes_that_are_no_text_are_refused(script, flag, tmp_path):
    assert_refused(call(MISTRAL / f"mistral_{script}.py", f"{flag}=a\udcffb", cwd=tmp_path), flag, "not valid UTF-8")


@pytest.mark.parametrize("value", ["1.0", "1", "0.025"])
def test_fractions_up_to_one_are_accepted(value, tmp_path):
    done = call(CLASSIFICATION, "--dry_run", "plan", "--train_sample_fraction", value, cwd=tmp_path)
    assert float(value_in_plan(done, "train_sample_fraction")) == float(value)


@pytest.mark.parametrize("words", [[], ["--demo"], ["--pretrained_ckpt", "smollm2", "--output_dir", "out"]])
@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if "_inference" not in s.stem or "baseline" in s.stem], ids=lambda script: script.stem
)
def test_dry_run_prints_the_plan_and_writes_nothing(script, words, tmp_path):
    stand_in = "minilm" if script.parent.name in ENCODERS else "smollm2"
    words = [stand_in if word == "smollm2" else word for word in words]
    done = call(script, *words, "--dry_run", "plan", cwd=tmp_path)
    home = folders.experiment(script)
    embedded = words or script.parent.name in ("smollm2", "minilm")
    assert value_in_plan(done, "checkpoint") == (
        f"{stand_in} (embedded)" if embedded else f"{home.first.checkpoint} (hub)"
    )
    if "--demo" in words:
        assert value_in_plan(done, "record").removesuffix(" (finished)").endswith("record.json")
    else:
        assert value_in_plan(done, "record").startswith("named once the rows are read")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "form"), [("gemma-2b-it", "chat"), ("gemma-2b", "plain"), ("mine", "plain")])
def test_a_local_copy_of_a_variant_is_read_in_the_variants_format(name, form, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{}")
    done = call(ROOT / "gemma" / "gemma_summarization.py", "--pretrained_ckpt", name, "--dry_run", "plan", cwd=tmp_path)
    assert value_in_plan(done, "format") == form


@pytest.mark.parametrize(("chat", "form"), [(None, "plain"), ("zephyr", "chat")])
def test_a_local_model_without_a_chat_template_is_prompted_in_plain_text(chat, form, tmp_path):
    import tiny

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    tiny.tokenizer(chat).save_pretrained(tmp_path / "mine")
    done = call(MISTRAL / "mistral_sentiment.py", "--pretrained_ckpt", "mine", "--dry_run", "plan", cwd=tmp_path)
    assert value_in_plan(done, "format") == form


def test_a_flag_that_repeats_the_default_names_the_same_run(tmp_path):
    default = call(SUMMARIZATION, "--demo", "--dry_run", "plan", cwd=tmp_path)
    epochs = value_in_plan(default, "epochs")
    given = call(SUMMARIZATION, "--demo", "--dry_run", "plan", "--epochs", epochs, cwd=tmp_path)
    assert value_in_plan(given, "record") == value_in_plan(default, "record")


def test_a_flag_wins_over_the_checkpoints_home_and_that_over_the_script(tmp_path):
    plan = lambda *words: call(SUMMARIZATION, *words, "--dry_run", "plan", cwd=tmp_path)  # noqa: E731
    own = folders.experiment(SUMMARIZATION).settings.learning_rate
    home = folders.experiment(ROOT / "smollm2" / "smollm2_summarization.py").settings.learning_rate
    assert float(value_in_plan(plan(), "learning_rate")) == own != home
    assert float(value_in_plan(plan("--pretrained_ckpt", "smollm2"), "learning_rate")) == home
    given = plan("--pretrained_ckpt", "smollm2", "--learning_rate", "0.5")
    assert float(value_in_plan(given, "learning_rate")) == 0.5


@pytest.mark.parametrize(("folder", "tokens"), [("falcon", 1949), ("distilbert", 513)])
def test_what_is_read_and_written_has_to_fit_the_context(folder, tokens, tmp_path):
    script = ROOT / folder / f"{folder}_summarization.py"
    done = call(script, "--max_document_tokens", tokens, "--dry_run", "plan", cwd=tmp_path)
    assert_refused(done, "do not fit the context", "--max_document_tokens")
    fitting = call(script, "--max_document_tokens", tokens - 1, "--dry_run", "plan", cwd=tmp_path)
    assert value_in_plan(fitting, "max_document_tokens") == str(tokens - 1)


@pytest.mark.parametrize("flag", ["--dropout=0.2", "--lora_alpha=8", "--full_tune"])
def test_an_adapters_flags_without_an_adapter_are_refused(flag, tmp_path):
    script = ROOT / "minilm" / "minilm_classification.py"
    assert_refused(call(script, "--demo", flag, cwd=tmp_path), flag.split("=")[0], "--lora_r")
    done = call(script, "--demo", flag, "--lora_r", "8", "--dry_run", "plan", cwd=tmp_path)
    assert value_in_plan(done, "lora_r") == "8"


@pytest.mark.parametrize(
    ("script", "name"), [("minilm/minilm_classification.py", "smollm2"), (CLASSIFICATION, "minilm")]
)
def test_a_checkpoint_of_the_other_kind_is_refused(script, name, tmp_path):
    assert_refused(call(ROOT / script, "--pretrained_ckpt", name, "--dry_run", cwd=tmp_path), "these scripts are for")


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["--lora_r", "64"], {}),
        (["--lora_r", "64"], {"DATA_DIR": "/data"}),
        (["--pretrained_ckpt", "mistralai/Mistral-7B-v0.1"], {}),
    ],
)
def test_without_a_gpu_the_7b_model_is_refused_with_a_command_that_works(words, variables, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = call(SUMMARIZATION, *words, cwd=tmp_path, **variables)
    assert_refused(done, "Mistral-7B")
    suggested = shlex.split(done.stderr.split("This works here: ")[1])
    assert suggested[0] == "python"
    again = call(*suggested[1:], "--dry_run", "plan", cwd=tmp_path, **variables)
    assert value_in_plan(again, "checkpoint") == "smollm2 (embedded)"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "mention"),
    [
        (None, "posts.csv"),
        ("", "posts.csv"),
        ("words,topic\na,b\nc,d\n", "'words', 'topic'"),
        ("text,label\n" + "".join(f"post {i},only one\n" for i in range(20)), "only one"),
    ],
    ids=["missing file", "empty file", "other columns", "one class"],
)
@pytest.mark.parametrize("more", [[], ["--dry_run", "plan"]], ids=["run", "plan"])
def test_bad_data_is_one_line_and_nothing_is_written(content, mention, more, tmp_path):
    if content is not None:
        (tmp_path / "posts.csv").write_text(content)
    before = list(tmp_path.iterdir())
    done = call(CLASSIFICATION, "--demo", "--data", "posts.csv", "--output_dir", "out", *more, cwd=tmp_path)
    assert_refused(done, mention)
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize("words", [["nothing"], ["table"]])
def test_the_front_door_names_the_verbs(words):
    done = subprocess.run(
        [sys.executable, "-m", "common", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert_refused(done, "tables")


VERBS = (
    "tables",
    "plots",
    "sweep",
    "budget",
    "records",
    "checkpoints",
    "serve",
    "loadtest",
    "rate",
    "bench",
    "calibrate",
)
VERBS += ("factors", "look", "export", "report", "advise")


def test_the_front_door_lists_its_verbs_with_a_line_each():
    done = tool(ROOT)
    assert done.returncode == 0
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert {verb for verb, what in lines if what} == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_refuses_what_it_does_not_know(verb, tmp_path):
    done = tool(ROOT, verb, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 60
    assert_refused(tool(ROOT, verb, "--no_such", cwd=tmp_path))
    assert not list(tmp_path.iterdir())
