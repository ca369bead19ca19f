"""Training as this project does it, on rows that are token ids already. Reads the task of trl_sft.py from standard
input (rows with "input_ids" and "completion_mask"; "defaults" is ignored), prints the JSON line of steps.tell.

Quantised weights stay in 4-bit layers, as TRL's do, unless the task has "unpacked". The scripts of this project
dequantise them if the memory allows it; on a large card the bench would then compare bfloat16 with NF4.
"""

import json
import sys
import tempfile
from pathlib import Path

from common import checkpoints, machine, qlora, training
from common.settings import Execution, Settings


def main():
    from common.bench.competitors import steps

    task, clock = json.load(sys.stdin), steps.Clock()
    steps.tell(train(task, clock), clock)


def train(task, callback):
    """Train on a task's rows, with `callback` as one of the trainer's; returns the trainer. Raises MemoryError if a
    step does not fit. "precision" of the task is bfloat16 unless it says otherwise."""
    import transformers

    from common.bench.competitors import steps

    machine.keep_freed()
    checkpoint = checkpoints.find(task["folder"])
    settings = Settings(
        trainer="SFTTrainer",
        quantization="nf4, double" if task["quantised"] else None,
        lora_r=task["lora_r"],
        lora_alpha=16,
        dropout=0.1,
        targets="all-linear",
        epochs=1,
        learning_rate=task["learning_rate"],
        lr_scheduler="linear",
        warmup_ratio=0.0,
        optimizer="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        batch_size=task["batch_size"],
        micro_batch_size=task["batch_size"],
        keep="last",
        seed=0,
    )
    rows = steps.masked(task["rows"][: task["batch_size"] * task["steps"]])
    # Not qlora.tokenizer: the rows are token ids, so any tokenizer that can pad will do.
    tokenizer, trainers = transformers.AutoTokenizer.from_pretrained(task["folder"]), []
    tokenizer.pad_token = tokenizer.eos_token

    def build(model, datasets, config, *further):
        """The trainer of common/training.py, with the callback and without checkpoints."""
        config = config | {"save_strategy": "no"}
        trainer = training.answers_only(tokenizer, model, datasets, config, *further)
        trainer.add_callback(callback)
        trainers.append(trainer)
        return trainer

    if not task.get("unpacked"):
        qlora.UNPACK_SHARE = 0
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(folder=Path(folder), precision=task.get("precision", "bfloat16"))
        tuned = qlora.new_adapter(base(checkpoint, execution, settings), settings)
        report = training.fit(tuned, rows, [], build, settings, execution)
    if report["training"]["micro_batch_size"] != task["batch_size"]:
        raise MemoryError(f"out of memory with {task['batch_size']} rows at once")
    return trainers[-1]


def base(checkpoint, execution, settings):
    """The frozen model: in 4-bit layers, or in bfloat16 for LoRA without quantisation."""
    import torch
    import transformers

    if settings.quantization:
        return qlora.base(checkpoint, execution)
    keywords = {"dtype": torch.bfloat16, "device_map": machine.device(), "use_safetensors": True}
    return qlora.reading(transformers.AutoModelForCausalLM, checkpoint, **keywords).eval()


if __name__ == "__main__":
    main()
