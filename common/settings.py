"""Which settings a run has, and what the run is called by them.

They come from, in this order: the flags, the demo, the checkpoint's own (checkpoints.py), the model
folder's facts (model.py).
"""

import argparse

from common import checkpoints, generation
from common.console import InputError

QUANTIZATION = "nf4 + double quantization"  # what loading.py does, for training and scoring alike
TUNABLE = ("lora_r", "dropout", "epochs", "learning_rate", "batch_size")  # flags that make a run another one


def choose(args, facts, variant, checkpoint, kind):
    """Every setting of a run, by the order of precedence in this file's first lines.

    A setting that differs by task or by what is trained is a dictionary in model.py, or one in another. Raises
    InputError for a checkpoint that these scripts cannot use and for flags that contradict each other.
    """
    task = args.task_type
    from_folder = {
        "format": variant.format,
        "inference_batch_size": facts.INFERENCE_BATCH_SIZE,
        "max_document_tokens": facts.MAX_DOCUMENT_TOKENS,
        "targets": facts.ATTENTION_TARGETS,
        "all_targets": facts.ALL_TARGETS,
        "lora_r": facts.LORA_R,
        "dropout": 0.1,
        "lora_alpha": facts.LORA_ALPHA,
        "learning_rate": facts.LEARNING_RATE,
        "lr_scheduler": "linear" if task == "sentiment" else "cosine",
        "batch_size": facts.BATCH_SIZE,
        "device_batch_size": facts.DEVICE_BATCH_SIZE,
        "epochs": facts.EPOCHS,
    }
    found = from_folder | checkpoint.settings | (checkpoint.demo if args.demo else {})
    writes = found["format"] != "encoder"
    if writes != (variant.format != "encoder"):
        kinds = ("an encoder", "a model that writes") if writes else ("a model that writes", "an encoder")
        usable = checkpoints.stand_in(variant.format)
        raise InputError(f"these scripts are for {kinds[0]}, {checkpoint.name} is {kinds[1]}; embedded: {usable}")
    given = {name: value for name, value in vars(args).items() if name in found and value is not None}
    found |= given
    tuned = "qlora" if found["lora_r"] else "full-finetune"
    for name in found:
        while isinstance(found[name], dict):
            found[name] = found[name][task if task in found[name] else tuned]
    settings = {name: found[name] for name in ("format", "inference_batch_size", "max_document_tokens")}
    if writes:
        settings["max_new_tokens"] = generation.MAX_NEW_TOKENS[task]
    else:
        settings["pooling"] = checkpoint.settings.get("pooling", facts.POOLING)
        if task == "sentiment":
            settings["cut"] = "middle"
    settings["quantization"] = QUANTIZATION if found["lora_r"] else None
    settings["data"] = data_name(args)
    settings["max_test_samples"] = args.max_test_samples
    if "bertscore_model" in vars(args):
        settings["bertscore_model"] = bertscore_model(args)
    settings |= decoding(args)
    settings |= {
        name: vars(args)[name] for name in ("train_sample_fraction", "max_train_samples") if name in vars(args)
    }
    if kind != "training":
        return settings | ({"seed": args.seed} if vars(args).get("random_head") else {})
    adapter = ("targets", "lora_r", "dropout", "lora_alpha")
    if tuned == "full-finetune":
        if args.dropout is not None:
            raise InputError("--dropout is the adapter's: it needs --lora_r")
        found |= dict.fromkeys(adapter)
    elif args.full_tune:
        found["targets"] = found["all_targets"]
    for name in (*adapter, "learning_rate", "lr_scheduler", "batch_size", "device_batch_size", "epochs"):
        settings[name] = found[name]
    return settings | {"neftune": args.neftune, "seed": args.seed}


def of_trained(trained, args):
    """The settings that a trained adapter is scored with: those of its training (`trained`: its
    settings.json), but for what the flags say of the scoring itself."""
    asked = ("max_document_tokens", "inference_batch_size", "max_test_samples")
    settings = {name: value for name, value in trained["settings"].items() if name != "precision"}
    if "bertscore_model" in vars(args):
        settings["bertscore_model"] = bertscore_model(args)
    return settings | {n: vars(args)[n] for n in asked if vars(args)[n]} | {"data": data_name(args)} | decoding(args)


def decoding(args):
    """How answers are written, where a script lets it be chosen."""
    if "num_beams" not in vars(args):
        return {}
    asked = {name: vars(args)[name] for name in generation.GREEDY}
    if asked["num_beams"] > 1 and (asked["temperature"] or asked["top_k"]):
        raise InputError("--num_beams searches, --temperature and --top_k sample: give one of the two")
    if asked["temperature"] or asked["top_k"]:
        asked["seed"] = args.seed
    return {"decoding": asked}


def decoding_name(args):
    """The part of a run's setting that says how it decodes: "temperature=0.25", or "" for greedy."""
    given = decoding(args).get("decoding", {})
    return " ".join(
        f"{name}={given[name]:g}" for name in generation.GREEDY if given and given[name] != generation.GREEDY[name]
    )


def bertscore_model(args):
    """Checked before anything is trained: a name that bert-score knows no layer of fails after hours."""
    name = args.bertscore_model
    if name != checkpoints.stand_in("encoder"):
        from bert_score.utils import model2layers

        if name not in model2layers:
            raise InputError(f"--bertscore_model {name} is not known to bert-score; give minilm or, say, roberta-large")
    return name


def data_name(args):
    """Which data a run is of, as far as the flags tell."""
    return args.data or ("sample" if args.demo else "standard")


def method(args, settings, kind):
    """As in the published tables: qlora, qlora+neftune, qlora+all-modules, qlora+neftune+all-modules, full-finetune
    (encoders without an adapter); for a baseline what it is."""
    if kind == "baseline":
        return "random-head" if vars(args).get("random_head") else vars(args).get("prompt_type") or args.baseline
    if vars(args).get("loop"):
        return "full-finetune+loop"
    noise = "+neftune" if args.neftune else ""
    if not settings["lora_r"]:
        return "full-finetune" + noise
    return "qlora" + noise + ("+all-modules" if args.full_tune else "")


def name(args, facts, variant, checkpoint, settings, kind):
    """What sets a run apart from the method's default on all rows: the key of a table's row."""
    parts = []
    if "train_sample_fraction" in vars(args):
        if args.task_type == "classification" or args.train_sample_fraction < 1:
            parts.append(f"train_sample_fraction={args.train_sample_fraction:g}")
        if args.max_train_samples:
            parts.append(f"max_train_samples={args.max_train_samples}")
    if kind != "training":
        drawn = [decoding_name(args)] if decoding_name(args) else []
        if drawn or vars(args).get("random_head"):
            drawn.append(f"seed={args.seed}")
        return " ".join(parts + drawn)
    unasked = {**vars(args), **dict.fromkeys(TUNABLE)}
    if not facts.LORA_R and settings["lora_r"]:  # an adapter is what was asked for: its rank has no default
        unasked["lora_r"] = args.lora_r
        parts.append(f"lora_r={args.lora_r}")
    usual = choose(argparse.Namespace(**unasked), facts, variant, checkpoint, "training")
    parts += [f"{each}={settings[each]}" for each in TUNABLE if settings[each] != usual[each]]
    return " ".join(parts)
