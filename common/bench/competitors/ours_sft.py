"""Training as this project does it, on rows that are token ids already. Reads trl_sft.py's task (with "input_ids" and
"completion_mask"; "defaults" is not asked) from standard input, prints what steps.tell says.

Weights that are to be quantised stay in 4-bit layers, as TRL's do: scripts here would keep them dequantised where the
memory allows, and a large card would compare bfloat16 with NF4.
"""

import json
import sys
import tempfile
from pathlib import Path

from common import checkpoints, machine, qlora, training
from common.settings import Execution, Settings


def main():
    import transformers

    from common.bench.competitors import steps

    task, clock = json.load(sys.stdin), steps.Clock()
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
    rows = [
        {
            "input_ids": row["input_ids"],
            "labels": [
                token if learned else -100
                for token, learned in zip(row["input_ids"], row["completion_mask"], strict=True)
            ],
        }
        for row in task["rows"][: task["batch_size"] * task["steps"]]
    ]
    # Not qlora.tokenizer: weights are random and rows are ids, so that any tokenizer will do that can pad.
    tokenizer, trainers = transformers.AutoTokenizer.from_pretrained(task["folder"]), []
    tokenizer.pad_token = tokenizer.eos_token

    def build(model, datasets, config, *rest):
        """training's own trainer, which saves nothing and tells the clock."""
        config = config | {"save_strategy": "no"}
        trainer = training.answers_only(tokenizer, model, datasets, config, *rest)
        trainer.add_callback(clock)
        trainers.append(trainer)
        return trainer

    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(folder=Path(folder), precision="bfloat16")
        tuned = qlora.new_adapter(base(checkpoint, execution, settings), settings)
        report = training.fit(tuned, rows, [], build, settings, execution)
    if report["training"]["micro_batch_size"] != task["batch_size"]:
        raise MemoryError(f"out of memory with {task['batch_size']} rows at once")
    steps.tell(trainers[-1], clock)


def base(checkpoint, execution, settings):
    """The frozen model: in 4-bit layers, or in bfloat16 as LoRA without quantisation has it."""
    import torch
    import transformers

    if settings.quantization:
        qlora.UNPACK_SHARE = 0
        return qlora.base(checkpoint, execution)
    keywords = {"dtype": torch.bfloat16, "device_map": machine.device(), "use_safetensors": True}
    return qlora.reading(transformers.AutoModelForCausalLM, checkpoint, **keywords).eval()


if __name__ == "__main__":
    main()
