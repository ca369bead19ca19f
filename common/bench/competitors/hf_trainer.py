"""A plain transformers Trainer with peft: an adapter on every linear layer, loss on the answers, rows padded by
transformers' own collator. Reads the task of trl_sft.py from standard input (rows with "input_ids" and
"completion_mask"; "defaults" is ignored), prints the JSON line of steps.tell.
"""

import json
import sys
import tempfile


def main():
    import datasets
    import peft
    import torch  # noqa: F401  before `common`, so that OpenMP has its own defaults
    import transformers

    from common.bench.competitors import steps

    task, clock = json.load(sys.stdin), steps.Clock()
    model = peft.prepare_model_for_kbit_training(steps.stock_model(task), use_gradient_checkpointing=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in steps.masked(task["rows"])]
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=peft.get_peft_model(model, steps.stock_adapter(task)),
            args=transformers.TrainingArguments(bf16=True, **steps.stock_arguments(task, folder)),
            train_dataset=datasets.Dataset.from_list(rows),
            data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    steps.tell(trainer, clock)


if __name__ == "__main__":
    main()
