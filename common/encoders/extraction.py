"""Extractive summaries: the utterances of a dialogue, and which of them make its summary."""

import re


def utterances(dialogue):
    """The turns of a dialogue: its lines. In a dialogue of one line, every "Name: " begins a turn."""
    lines = [line.strip() for line in dialogue.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [part.strip() for part in re.split(r"(?<!\S)(?=[^\W\d_][\w-]*: )", lines[0]) if part.strip()]
    return lines


def oracle(turns, summary, picks):
    """Numbers of the utterances, at most `picks`, that match the summary best. A greedy search adds one utterance after
    another while ROUGE-1 + ROUGE-2 rises (Nallapati et al. 2017, arXiv 1611.04230, section 3.3)."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"], use_stemmer=True)

    def score(numbers):
        rouge = scorer.score(summary, " ".join(turns[i] for i in sorted(numbers)))
        return rouge["rouge1"].fmeasure + rouge["rouge2"].fmeasure

    picked, best_score = set(), 0.0
    while len(picked) < min(picks, len(turns)):
        candidate_score, number = max((score(picked | {i}), -i) for i in range(len(turns)) if i not in picked)
        if candidate_score <= best_score:
            break
        best_score = candidate_score
        picked.add(-number)
    return picked


def summary(turns, scores, picks):
    """The `picks` utterances with the highest scores, in the dialogue's order. scores: one for each utterance that was
    read; later utterances were cut."""
    picked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:picks]
    return " ".join(turns[i] for i in sorted(picked))
