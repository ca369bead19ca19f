"""The Alpaca study: rows, scores of the response alone, decoding settings, the scripts."""

import json

import pytest
import torch
from conftest import ROOT
from inprocess import done, refused, start

from common import data, generation, metrics, splits, sweeps
from common.encoding import Encoder, Template
from common.runs import folders, records

FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/model.py") if (path.parent / "decoding_sweep.sh").exists())
ANSWERS = ["The cat sat on the mat near the door.", "Paris is the capital of France.", "", "one two three four five"]
REFERENCES = [
    "A cat sat on the mat by the door.",
    "The capital of France is Paris.",
    "Nothing.",
    "one two three four five",
]


def test_four_folders_have_the_study():
    assert FOLDERS == ["llama2", "mistral", "phi2", "smollm2"]


# Scores


def test_bleu_is_sacrebleus_and_a_perfect_answer_scores_100():
    import sacrebleu

    assert metrics.bleu(REFERENCES, REFERENCES)["value"] == pytest.approx(100)
    for answers in (ANSWERS, ["echo of the prompt"] * 4):
        expected = sacrebleu.corpus_bleu(answers, [REFERENCES]).score
        found = metrics.bleu(answers, REFERENCES)
        assert found["value"] == pytest.approx(expected, abs=1e-3)
        assert found["ci95"][0] <= found["value"] <= found["ci95"][1]


def test_an_echo_is_scored_as_sacrebleu_and_rouge_score_score_it():
    import sacrebleu

    asked = ["Name the capital of France.", "Say where the cat sat."]
    wanted = ["The capital of France is Paris.", "The cat sat on the mat."]
    found = metrics.responses(asked, wanted)
    assert found["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(asked, [wanted]).score, abs=1e-3)
    assert found["rouge1"] == metrics.rouge(asked, wanted)["rouge1"]
    assert found["length"]["value"] == pytest.approx(5)


def test_bertscore_is_the_packages_and_an_empty_answer_scores_nothing():
    import bert_score

    from common import checkpoints

    encoder = str(checkpoints.prepare(checkpoints.find("minilm")))
    full = [i for i, answer in enumerate(ANSWERS) if answer]
    _, _, f1 = bert_score.score(
        [ANSWERS[i] for i in full], [REFERENCES[i] for i in full], model_type=encoder, num_layers=6
    )
    assert metrics.bertscore(ANSWERS, REFERENCES)["value"] == pytest.approx(100 * f1.sum().item() / 4, abs=1e-2)
    assert metrics.bertscore(REFERENCES, REFERENCES)["value"] == pytest.approx(100, abs=1e-2)


def test_an_encoder_that_bertscore_does_not_know_is_refused_before_anything_is_trained():
    script = ROOT / "llama2" / "llama2_instructions.py"
    plan = ("--demo", "--dry_run", "plan", "--bertscore_model")
    refused(start(script, *plan, "smollm2"), "roberta-large")
    run = start(script, *plan, "roberta-large")
    assert ("bertscore_model", "roberta-large") in [tuple(line.split()) for line in run.out.splitlines()]


# Rows


def test_a_tenth_is_held_out_no_row_stands_twice_and_inputs_stay_with_their_instruction(tmp_path, monkeypatch):
    made = [{"instruction": f"do {i % 95}", "input": f"with {i % 95}", "output": f"done {i}"} for i in range(100)]
    (tmp_path / "alpaca").mkdir()
    (tmp_path / "alpaca" / "train.jsonl").write_text("\n".join(map(json.dumps, made)))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    found = data.alpaca()
    assert (len(found.train), len(found.test), found.dropped) == (86, 9, {"duplicate": 5})
    keys = [splits.key(row) for row in found.train + found.test]
    assert len(set(keys)) == 95
    assert all(row["input"].split()[1] == row["text"].split()[1] for row in found.train + found.test)
    assert all(int(row["target"].split()[1]) < 95 for row in found.train + found.test)  # of equal ones the first


def test_a_rows_input_stands_behind_its_instruction_and_a_row_without_one_has_no_mark(tokenizer):
    template = Template("### Instruction:\n{document}", cue="\n\n### Response:", extra="\n\n### Input:\n{input}")
    encoder = Encoder(tokenizer, template, "plain", 64)
    with_input = encoder.prompt(encoder.template.document({"text": "add", "input": "1 2 {document}", "target": "3"}))
    assert tokenizer.decode(with_input, skip_special_tokens=True) == (
        "### Instruction:\nadd\n\n### Input:\n1 2 {document}\n\n### Response:"
    )
    without = tokenizer.decode(encoder.prompt(encoder.template.document({"text": "add", "input": ""})))
    assert "Input" not in without


# Decoding


@pytest.fixture(scope="module")
def model(tiny_folder):
    import tiny

    from common import checkpoints, qlora

    return qlora.base(checkpoints.find(str(tiny_folder)), tiny.execution(tiny_folder))


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, Template("{document}", cue="\n\n### Response:"), "plain", 64)


def how(**given):
    return generation.GREEDY | given


def written(model, encoder, decoding, seed=1, done=(), batch_size=2):
    found = {}
    prompts = [encoder.prompt(text) for text in ("a b", "a much longer one than that", "c")]
    keep = lambda numbers, answers, seconds: found.update(zip(numbers, answers, strict=True))  # noqa: E731
    generation.generate(model, encoder, prompts, 12, batch_size, keep, done, decoding=decoding, seed=seed)
    return {number: answer["text"] for number, answer in found.items()}


def test_sampling_draws_the_same_for_one_seed_another_for_another_and_a_resumed_run_goes_on_in_it(model, encoder):
    whole = written(model, encoder, how(temperature=5.0))
    assert whole == written(model, encoder, how(temperature=5.0))
    assert whole != written(model, encoder, how(temperature=5.0), seed=2)
    rest = written(model, encoder, how(temperature=5.0), done=[1, 0])
    assert rest == {number: whole[number] for number in rest} != {}


