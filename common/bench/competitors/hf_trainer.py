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
    import torch
    import transformers

    from common.bench.competitors import steps

    task, clock = json.load(sys.stdin), steps.Clock()
    four_bit = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task["folder"], dtype=torch.bfloat16, quantization_config=four_bit
    )
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = peft.LoraConfig(
        r=task["lora_r"], lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [
        {
            "input_ids": row["input_ids"],
            "attention_mask": [1] * len(row["input_ids"]),
            "labels": [
                token if learned else -100
                for token, learned in zip(row["input_ids"], row["completion_mask"], strict=True)
            ],
        }
        for row in task["rows"]
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=peft.get_peft_model(model, config),
            args=transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=task["batch_size"],
                max_steps=task["steps"],
                learning_rate=task["learning_rate"],
                bf16=True,
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                include_num_input_tokens_seen="non_padding",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    steps.tell(trainer, clock)


if __name__ == "__main__":
    main()
