"""What a model sees of the rows: their lengths in tokens, what would be cut, and one row as prompt and answer."""

import statistics
import warnings

from common import encoding

COUNTED = 2_000  # rows whose tokens are counted, at most


def lengths(run, rows):
    """Tokens of the texts and targets of data.Data by the run's tokenizer: {"checkpoint", "rows", "text", "target",
    "limit", "cut"}. "text" and "target": {"median", "p90", "max"}; limit: tokens to which the run cuts a text; cut:
    share of the texts that are longer."""
    sample = (rows.train + rows.validation + rows.test)[:: max(1, sum(rows.n.values()) // COUNTED)][:COUNTED]
    limit, texts = run.settings.max_document_tokens, [run.template.document(row) for row in sample]
    counts = counted(run.tokenizer, texts, run.is_encoder)
    return {
        "checkpoint": run.checkpoint.name,
        "rows": len(sample),
        "text": summary(counts),
        "target": None if run.is_encoder else summary(counted(run.tokenizer, [row["target"] for row in sample], False)),
        "limit": limit,
        "cut": sum(count > limit for count in counts) / len(counts),
    }


def counted(tokenizer, texts, special):
    """Number of tokens of each text, with an encoder's special tokens if `special`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a text longer than the context is no news here: it is cut
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]]


def summary(counts):
    ordered = sorted(counts)
    return {
        "median": round(statistics.median(ordered)),
        "p90": ordered[max(0, -(-len(ordered) * 9 // 10) - 1)],
        "max": ordered[-1],
    }


def example(run, rows):
    """The first training row as the model reads it: {"checkpoint", "format", "prompt", "answer", "tokens", "cut"}.
    prompt: without loss; answer: with loss, up to the token that ends it; tokens: [of the prompt, of the answer]."""
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, rows.labels)
    (encoded,) = encoding.training_rows(prompter, rows.train[:1], "example")
    ids, supervised = encoded["input_ids"], [label != -100 for label in encoded["labels"]]
    begins = supervised.index(True)
    return {
        "checkpoint": run.checkpoint.name,
        "format": run.format,
        "prompt": run.tokenizer.decode(ids[:begins]),
        "answer": run.tokenizer.decode(ids[begins:]),
        "tokens": [begins, len(ids) - begins],
        "cut": bool(prompter.truncated["example"]),
    }
