"""Factors that need the trained model: it is scored again as a study scored its own."""

import dataclasses
import functools
import math
import tempfile
from pathlib import Path

from common import (
    checkpoints,
    data,
    encoding,
    evaluation,
    files,
    generation,
    metrics,
    precision,
    qlora,
    scoring,
    training,
)
from common.console import InputError
from common.reports import join, statistics
from common.runs import folders, identity, records
from common.settings import Execution, Settings

HOME = files.ROOT / "smollm2"
BATCH = 16


@dataclasses.dataclass
class Trained:
    """A finished training of a task, ready to be scored."""

    folder: Path
    checkpoint: object
    settings: Settings
    encoder: encoding.Encoder
    rows: object
    execution: Execution

    def model(self):
        return qlora.trained(self.checkpoint, self.execution, self.folder)


@functools.cache
def plain(task, n):
    """The Trained of a task by the method that its script has by default, with `n` test rows: that on the most training
    rows, the newest among several. Raises InputError without one."""
    usual = join.usual_method(folders.read(files.ROOT / "smollm2"), task)
    paths = [path for path in HOME.glob(f"experiments/{task}_*/run.json") if records.weights_of(path.parent)]
    trained = [(path, records.run_of(path.parent)) for path in paths]
    trained = [each for each in trained if identity.method(each[1]["identity"]) == usual]
    if not trained:
        script = f"{HOME.name}/{HOME.name}_{task}.py"
        raise InputError(f"no finished {task} in {HOME.name}/experiments: python {script} --no_before trains one")
    most = lambda own: (own["train_sample_fraction"], own["max_train_samples"] or math.inf)  # noqa: E731
    path, run_json = max(trained, key=lambda each: (most(each[1]["identity"]["settings"]), each[0].stat().st_mtime))
    fields = run_json["identity"]
    settings, checkpoint = Settings().replaced(fields["settings"]), checkpoints.find(fields["checkpoint"])
    thinned = {name: getattr(settings, name) for name in ("train_sample_fraction", "max_train_samples")}
    rows = data.of_task(task, max_test_samples=n, demo=run_json["source"] == "sample", **thinned)
    template = encoding.Template(**fields["wording"])
    encoder = encoding.prompter(qlora.tokenizer(checkpoint), template, fields["format"], settings, rows.labels)
    used, _ = precision.chosen("auto", "bfloat16")
    execution = Execution(folder=Path("nowhere"), precision=used, inference_batch_size=BATCH)
    return Trained(path.parent, checkpoint, settings, encoder, rows, execution)


def collected(prompts):
    """(list with a place for every prompt's result, callback that fills it batch by batch)."""
    results = [None] * len(prompts)

    def keep(numbers, values, seconds):
        for number, value in zip(numbers, values, strict=True):
            results[number] = value

    return results, keep


def right(model, encoder, prompts, rows):
    """100 for every row whose likeliest label is the right one, else 0."""
    scores, keep = collected(prompts)
    scoring.score_labels(model, encoder, prompts, encoder.labels, BATCH, keep)
    best = evaluation.argmax_label(encoder.labels, scores)
    return [100.0 * (label == row["target"]) for label, row in zip(best, rows, strict=True)]


@functools.cache
def as_here(task, n):
    """Scores of `n` test rows by the plain trained model of a task, as its script scores them."""
    trained = plain(task, n)
    prompts, model = encoding.prompts(trained.encoder, trained.rows.test), trained.model()
    if task == "classification":
        return right(model, trained.encoder, prompts, trained.rows.test)
    return rouge1(model, trained.encoder, prompts, trained.rows.test, trained.settings.max_new_tokens)


def rouge1(model, encoder, prompts, rows, tokens, **options):
    """ROUGE-1 of the generated answer to every row, in percent."""
    answers, keep = collected(prompts)
    generation.generate(model, encoder, prompts, tokens, BATCH, keep, **options)
    texts, references = [answer["text"] for answer in answers], [row["target"] for row in rows]
    return [100 * score for score in metrics.rouge(texts, references)["rouge1"]["rows"]]


def figures(metric, study, here, paired=True):
    """The figures of a factor. study, here: scores of the rows under the study's choice and under ours."""
    difference = (statistics.models_differ if paired else statistics.groups_differ)(study, here)
    means = {"study": sum(study) / len(study), "here": sum(here) / len(here)}
    return {"metric": metric, **means, "n": len(here), **dataclasses.asdict(difference)}


def posts(args):
    trained = plain("classification", args.rows)
    return trained, encoding.prompts(trained.encoder, trained.rows.test)


