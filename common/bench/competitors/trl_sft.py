"""A stock TRL script: SFTTrainer with its defaults and an adapter on every linear layer. Reads a JSON task from
standard input, prints the JSON line of steps.tell.

Task: {"folder", "rows": [{"prompt", "completion"} or {"input_ids", "completion_mask"}], "batch_size", "steps",
"lora_r", "learning_rate", "quantised": NF4 (true) or bfloat16 (false), "defaults"}. With "defaults" false the trainer
keeps activations instead of recomputing them; nothing else changes.
"""

import json
import sys
import tempfile


def main():
    import datasets
    import torch  # noqa: F401  before `common`, so that OpenMP has its own defaults
    import transformers
    import trl

    from common.bench.competitors import steps

    task, clock = json.load(sys.stdin), steps.Clock()
    overrides = {} if task["defaults"] else {"gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.SFTTrainer(
            model=steps.stock_model(task),
            args=trl.SFTConfig(
                max_length=None,  # 1,024 would cut answers off
                completion_only_loss=True,  # as TRL does by itself where rows have a "prompt"
                **steps.stock_arguments(task, folder),
                **overrides,
            ),
            train_dataset=datasets.Dataset.from_list(task["rows"]),
            processing_class=transformers.AutoTokenizer.from_pretrained(task["folder"]),
            peft_config=steps.stock_adapter(task),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    steps.tell(trainer, clock)


if __name__ == "__main__":
    main()