def test_a_cold_sample_and_the_likeliest_token_are_greedy(model, encoder):
    greedy = written(model, encoder, None)
    assert written(model, encoder, how(temperature=0.001)) == greedy
    assert written(model, encoder, how(top_k=1)) == greedy
    assert written(model, encoder, how(temperature=5.0)) != greedy


def test_beams_are_transformers_own_and_are_not_sampled(model, encoder):
    prompt = encoder.prompt("a much longer one than that")
    ids = torch.tensor([prompt])
    keywords = {"num_beams": 4, "do_sample": False, "max_new_tokens": 12, "eos_token_id": encoder.stop}
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **keywords)[0, len(prompt) :]
    text = generation.cut(expected.tolist(), encoder)["text"]
    assert written(model, encoder, how(num_beams=4), batch_size=4)[1] == text
    assert written(model, encoder, how(num_beams=4), seed=2)[1] == text


def test_nothing_of_decoding_is_left_to_the_librarys_defaults():
    config = generation.configuration(how(temperature=0.5), 10, [2], 0)
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, 0.5, 0, 1.0)
    config = generation.configuration(how(top_k=4), 10, [2], 0)
    assert (config.do_sample, config.temperature, config.top_k) == (True, 1.0, 4)
    assert not generation.configuration(how(num_beams=4), 10, [2], 0).do_sample


# The scripts


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """(folder, record) of a training of the study's script on the sample."""
    folder = tmp_path_factory.mktemp("instructions") / "run"
    words = ("--pretrained_ckpt", tiny_folder, "--demo", "--epochs", "1", "--output_dir", folder)
    words += ("--max_document_tokens", "64", "--max_new_tokens", "24", "--precision", "float32")
    return folder, done(ROOT / "mistral" / "mistral_instructions.py", *words).record


def test_training_scores_the_response_alone_on_held_out_rows(trained):
    folder, record = trained
    records.validate(record)
    assert (record["identity"]["task"], record["data"]["n"]["test"]) == ("instructions", 4)
    for name in ("bleu", "rouge1", "rouge2", "rougeL", "bertscore_f1", "length"):
        assert record["metrics"].keys() >= {name, f"echo_{name}"}
        assert record["metrics_before"][f"echo_{name}"] == record["metrics"][f"echo_{name}"]
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 4
    assert all(row["prompt"] and row["reference"] and row["prompt"] not in row["answer"] for row in answers)


def test_the_adapter_is_on_all_linear_layers_as_the_page_says(trained):
    """TRAPS 9: name them."""
    config = json.loads((trained[0] / "adapter" / "adapter_config.json").read_text())
    facts = folders.load_module(ROOT / "mistral" / "model.py")
    assert set(config["target_modules"]) == set(facts.ALL_TARGETS) > set(facts.ATTENTION_TARGETS)
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (16, 16, 0.0)


def test_every_decoding_setting_is_a_run_of_its_own_on_the_same_adapter(trained, tmp_path):
    folder, record = trained
    found = {}
    for words in ((), ("--temperature", "0.75"), ("--top_k", "4"), ("--num_beams", "2")):
        place = tmp_path / "-".join(("run", *words))
        extra = ("--experiment_dir", folder, "--demo", "--precision", "float32", "--output_dir", place)
        found[words] = done(ROOT / "mistral" / "mistral_instructions_inference.py", *words, *extra).record
        assert found[words]["identity"]["trained"]["id"] == record["id"]
    for words, again in found.items():
        changed = {words[0].removeprefix("--"): float(words[1])} if words else {}
        assert again["identity"]["settings"] == {**record["identity"]["settings"], **changed}
    assert len({again["id"] for again in found.values()}) == 4
    assert found[()]["metrics"] == record["metrics"]
    assert found["--temperature", "0.75"]["metrics"]["length"] != record["metrics"]["length"]


def test_settings_that_contradict_each_other_are_refused_and_one_beam_is_greedy(trained):
    script = ROOT / "mistral" / "mistral_instructions_inference.py"
    words = ("--experiment_dir", str(trained[0]), "--demo")
    refused(start(script, *words, "--num_beams", "2", "--top_k", "4"), "--num_beams")
    plain, beam, cold = (
        folders.experiment(script).resolve([*words, *more]).identity.id
        for more in ([], ["--num_beams", "1"], ["--num_beams", "1", "--temperature", "0.25"])
    )
    assert plain == beam != cold


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_decoding_sweep_is_twelve_runs_on_one_adapter(folder, trained, capsys):
    """The shell script's words are test_sweep.py's."""
    script, planned = ROOT / folder / f"{folder}_instructions_inference.py", []
    axes = {"temperature": ("0.001", "0.25", "0.5", "0.75"), "num_beams": "1248", "top_k": ("2", "4", "8", "16")}
    for name, values in axes.items():
        sweeps.main([str(script), f"--{name}", *values, "--experiment_dir", str(trained[0]), "--demo", "--dry_run"])
        planned += [line.split(".py ")[1] for line in capsys.readouterr().out.splitlines() if "to run  " in line]
    assert [cell.split(" --exp")[0] for cell in planned] == [
        f"--{name} {value}" for name, values in axes.items() for value in values
    ]


def test_one_instruction_is_answered(trained):
    script = ROOT / "mistral" / "mistral_instructions_inference.py"
    words = ("--experiment_dir", trained[0], "--precision", "float32")
    first, again = (done(script, *words, "--text", "Name three uses of a paper clip.") for _ in range(2))
    assert first.out == again.out
    assert "record: " not in first.out
