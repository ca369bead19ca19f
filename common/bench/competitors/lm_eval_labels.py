"""Multiple choice by lm-evaluation-harness with the same prompts and labels. Reads a JSON task from standard input,
prints one JSON line: "seconds" of the evaluation and "results", for each row the log-probabilities of all choices.

Task: {"folder", "rows": [{"prompt", "choices", "gold"}], "batch_size", "dtype"}; prompt and choice are joined without a
delimiter.
"""

import json
import sys
import tempfile
import time
from pathlib import Path


def main():
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    task = json.load(sys.stdin)
    model = HFLM(pretrained=task["folder"], dtype=task["dtype"], batch_size=task["batch_size"], device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in task["rows"]))
        config = {
            "task": "labels",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{gold}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        }
        began = time.monotonic()
        evaluated = lm_eval.simple_evaluate(model=model, tasks=[config], log_samples=True, bootstrap_iters=0)
        seconds = time.monotonic() - began
    samples = sorted(evaluated["samples"]["labels"], key=lambda sample: sample["doc_id"])
    scores = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
    print(json.dumps({"seconds": seconds, "results": scores}))


if __name__ == "__main__":
    main()