def dialogues(args):
    trained = plain("summarization", args.dialogues)
    return trained, encoding.prompts(trained.encoder, trained.rows.test)


def training_rows(args):
    """Scored on training rows, against test rows."""
    trained = plain("classification", args.rows)
    seen = trained.rows.train[: args.rows]
    study = right(trained.model(), trained.encoder, encoding.prompts(trained.encoder, seen, "train"), seen)
    return figures("accuracy", study, as_here("classification", args.rows), paired=False)


def four_bit_type(args):
    """Trained on NF4 and scored on FP4, against NF4."""
    import torch
    import transformers

    trained, prompts = posts(args)
    four_bit = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=getattr(torch, trained.execution.precision)
    )
    base = qlora.reading(
        transformers.AutoModelForCausalLM,
        trained.checkpoint,
        dtype=getattr(torch, trained.execution.precision),
        quantization_config=four_bit,
        use_safetensors=True,
    )
    qlora.keep_gradients(base)
    fp4 = qlora.with_adapter(qlora.unpacked(base.eval()), trained.folder / "adapter")
    study = right(fp4, trained.encoder, prompts, trained.rows.test)
    return figures("accuracy", study, as_here("classification", args.rows))


def cut_on_the_right(args):
    """Prompts cut on the right to as many tokens, which loses the question behind a long document, against documents
    that are cut."""
    trained, prompts = posts(args)
    whole = encoding.Encoder(
        trained.encoder.tokenizer, trained.encoder.template, trained.encoder.format, 10**6, labels=trained.rows.labels
    )
    longest = max(map(len, prompts))
    uncut = [prompt[:longest] for prompt in encoding.prompts(whole, trained.rows.test)]
    study = right(trained.model(), trained.encoder, uncut, trained.rows.test)
    return figures("accuracy", study, as_here("classification", args.rows))


def all_of_it(args):
    """Loss on prompt and answer, rows packed together, against loss on the answer alone."""
    trained, prompts = posts(args)
    ids = [row["input_ids"] for row in encoding.training_rows(trained.encoder, trained.rows.train)]
    joined, size = [token for row in ids for token in row], max(map(len, ids))
    packed = [joined[start : start + size] for start in range(0, len(joined), size)]
    rows = [{"input_ids": block, "labels": block} for block in packed]
    training.seed(trained.settings)
    model = qlora.new_adapter(qlora.base(trained.checkpoint, trained.execution), trained.settings)
    build = functools.partial(training.answers_only, trained.encoder.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        execution = dataclasses.replace(trained.execution, folder=Path(folder))
        training.fit(model, rows, [], build, trained.settings, execution)
    study = right(model.eval(), trained.encoder, prompts, trained.rows.test)
    return figures("accuracy", study, as_here("classification", args.rows))


def answer_tokens(args):
    """50 new tokens for a summary, as prompted models got, against 100."""
    trained, prompts = dialogues(args)
    base, options = qlora.base(trained.checkpoint, trained.execution), (trained.encoder, prompts, trained.rows.test)
    study, here = rouge1(base, *options, 50), rouge1(base, *options, 100)
    return figures("ROUGE-1, untrained", study, here)


def nearly_greedy(args):
    """Answers sampled at temperature 0.001, against greedy ones."""
    return at_temperature(0.001, args)


def sampled(args):
    """Answers sampled at temperature 1, against greedy ones."""
    return at_temperature(1.0, args)


def at_temperature(temperature, args):
    trained, prompts = dialogues(args)
    options = {"decoding": generation.GREEDY | {"temperature": temperature}, "seed": trained.settings.seed}
    rows, tokens = trained.rows.test, trained.settings.max_new_tokens
    study = rouge1(trained.model(), trained.encoder, prompts, rows, tokens, **options)
    return figures("ROUGE-1", study, as_here("summarization", args.dialogues))


def without_end(args):
    """Answers without an end of sequence, as long as they may be, against answers that end."""
    trained, prompts = dialogues(args)

    class Endless:
        """The encoder of the run, without a token that ends an answer."""

        tokenizer, stop = trained.encoder.tokenizer, []

    study = rouge1(trained.model(), Endless, prompts, trained.rows.test, trained.settings.max_new_tokens)
    return figures("ROUGE-1", study, as_here("summarization", args.dialogues))


FACTORS = {
    "training-rows": training_rows,
    "four-bit-type": four_bit_type,
    "cut-on-the-right": cut_on_the_right,
    "loss-on-everything": all_of_it,
    "answer-tokens": answer_tokens,
    "nearly-greedy": nearly_greedy,
    "sampled": sampled,
    "no-end": without_end,
}
