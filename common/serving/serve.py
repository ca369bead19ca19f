"""Serve a model on this machine behind an OpenAI-compatible API: `python -m common serve RECORD_OR_EXPERIMENT` serves
a trained adapter on its 4-bit base, `python -m common serve --pretrained_ckpt NAME` an untrained model.

    GET / (a page to try it), GET /health, GET /v1/models
    POST /v1/completions {"prompt"}, POST /v1/chat/completions {"messages"}
Both POST routes take model, max_tokens (default: the run's own limit, else 128; always cut to fit the context),
temperature (default 0: greedy; else 0.01 to 2), top_k, seed, stop (up to 4 texts; the answer ends before the first) and
stream. The server strips white space from both ends of an answer, as scoring does, refuses any other field, and answers
requests with the same decoding in one batch.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from common import checkpoints, files, machine, training
from common import precision as precisions
from common.console import InputError, say, warn
from common.runs import checks, flags, folders, records
from common.settings import Execution

CONTEXT = 2048  # tokens, if a checkpoint's config names no limit
END_SECONDS = 1.5  # limit of the time that the model's last step takes after the server was told to end


@dataclass(frozen=True)
class Served:
    """What to serve, before anything is loaded.

    adapter: folder of the adapter, None for an untrained model; format: "plain" or "chat" prompts; precision: the one
    to compute in if the machine can; max_new_tokens: the run's limit of an answer, None without a run."""

    name: str
    checkpoint: checkpoints.Checkpoint
    adapter: Path | None
    format: str
    precision: str
    max_new_tokens: int | None = None
    wording: dict | None = None  # fields of the run's encoding.Template, for the page
    labels: tuple = ()  # its classes


def find(target, ckpt):
    """The Served of the command line's arguments.

    target: a record, a run's folder or None; ckpt: with a target, another base model for the run's adapter; without
    one, the model to serve. Raises InputError."""
    if ckpt == "" or target == "":
        raise InputError("the name is empty: give a record, a run's folder or --pretrained_ckpt NAME")
    if not target and not ckpt:
        raise InputError("name a record or a run's folder, or an untrained model with --pretrained_ckpt")
    run = trained(target) if target else None
    base = ckpt or run["identity"]["checkpoint"]
    facts, variant = folders.home(base) or (None, None)
    format = run["identity"]["format"] if run else variant.format if variant else "chat"
    if format == "encoder" or (variant and variant.format == "encoder"):
        raise InputError(f"{target or base} is an encoder: it reads and cannot write")
    checkpoint = checkpoints.find(base, variant and variant.revision)
    if shortage := variant and checks.shortage(variant):
        raise InputError(f"{shortage} This works here: python -m common serve --pretrained_ckpt smollm2")
    precision = facts.PRECISION if facts else "bfloat16"
    if not run:
        return Served(checkpoint.label, checkpoint, None, format, precision)
    fields, folder = run["identity"], run["folder"]
    if not ckpt and checkpoint.revision != fields["revision"]:
        warn(
            f"{base} is now {checkpoint.revision}, the adapter was trained on {fields['revision']}: answers may differ"
        )
    precision = precision if fields["precision"] == "auto" else fields["precision"]
    limit, labels = fields["settings"]["max_new_tokens"], tuple(training.trained_labels(folder))
    return Served(folder.name, checkpoint, folder / "adapter", format, precision, limit, fields["wording"], labels)


def trained(target):
    """The fields of run.json of the run that a record or a folder belongs to, and "folder", its Path. Raises
    InputError."""
    folder, weights = records.located(target)
    if not weights or weights.parent.name != "adapter":
        raise InputError(
            f"no trained adapter of a model that writes in {folder} (run.json, adapter/): "
            "train one, or serve an untrained model by --pretrained_ckpt alone"
        )
    return records.run_of(folder) | {"folder": folder}


def load(served):
    """(model, tokenizer, precision). The precision is the one that the run was scored in, if this machine can."""
    from common import qlora

    used, _ = precisions.chosen("auto", served.precision)
    execution = Execution(folder=(served.adapter or Path("none")).parent, precision=used)
    tokenizer, model = qlora.tokenizer(served.checkpoint), qlora.base(served.checkpoint, execution)
    return qlora.with_adapter(model, served.adapter) if served.adapter else model, tokenizer, used


def context(config):
    """Limit on the tokens of prompt and answer together, from transformers' config."""
    config = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    return next((tokens for name in names if (tokens := getattr(config, name, None))), CONTEXT)


def serve(args):
    from common.runs.run import quiet_libraries
    from common.serving import batching, endpoint, openai_api

    served = find(args.target, args.pretrained_ckpt)
    listener = endpoint.bind(args.port)
    port = listener.getsockname()[1]
    quiet_libraries(served.checkpoint)
    machine.keep_freed()
    model, tokenizer, used = load(served)
    prompts, context_tokens = openai_api.Prompts(tokenizer, served.format), context(model.config)
    worker = batching.Worker(model, args.batch_size, args.wait_ms / 1000, args.max_waiting)
    weights = f"{served.checkpoint.name}{' with ' + files.display(served.adapter) if served.adapter else ', untrained'}"
    say(f"{served.name}: {weights}; 4-bit, {used}, {context_tokens} tokens of context; {machine.device_name()}")
    if served.checkpoint.source == "hub" and not served.checkpoint.revision:
        warn(f"no revision is pinned for {served.checkpoint.name}: what the hub has today is served")
    app = endpoint.Endpoint(served, prompts, worker, context_tokens).app(port)
    open_for(app, listener, worker)


def open_for(app, listener, worker):
    """Answer requests until Ctrl-C or SIGTERM. listener: the bound socket."""
    from common.serving import web

    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    worker.start()
    server = web.Server(
        app, worker, lambda: say(f"open to this machine at {address}/v1, to try at {address}; Ctrl-C ends")
    )
    server.run(sockets=[listener])
    worker.join(END_SECONDS)
    say("\nended")
    if worker.is_alive():  # nothing can interrupt a long step of the model: exit without it
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
        "--pretrained_ckpt", metavar="NAME", help="base model (default: the run's own); alone: serve it untrained"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free (default: 8000)")
    parser.add_argument(
        "--batch_size",
        type=flags.positive(int),
        default=16,
        metavar="N",
        help="most requests in a batch (default: 16)",
    )
    parser.add_argument(
        "--wait_ms", type=milliseconds, default=10, metavar="MS", help="longest wait to fill a batch (default: 10)"
    )
    parser.add_argument(
        "--max_waiting", type=flags.positive(int), default=256, metavar="N",
        help="most requests in the queue; further ones get a 503 (default: 256)",
    )  # fmt: skip
    serve(parser.parse_args(words))
