"""Factors that follow from what recorded runs wrote: other figures of the same answers."""

import json

from common import metrics
from common.console import InputError
from common.evaluation.kept import row_scores
from common.factors import causal
from common.reports import join, statistics
from common.runs import folders

FEW = 10  # dialogues


def record_of(task, method, metric, stage):
    """The record to show of `records_of`."""
    return join.fullest(records_of(task, method, metric, stage))


def records_of(task, method, metric, stage):
    """The records of a task and method with the rows' scores of a metric, of seeds if several were run. Raises
    InputError without one."""
    own = join.own(folders.read(causal.HOME))
    matching = [each for each in own if each["identity"]["task"] == task and join.method(each) == method]
    matching = [each for each in matching if metric in ((each.get("row_scores") or {}).get(stage) or {})]
    if not matching:
        raise InputError(f"no record of {method} on {task} with rows: bash {causal.HOME.name}/evidence.sh makes it")
    shown = join.fullest(matching)
    return next(group for group in join.seeds(matching) if shown in group)


def free_text(args):
    """Answers that are exactly a label, against the likeliest label."""
    rows = record_of("classification", "zero-shot", "generated_right", "base")["row_scores"]["base"]
    study, here = row_scores(rows["generated_right"]).tolist(), row_scores(rows["accuracy"]).tolist()
    return causal.figures("accuracy, untrained", study, here)


def few_dialogues(args):
    """The mean of 10 dialogues, against that of all: where it falls in 95 % of draws."""
    import numpy

    rows = row_scores(record_of("summarization", "qlora", "rouge1", "tuned")["row_scores"]["tuned"]["rouge1"])
    draws = numpy.random.default_rng(0).choice(rows, size=(10_000, FEW)).mean(axis=1) - rows.mean()
    found = causal.figures("ROUGE-1", rows.tolist(), rows.tolist())
    low, high = numpy.quantile(draws, [statistics.ALPHA / 2, 1 - statistics.ALPHA / 2])
    return found | {"low": float(low), "high": float(high), "p": None}


def echo(args):
    """Answers scored with their prompt, against answers alone."""
    trained = causal.plain("instructions", None)
    lines = (trained.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    references = [row["reference"] for row in rows]
    with_prompt = metrics.rouge([f"{row['prompt']} {row['answer']}" for row in rows], references)["rouge1"]["rows"]
    alone = metrics.rouge([row["answer"] for row in rows], references)["rouge1"]["rows"]
    percent = [[100 * score for score in scores] for scores in (with_prompt, alone)]
    return causal.figures("ROUGE-1", *percent)


def random_head(args):
    """A random classification head, called zero-shot, against the likeliest label."""
    import numpy

    seeds = records_of("sentiment", "random-head", "accuracy", "base")
    prompted = record_of("sentiment", "zero-shot", "accuracy", "base")
    scores = lambda each: row_scores(each["row_scores"]["base"]["accuracy"])  # noqa: E731
    study, here = [scores(each) for each in seeds], [scores(prompted)]
    found = causal.figures("accuracy, untrained", numpy.mean(study, axis=0).tolist(), here[0].tolist())
    if len(study) > 1:
        worse = statistics.methods_differ(here, study, fixed=True)  # the prompt's scores are the same with every seed
        found |= {"value": -worse.value, "low": -worse.high, "high": -worse.low, "p": worse.p}
    return found


FACTORS = {
    "exact-match": free_text,
    "ten-dialogues": few_dialogues,
    "prompt-in-answer": echo,
    "random-head": random_head,
}
