"""What both training scripts share: the clock, and the JSON line that they print."""

import json
import time

import transformers

UNTIMED = 2  # first steps, which choose kernels and allocate memory


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
