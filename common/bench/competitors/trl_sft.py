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
    import peft
    import torch
    import transformers
    import trl

    from common.bench.competitors import steps

    task, clock = json.load(sys.stdin), steps.Clock()
    four_bit = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task["folder"],
        dtype=torch.bfloat16,
        device_map={"": 0} if torch.cuda.is_available() else None,
        quantization_config=four_bit if task["quantised"] else None,
    )
    overrides = {} if task["defaults"] else {"gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=task["batch_size"],
                max_steps=task["steps"],
                max_length=None,  # 1,024 would cut answers off
                completion_only_loss=True,  # as TRL does by itself where rows have a "prompt"
                learning_rate=task["learning_rate"],
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                include_num_input_tokens_seen="non_padding",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **overrides,
            ),
            train_dataset=datasets.Dataset.from_list(task["rows"]),
            processing_class=transformers.AutoTokenizer.from_pretrained(task["folder"]),
            peft_config=peft.LoraConfig(
                r=task["lora_r"], lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[clock],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    steps.tell(trainer, clock)


if __name__ == "__main__":
    main()
