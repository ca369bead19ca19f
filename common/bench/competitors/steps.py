"""What the training scripts here have in common: the clock, and the line that they print."""

import json
import time

import transformers

UNTIMED = 2  # steps at the start: kernels are chosen and memory is taken in them


class Clock(transformers.TrainerCallback):
    """The time and the tokens (padding not counted) at the end of every step."""

    bar = None  # a trainer of this project's closes its progress bar

    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **keywords):
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append((time.monotonic(), state.num_input_tokens_seen))


def tell(trainer, clock):
    """Print one JSON line: seconds and tokens of the timed steps, the losses of all, peak_bytes (null on a CPU), the
    parameters that were trained, and whether the frozen weights were not in 4-bit layers."""
    import bitsandbytes
    import torch

    (began, before), (ended, after) = clock.marks[UNTIMED - 1], clock.marks[-1]
    layers = [module for module in trainer.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    said = {
        "seconds": ended - began,
        "tokens": after - before,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "trained": sum(each.numel() for each in trainer.model.parameters() if each.requires_grad),
        "unpacked": not layers,
    }
    print(json.dumps(said))
