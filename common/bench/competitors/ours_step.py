"""Where the time of a training step goes. Reads a JSON task from standard input, prints one JSON line: "parts", the
seconds of a step by part, from torch's profiler; what passes outside torch's operations is Python's.

Task: {"folder", "rows": [{"input_ids", "labels"}], "precision", "lora_r", "learning_rate"} and the "rows" of a step.
"""

import collections
import json
import sys
import tempfile
import time
from pathlib import Path

UNTIMED = 2  # first steps, which choose kernels and allocate memory
FROZEN = "products of the frozen weights"
# part -> beginnings of the names of operations, or of functions that they are called from
PARTS = {
    "optimizer and clipping": ("Optimizer.", "aten::_fused_adamw", "aten::linalg_vector_norm", "aten::_foreach"),
    "dropout": ("finetuning_hub::drop",),
    FROZEN: ("frozen product",),
    "attention": ("Attention", "aten::_scaled_dot", "aten::scaled_dot"),
    "adapter": ("LoraLinear", "torch::autograd::AccumulateGrad"),
    "norms": ("RMSNorm",),
    "rotary positions": ("Rotation",),
    "logits and loss": ("aten::_log_softmax", "aten::log_softmax", "aten::cross_entropy", "aten::nll_loss",
                        "LogSoftmax", "NllLoss", "aten::embedding", "aten::index", "IndexBackward", "MmBackward",
                        "aten::linear"),
    "activations and residual sums": ("aten::silu", "SiluBackward", "aten::mul", "MulBackward", "aten::add",
                                      "AddBackward"),
}  # fmt: skip


def part_of(event):
    """The part that an operation belongs to, by its own name or by the nearest of its callers."""
    chain = []
    while event is not None:
        chain.append(event.name.removeprefix("autograd::engine::evaluate_function: "))
        event = event.cpu_parent
    for part, beginnings in PARTS.items():
        if any(name.startswith(beginnings) for name in chain):
            return part
    return "casts, copies and others"


def main():
    import torch
    import transformers

    from common import checkpoints, machine, qlora, training
    from common.settings import Execution, Settings

    task, marks = json.load(sys.stdin), []
    machine.keep_freed()
    settings = Settings(
        lora_r=task["lora_r"],
        lora_alpha=16,
        dropout=0.1,
        targets="all-linear",
        epochs=1,
        learning_rate=task["learning_rate"],
        lr_scheduler="constant",
        warmup_ratio=0.0,
        optimizer="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=0.3,
        batch_size=8,
        micro_batch_size=8,
    )
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **keywords):
            marks.append(time.perf_counter())
            if len(marks) == UNTIMED:
                profiler.__enter__()
                marks[-1] = time.perf_counter()

        def on_train_end(self, args, state, control, **keywords):
            profiler.__exit__(None, None, None)

    checkpoint = checkpoints.find(task["folder"])
    # Not qlora.tokenizer: the rows are token ids, so any tokenizer that can pad will do.
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    tokenizer.pad_token = tokenizer.eos_token

    def build(model, datasets, config, *further):
        trainer = training.answers_only(tokenizer, model, datasets, config | {"save_strategy": "no"}, *further)
        trainer.add_callback(Clock())
        return trainer

    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(folder=Path(folder), precision=task["precision"])
        model = qlora.new_adapter(qlora.base(checkpoint, execution), settings)
        training.fit(model, task["rows"], [], build, settings, execution)
    steps, parts = len(marks) - UNTIMED, collections.Counter()
    for event in profiler.events():
        parts[part_of(event)] += event.self_cpu_time_total / 1e6 / steps
    parts["Python and the profiler"] = (marks[-1] - marks[UNTIMED - 1]) / steps - sum(parts.values())
    print(json.dumps({"parts": parts}))


if __name__ == "__main__":
    main()
