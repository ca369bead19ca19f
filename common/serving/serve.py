"""A model behind an OpenAI-compatible address on this machine: `python -m common serve RECORD_OR_EXPERIMENT` serves
a trained adapter on its 4-bit base, `python -m common serve --pretrained_ckpt NAME` an untrained model.

    GET /health, GET /v1/models, POST /v1/completions {"prompt"}, POST /v1/chat/completions {"messages"}
Both take model, max_tokens (default: what the run was scored with, else 128, and never more than the context holds),
temperature (default 0: greedy; else 0.01 to 2), top_k, seed, stop (up to 4 texts; the answer ends before the first) and
stream. Answers are stripped of white space at both ends, as they are for scoring. Any other field is refused. Requests
that decode alike are answered together.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from common import checkpoints, files, machine
from common.console import InputError, say, warn
from common.runs import checks, flags, folders, records
from common.settings import Execution

CONTEXT = 2048  # tokens, where a checkpoint's config does not say
END_SECONDS = 1.5  # that a step of the model may take once the server ends


@dataclass(frozen=True)
class Served:
    """What is served, before anything is loaded. adapter: its folder, None for an untrained model; format: of its
    prompts ("plain" or "chat"); precision: asked for; max_new_tokens: of an answer, where the run says."""

    name: str
    checkpoint: checkpoints.Checkpoint
    adapter: Path | None
    format: str
    precision: str
    max_new_tokens: int | None = None


def find(target, ckpt):
    """The Served that the command line asks for. target: a record, a run's folder or None; ckpt: the base model to put
    the run's adapter on instead of its own or, without a target, the model. Raises InputError."""
    if ckpt == "" or target == "":
        raise InputError("the name is empty: give a record, a run's folder or --pretrained_ckpt NAME")
    if not target and not ckpt:
        raise InputError("name a record or a run's folder, or an untrained model with --pretrained_ckpt")
    run = trained(target) if target else None
    base = ckpt or run["identity"]["checkpoint"]
    facts, variant = folders.home(base) or (None, None)
    form = run["identity"]["format"] if run else variant.format if variant else "chat"
    if form == "encoder" or (variant and variant.format == "encoder"):
        raise InputError(f"{target or base} is an encoder: it reads and cannot write")
    checkpoint = checkpoints.find(base, variant and variant.revision)
    if lack := variant and checks.shortage(variant):
        raise InputError(f"{lack} This works here: python -m common serve --pretrained_ckpt smollm2")
    precision = facts.PRECISION if facts else "bfloat16"
    if not run:
        return Served(checkpoint.label, checkpoint, None, form, precision)
    made = run["identity"]
    if not ckpt and checkpoint.revision != made["revision"]:
        warn(f"{base} is now {checkpoint.revision}, the adapter was trained on {made['revision']}: answers may differ")
    precision = precision if made["precision"] == "auto" else made["precision"]
    folder = run["folder"]
    return Served(folder.name, checkpoint, folder / "adapter", form, precision, made["settings"]["max_new_tokens"])


def trained(target):
    """run.json of the run that a record or a folder belongs to, and its "folder". Raises InputError."""
    folder = Path(target).expanduser().resolve()
    if not folder.is_dir():
        records.checked(folder)
        folder = records.folder(folder)
    if not (folder / "run.json").is_file() or not (folder / "adapter" / "adapter_model.safetensors").is_file():
        raise InputError(
            f"no trained adapter of a model that writes in {folder} (run.json, adapter/): "
            "train one, or serve an untrained model by --pretrained_ckpt alone"
        )
    return records.run_of(folder) | {"folder": folder}


def load(served):
    """(model, tokenizer, what it computes in). A trained run computes as it did when it was scored, where this machine
    can."""
    from common import qlora

    precision = machine.precision(served.precision)
    execution = Execution(folder=(served.adapter or Path("none")).parent, precision=precision)
    tokenizer, model = qlora.tokenizer(served.checkpoint), qlora.base(served.checkpoint, execution)
    return qlora.with_adapter(model, served.adapter) if served.adapter else model, tokenizer, precision


def context(config):
    """Tokens that prompt and answer may take together."""
    config = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    return next((tokens for name in names if (tokens := getattr(config, name, None))), CONTEXT)


def serve(args):
    from common.runs.run import quiet_libraries
    from common.serving import batching, endpoint, openai_api

    served = find(args.target, args.pretrained_ckpt)
    taken = endpoint.bind(args.port)
    port = taken.getsockname()[1]
    quiet_libraries(served.checkpoint)
    machine.keep_freed()
    model, tokenizer, precision = load(served)
    prompts, tokens = openai_api.Prompts(tokenizer, served.format), context(model.config)
    worker = batching.Worker(model, args.batch_size, args.wait_ms / 1000, args.max_waiting)
    what = f"{served.checkpoint.name}{' with ' + files.display(served.adapter) if served.adapter else ', untrained'}"
    say(f"{served.name}: {what}; 4-bit, {precision}, {tokens} tokens of context; {machine.device_name()}")
    if served.checkpoint.source == "hub" and not served.checkpoint.revision:
        warn(f"no revision is pinned for {served.checkpoint.name}: what the hub has today is served")
    app = endpoint.Endpoint(served, prompts, worker, tokens).app(port)
    open_for(app, taken, worker)


def open_for(app, taken, worker):
    """Answer until Ctrl-C or SIGTERM. taken: the bound socket."""
    from common.serving import web

    address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    worker.start()
    server = web.Server(app, worker, lambda: say(f"open to this machine at {address}; Ctrl-C ends"))
    server.run(sockets=[taken])
    worker.join(END_SECONDS)
    say("\nended")
    if worker.is_alive():  # in a long step of the model, which nothing can break off: do not wait for it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def milliseconds(text):
    value = float(text)
    if not 0 <= value <= 60_000:
        raise ValueError
    return value


def main(words):
    parser = flags.Parser(prog="python -m common serve", description=__doc__)
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
    serve(parser.parse_args(words))
