"""Summaries made of what was said: the utterances of a dialogue, and which of them stand for its summary."""

import re

PICKS = 3  # utterances in a summary: SAMSum's summaries have 23 words, its utterances 9


def utterances(dialogue):
    """The turns of a dialogue: its lines; of a single line, what begins with "Name: "."""
    lines = [line.strip() for line in dialogue.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [part.strip() for part in re.split(r"(?<!\S)(?=[^\W\d_][\w-]*: )", lines[0]) if part.strip()]
    return lines


def oracle(said, summary):
    """Numbers of the at most PICKS utterances that a greedy search adds one by one while ROUGE-1 + ROUGE-2
    of what is picked rises (Nallapati et al. 2017, arXiv 1611.04230, section 3.3)."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"], use_stemmer=True)

    def score(numbers):
        found = scorer.score(summary, " ".join(said[i] for i in sorted(numbers)))
        return found["rouge1"].fmeasure + found["rouge2"].fmeasure

    picked, best = set(), 0.0
    while len(picked) < min(PICKS, len(said)):
        candidates = [(score(picked | {i}), -i) for i in range(len(said)) if i not in picked]
        found, number = max(candidates)
        if found <= best:
            break
        best = found
        picked.add(-number)
    return picked


def summary(said, scores):
    """The PICKS utterances with the highest scores, in the order in which they were said."""
    best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:PICKS]
    return " ".join(said[i] for i in sorted(best))
