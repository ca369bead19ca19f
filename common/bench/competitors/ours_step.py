"""Where the time of a training step goes. Reads the task of ours_sft.py from standard input, prints one JSON line:
"parts", the seconds of a step by part, from torch's profiler; what passes outside torch's operations is Python's.
"""

import collections
import json
import sys
import time

from common.bench.competitors import ours_sft

UNTIMED = 2  # first steps, which choose kernels and allocate memory
# part -> beginnings of the names of operations, or of functions that they are called from
PARTS = {
    "optimizer and clipping": ("Optimizer.", "aten::_fused_adamw", "aten::linalg_vector_norm", "aten::_foreach"),
    "dropout": ("finetuning_hub::drop",),
    "products of the frozen weights": ("frozen product",),  # common/cpu/lora.py names them
    "attention": ("Attention", "aten::_scaled_dot", "aten::scaled_dot", "ScaledDot"),
    "adapter": ("LoraLinear", "torch::autograd::AccumulateGrad"),
    "norms": ("RMSNorm",),
    "rotary positions": ("Rotation",),
    "rows": ("enumerate(DataLoader)",),
    "logits and loss": ("aten::_log_softmax", "aten::log_softmax", "aten::cross_entropy", "aten::nll_loss",
                        "LogSoftmax", "NllLoss", "aten::embedding", "aten::index", "IndexBackward", "MmBackward",
                        "aten::linear"),
    "activations and residual sums": ("aten::silu", "SiluBackward", "aten::mul", "MulBackward", "aten::add",
                                      "AddBackward"),
}  # fmt: skip


def part_of(event):
    """The first part of which an operation, or a function that it is called from, has a name."""
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

    task, marks = json.load(sys.stdin), []
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **keywords):
            marks.append(time.perf_counter())
            if len(marks) == UNTIMED:
                profiler.__enter__()
                marks[-1] = time.perf_counter()

        def on_train_end(self, args, state, control, **keywords):
            profiler.__exit__(None, None, None)

    ours_sft.train(task, Clock())
    steps, parts = len(marks) - UNTIMED, collections.Counter()
    for event in profiler.events():
        parts[part_of(event)] += event.self_cpu_time_total / 1e6 / steps
    parts["Python and the profiler"] = (marks[-1] - marks[UNTIMED - 1]) / steps - sum(parts.values())
    print(json.dumps({"parts": parts}))


if __name__ == "__main__":
    main()
