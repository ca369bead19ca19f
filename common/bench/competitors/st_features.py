"""Frozen features by sentence-transformers, and a logistic regression on them. Reads a JSON task from standard input,
prints one JSON line: "seconds" of encoding and fitting and "results", the class of every test text.

Task: {"folder", "train": [text], "targets": [class], "test": [text], "batch_size", "tokens": of a text at most}.
"""

import json
import sys
import time


def main():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sklearn.linear_model import LogisticRegression

    task = json.load(sys.stdin)
    transformer = Transformer(task["folder"])
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    model.max_seq_length = task["tokens"]
    model.encode(task["train"][:1])  # warm up
    began = time.monotonic()
    train, test = (
        model.encode(task[part], batch_size=task["batch_size"], show_progress_bar=False) for part in ("train", "test")
    )
    regression = LogisticRegression(max_iter=2000).fit(train, task["targets"])
    results = regression.predict(test).tolist()
    print(json.dumps({"seconds": time.monotonic() - began, "results": results}))


if __name__ == "__main__":
    main()
