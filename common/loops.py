"""What a training loop of one's own needs, where no trainer does it: batches of tensors, and progress that survives a
kill."""

from common import encoders, machine, records
from common.console import say


def batch(run, rows):
    """Rows of `Reader.rows` with a class each, as padded tensors on the device."""
    import torch

    device = machine.device()[""]
    made = encoders.right_padded(run.tokenizer).pad(
        {"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt"
    )
    return {**made.to(device), "labels": torch.tensor([row["labels"] for row in rows], device=device)}


class Progress:
    """What a training loop of one's own needs to go on after a kill: weights, optimizer and history, as of the end
    of an epoch. Tensors are safetensors; the file that names them is written last."""

    def __init__(self, run, model, optimizer):
        self.folder, self.model, self.optimizer = run.folder / "checkpoints", model, optimizer
        self.resume = run.args.resume

    def keep(self, *told):
        """told: history and validation so far, and whatever else the loop counts."""
        import safetensors.torch

        moments = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        tensors |= {f"{number}.{name}": value for number, state in moments.items() for name, value in state.items()}
        file = f"state-{len(told[1])}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, self.folder / file)
        records.write_json(self.folder / "progress.json", {"file": file, "told": told})
        for old in self.folder.glob("state-*.safetensors"):
            if old.name != file:
                old.unlink()

    def restored(self, *nothing):
        """What was told to the last `keep`, after putting weights and moments back; else `nothing`."""
        import safetensors.torch

        kept = self.folder / "progress.json"
        if not (self.resume and kept.is_file()):
            return nothing
        found = records.read(kept)
        tensors = safetensors.torch.load_file(self.folder / found["file"])
        self.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        state = {}
        for name, tensor in tensors.items():
            number, _, moment = name.partition(".")
            if number.isdigit():
                state.setdefault(int(number), {})[moment] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        say(f"resuming after epoch {len(found['told'][1])}")
        return found["told"]
