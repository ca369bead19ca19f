"""What the training scripts share: the stock model and adapter, rows, the clock, and the JSON line that they print."""

import json
import time

import transformers

UNTIMED = 2  # first steps, which choose kernels and allocate memory


def stock_model(task):
    """transformers' model of the task, in bfloat16 or NF4."""
    import torch

    four_bit = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return transformers.AutoModelForCausalLM.from_pretrained(
        task["folder"],
        dtype=torch.bfloat16,
        device_map={"": 0} if torch.cuda.is_available() else None,
        quantization_config=four_bit if task["quantised"] else None,
    )


def stock_adapter(task):
    """peft's configuration of an adapter on every linear layer."""
    import peft

    return peft.LoraConfig(
        r=task["lora_r"], lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def stock_arguments(task, folder):
    """Keywords of TrainingArguments, the same for the stock trainers; all else is their default."""
    import torch

    return {
        "output_dir": folder,
        "per_device_train_batch_size": task["batch_size"],
        "max_steps": task["steps"],
        "learning_rate": task["learning_rate"],
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def masked(rows):
    """[{"input_ids", "labels"}] of rows with a "completion_mask"; the loss is on its tokens alone."""
    return [
        {
            "input_ids": row["input_ids"],
            "labels": [
                token if learned else -100
                for token, learned in zip(row["input_ids"], row["completion_mask"], strict=True)
            ],
        }
        for row in rows
    ]


class Clock(transformers.TrainerCallback):
    """Notes the time and the number of tokens so far, without padding, at the end of every step."""

    bar = None  # this project's trainer closes the progress bar of its callbacks

    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **keywords):
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append((time.monotonic(), state.num_input_tokens_seen))


def tell(trainer, clock):
    """Print one JSON line: "seconds" and "tokens" of the timed steps, "losses" of all steps, "peak_bytes" (null on a
    CPU), "trained", the number of trained parameters, and "unpacked", whether no frozen weight was in a 4-bit layer."""
    import bitsandbytes
    import torch

    (began, before), (ended, after) = clock.marks[UNTIMED - 1], clock.marks[-1]
    layers = [module for module in trainer.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    report = {
        "seconds": ended - began,
        "tokens": after - before,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "trained": sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad),
        "unpacked": not layers,
    }
    print(json.dumps(report))
