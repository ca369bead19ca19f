"""Training as this project does it, on rows that are token ids already. Reads trl_sft.py's task (with "input_ids" and
"completion_mask"; "defaults" is not asked) from standard input, prints what steps.tell says."""

import json
import sys
import tempfile
from types import SimpleNamespace

from common import checkpoints, loading, machine, memory, training


def main():
    import datasets

    from common.rivals import steps

    task, clock = json.load(sys.stdin), steps.Clock()
    memory.keep_freed()
    checkpoint = checkpoints.find(task["folder"])
    model = loading.base(checkpoint, "bfloat16") if task["quantised"] else plain(checkpoint)
    settings = {
        "lora_r": task["lora_r"],
        "lora_alpha": 16,
        "dropout": 0.1,
        "targets": "all-linear",
        "epochs": 1,
        "batch_size": task["batch_size"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler": "linear",
        "neftune": None,
        "precision": "bfloat16",
    }
    told = SimpleNamespace(seed=0, use_liger_kernel=False, torch_compile=False, report_to="none")
    run = SimpleNamespace(settings=settings, args=told, tokenizer=loading.tokenizer(checkpoint))
    rows = [
        {
            "input_ids": row["input_ids"],
            "labels": [
                token if learned else -100
                for token, learned in zip(row["input_ids"], row["completion_mask"], strict=True)
            ],
        }
        for row in task["rows"]
    ]
    tuned = loading.new_adapter(model, settings)
    sampler = training.by_length([len(row["input_ids"]) for row in rows], task["batch_size"], 0)
    with tempfile.TemporaryDirectory() as folder:
        config = training.arguments(run, tuned, len(rows), folder, task["batch_size"])
        config |= {"save_strategy": "no", "max_steps": task["steps"]}
        rows = datasets.Dataset.from_list(rows), None
        trainer = training.ready(training.answers_only(run, tuned, rows, config, sampler, clock))
        if not training.to_the_end(trainer, None, clock):
            raise MemoryError(f"out of memory with {task['batch_size']} rows at once")
    steps.tell(trainer, clock)


def plain(checkpoint):
    """The base in bfloat16, as LoRA without quantisation has it: what scripts here load in 4 bits, they keep like this
    where memory allows (loading.unpacked)."""
    import torch
    import transformers

    told = {"dtype": torch.bfloat16, "device_map": machine.device(), "use_safetensors": True}
    return loading.reading(transformers.AutoModelForCausalLM, checkpoint, **told).eval()


if __name__ == "__main__":
    main()
