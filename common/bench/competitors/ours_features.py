"""Frozen features of an encoder as this project computes them, and a logistic regression on them. Reads the task of
st_features.py, prints the same JSON line."""

import json
import sys
import time
from pathlib import Path


def main():
    from sklearn.linear_model import LogisticRegression

    from common import checkpoints, encoders, encoding, evaluation, qlora
    from common.encoders import probe
    from common.settings import Execution, Settings

    task = json.load(sys.stdin)
    checkpoint = checkpoints.find(task["folder"])
    settings = Settings(max_document_tokens=task["tokens"], cut="end", pooling="mean")
    execution = Execution(folder=Path("nowhere"), inference_batch_size=task["batch_size"])
    reader = encoders.reader(qlora.tokenizer(checkpoint), encoding.Template("{document}"), settings)
    model = probe.frozen(checkpoint)

    def features(texts):
        ids = [reader.text(text)[0] for text in texts]
        return probe.features(model, reader, ids, [None] * len(ids), settings, execution, evaluation.Timing())

    features(task["train"][:1])  # warm up
    began = time.monotonic()
    train, test = features(task["train"]), features(task["test"])
    regression = LogisticRegression(max_iter=2000).fit(train, task["targets"])
    print(json.dumps({"seconds": time.monotonic() - began, "results": regression.predict(test).tolist()}))


if __name__ == "__main__":
    main()
