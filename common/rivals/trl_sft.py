"""What people would write with TRL today: SFTTrainer, QLoRA, defaults. Reads a JSON task from standard input, prints
one JSON line: seconds and tokens (padding not counted) of the training steps behind the first two, and all losses.

Task: {"folder", "rows": [{"prompt", "completion"}], "batch_size", "steps", "lora_r", "learning_rate", "defaults"};
defaults false: activations are kept instead of recomputed, the rest stays as it is.
"""

import json
import sys
import tempfile
import time


def main():
    import datasets
    import peft
    import torch
    import transformers
    import trl

    task = json.load(sys.stdin)
    marks = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **keywords):
            marks.append((time.monotonic(), state.num_input_tokens_seen))

    model = transformers.AutoModelForCausalLM.from_pretrained(
        task["folder"],
        dtype=torch.bfloat16,
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    )
    chosen = {} if task["defaults"] else {"gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=task["batch_size"],
                max_steps=task["steps"],
                learning_rate=task["learning_rate"],
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                include_num_input_tokens_seen="non_padding",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **chosen,
            ),
            train_dataset=datasets.Dataset.from_list(task["rows"]),
            processing_class=transformers.AutoTokenizer.from_pretrained(task["folder"]),
            peft_config=peft.LoraConfig(
                r=task["lora_r"], lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    (began, before), (ended, after) = marks[1], marks[-1]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps({"seconds": ended - began, "tokens": after - before, "losses": losses}))


if __name__ == "__main__":
    main()
