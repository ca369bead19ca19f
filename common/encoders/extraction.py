"""Extractive summaries: the utterances of a dialogue, and which of them stand for its summary."""

import re


def utterances(dialogue):
    """The turns of a dialogue: its lines; in a single line, a turn begins with "Name: "."""
    lines = [line.strip() for line in dialogue.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [part.strip() for part in re.split(r"(?<!\S)(?=[^\W\d_][\w-]*: )", lines[0]) if part.strip()]
    return lines


def oracle(turns, summary, picks):
    """Numbers of the utterances that summarise best, `picks` at most: a greedy search adds one after another while
    ROUGE-1 + ROUGE-2 of the picked ones rises (Nallapati et al. 2017, arXiv 1611.04230, section 3.3)."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"], use_stemmer=True)

    def score(numbers):
        rouge = scorer.score(summary, " ".join(turns[i] for i in sorted(numbers)))
        return rouge["rouge1"].fmeasure + rouge["rouge2"].fmeasure

    picked, best = set(), 0.0
    while len(picked) < min(picks, len(turns)):
        candidate, number = max((score(picked | {i}), -i) for i in range(len(turns)) if i not in picked)
        if candidate <= best:
            break
        best = candidate
        picked.add(-number)
    return picked


def summary(turns, scores, picks):
    """The `picks` utterances with the highest scores, in the order in which they were said. scores: one an utterance
    that was read; utterances behind them were cut."""
    best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:picks]
    return " ".join(turns[i] for i in sorted(best))
