"""A model behind an OpenAI-compatible address on this machine: `python -m common.serve RECORD_OR_EXPERIMENT` serves
a trained adapter on its 4-bit base, `python -m common.serve --pretrained_ckpt NAME` an untrained model.

    GET /health, GET /v1/models, POST /v1/completions {"prompt"}, POST /v1/chat/completions {"messages"}
Both take model, max_tokens (default: what the run was scored with, else 128, and never more than the context holds),
temperature (default 0: greedy; else 0.01 to 2), top_k, seed, and stop (up to 4 texts; the answer is cut at the first,
usage counts all that was written). Answers are stripped of white space at both ends, as they are for scoring. What
changes an answer and is not among these (stream, n, top_p, …) is refused. Requests that decode alike are answered
together.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from common import batching, checkpoints, endpoint, experiment, flags, folders, machine, memory, records
from common.console import INTERRUPTED, InputError, exit_code, say, warn

CONTEXT = 2048  # tokens, where a checkpoint's config does not say


@dataclass
class Served:
    """What is served, before anything is loaded. adapter: its folder, None for an untrained model; settings: those of
    the run, or the checkpoint's own."""

    name: str
    checkpoint: checkpoints.Checkpoint
    adapter: Path | None
    settings: dict


def find(target, ckpt):
    """The Served that the command line asks for. target: a record, an experiment folder or None; ckpt: the base model
    to put the run's adapter on instead of its own or, without a target, the model. Raises InputError."""
    if not target and not ckpt:
        raise InputError("name a record or an experiment folder, or an untrained model with --pretrained_ckpt")
    name, adapter, kept = None, None, {}
    if target:
        folder = Path(target).expanduser().resolve()
        if not folder.is_dir():
            records.checked(folder)
            folder = records.folder(folder)
        adapter = folder / "adapter"
        if not (folder / "settings.json").is_file() or not (adapter / "adapter_model.safetensors").is_file():
            raise InputError(
                f"no trained adapter of a model that writes in {folder} (settings.json, adapter/): "
                "train one, or serve an untrained model by --pretrained_ckpt alone"
            )
        name, kept = folder.name, records.read(folder / "settings.json")
        if not isinstance(kept, dict) or not isinstance(kept.get("settings"), dict) or "checkpoint" not in kept:
            raise InputError(f"{folder / 'settings.json'} is not what a training script writes")
    base = ckpt or kept.get("checkpoint")
    known = folders.variant(base)
    checkpoint = checkpoints.find(base, known and known.revision)
    settings = kept["settings"] if target else checkpoint.settings | ({"format": known.format} if known else {})
    if settings.get("format") == "encoder":
        raise InputError(f"{target or base} is an encoder: it reads and cannot write")
    if known and (lack := machine.shortage(known)):
        raise InputError(f"{lack} This works here: python -m common.serve --pretrained_ckpt smollm2")
    return Served(name or checkpoint.label, checkpoint, adapter, settings)


def load(served):
    """(model, tokenizer, what it computes in). A trained run computes as it did when it was scored, where this machine
    can."""
    from common import loading

    precision = machine.precision(served.settings.get("precision") or "bfloat16")
    tokenizer, model = loading.tokenizer(served.checkpoint), loading.base(served.checkpoint, precision)
    if served.adapter:
        try:
            model = loading.with_adapter(model, served.adapter)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{served.adapter} does not fit {served.checkpoint.name}: {reason}") from None
    return model, tokenizer, precision


def context(config):
    """Tokens that prompt and answer may take together."""
    config = config.get_text_config()
    named = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    return next((found for name in named if (found := getattr(config, name, None))), CONTEXT)


def run(args):
    served = find(args.target, args.pretrained_ckpt)
    home = endpoint.Server(args.port)
    memory.keep_freed()
    experiment.quiet_libraries(served.checkpoint)
    model, tokenizer, precision = load(served)
    prompts, room = endpoint.Prompts(tokenizer, served.settings.get("format", "chat")), context(model.config)
    worker = batching.Worker(model, args.batch_size, args.wait_ms / 1000, args.max_waiting)
    worker.start()
    what = f"{served.checkpoint.name}{' with ' + records.display(served.adapter) if served.adapter else ', untrained'}"
    say(f"{served.name}: {what}; 4-bit, {precision}, {room} tokens of context; {machine.device_name()}")
    if served.checkpoint.source == "hub" and not served.checkpoint.revision:
        warn(f"no revision is pinned for {served.checkpoint.name}: what the hub has today is served")
    home.open(served, prompts, worker, room)
    say(f"open to this machine at http://127.0.0.1:{home.server_port}/v1; Ctrl-C ends")
    try:
        home.serve_forever()
    except KeyboardInterrupt:
        say("\nended")
    finally:
        worker.close()
        home.server_close()


def milliseconds(text):
    value = float(text)
    if not 0 <= value <= 60_000:
        raise ValueError
    return value


def main():
    parser = flags.Parser(description=__doc__)
    parser.add_argument(
        "target", nargs="?", metavar="RECORD_OR_EXPERIMENT", help="record of a trained run, or its folder with adapter/"
    )
    parser.add_argument(
        "--pretrained_ckpt", metavar="NAME", help="the base model (default: the run's own); alone: served untrained"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free (default: 8000)")
    parser.add_argument(
        "--batch_size",
        type=flags.positive(int),
        default=16,
        metavar="N",
        help="requests answered at a time (default: 16)",
    )
    parser.add_argument(
        "--wait_ms", type=milliseconds, default=10, metavar="MS", help="wait for more to batch, at most (default: 10)"
    )
    parser.add_argument(
        "--max_waiting", type=flags.positive(int), default=256, metavar="N",
        help="requests that may wait; more are told to come back, by a 503 (default: 256)",
    )  # fmt: skip
    args = parser.parse_args()
    try:
        run(args)
    except KeyboardInterrupt:  # while the model was loading
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    sys.exit(exit_code(main))
