"""What an export consists of: the adapter's files, or the adapter merged into the base model, and scores of both."""

import gc
import json
import shutil
import tempfile
from pathlib import Path

from common import encoders, evaluation, generation, qlora
from common.console import InputError, say
from common.encoders import heads
from common.settings import Execution


def write_adapter(run, folder):
    """Write the run's adapter into the new `folder`, with tokenizer and generation config. Its config names the base
    model as the run does, instead of the folder that it was loaded from here."""
    folder.mkdir(parents=True)
    config = json.loads((run.weights.parent / qlora.CONFIG).read_text(encoding="utf-8"))
    hub = run.checkpoint.source == "hub"
    config["base_model_name_or_path"] = run.checkpoint.name if hub else run.checkpoint.label
    config["revision"] = run.checkpoint.pin
    (folder / qlora.CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copyfile(run.weights, folder / qlora.WEIGHTS)
    write_tokenizer(run, folder)


def write_merged(run, folder):
    """Write the whole model into the new `folder` as safetensors: the adapter merged into the base model in the dtype
    that it was published in or, where every weight was trained, the trained weights. Raises InputError."""
    if run.has_adapter:
        model = merged(run)
        model.save_pretrained(folder, safe_serialization=True)
    else:
        folder.mkdir(parents=True)
        shutil.copyfile(run.weights, folder / run.weights.name)
        heads.named(heads.load_saved(run.labels, run.folder), run.labels).config.save_pretrained(folder)
    write_tokenizer(run, folder)
    portable(folder / "config.json")


def portable(config):
    """Take out of a configuration file that it was loaded from a folder of this machine, and which."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    local = ("_name_or_path", "is_local", "local_files_only")
    kept = {name: value for name, value in fields.items() if name not in local}
    config.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(run, folder):
    """Write the tokenizer and, of a model that writes, the generation config: the run's decoding, its longest answer,
    and the tokens that end an answer."""
    tokenizer = run.tokenizer()
    if run.is_encoder:
        tokenizer.padding_side = "right"  # as encoders.reader reads
        tokenizer.model_max_length = run.settings.max_document_tokens
    else:
        stop, pad = run.encoder(tokenizer).stop, tokenizer.pad_token_id
        generation.configuration(run.settings.decoding, run.settings.max_new_tokens, stop, pad).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    portable(folder / "tokenizer_config.json")


def merged(run):
    """The base model in the dtype that it was published in, with the adapter merged into it. Raises InputError."""
    import torch
    import transformers

    config = qlora.reading(transformers.AutoConfig, run.checkpoint)
    keywords = {"dtype": getattr(torch, run.published(config)), "use_safetensors": True}
    auto = transformers.AutoModelForCausalLM
    if run.is_encoder:
        auto, keywords["num_labels"] = heads.auto_class(run.labels), len(run.labels) or 2
    base, info = qlora.reading(auto, run.checkpoint, output_loading_info=True, **keywords)
    new = [*heads.new_modules(base), "pooler"] if run.is_encoder else []  # the adapter's file has them
    if missing := [name for name in sorted(info["missing_keys"]) if not set(name.split(".")) & set(new)]:
        raise InputError(f"cannot load {run.checkpoint.name}: its files lack {missing[0]}")
    # peft adds in float32 and rounds once, when it stores the sum.
    model = qlora.with_adapter(base, run.weights.parent).merge_and_unload()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(f"the merged weights are not finite in {run.published(config)}: the adapter is damaged")
    model.generation_config = transformers.GenerationConfig()  # `write_tokenizer` writes the run's
    return heads.named(model, run.labels) if run.is_encoder else model


class Scores:
    """Scores the run's model as it is and as exported, on the same rows.

    run: trained.Trained; rows: the Data with the rows to score. `before` and `after` return metrics."""

    def __init__(self, run, rows):
        import transformers

        self.run, self.rows = run, rows
        self.config = qlora.reading(transformers.AutoConfig, run.checkpoint)
        self.precision = run.computed(self.config)

    def before(self):
        """Of the adapter on its 4-bit base."""
        say(f"scoring {len(self.rows.test)} test rows with the adapter on its 4-bit base ({self.precision})")
        with tempfile.TemporaryDirectory() as scratch:
            execution = self.execution(scratch)
            if self.run.is_encoder:
                settings, labels = self.run.settings, self.run.labels
                model = heads.network(self.run.checkpoint, labels, settings, execution, self.run.folder)
            else:
                model = qlora.trained(self.run.checkpoint, execution, self.run.folder)
            return self.of(model, execution)

    def after(self, folder):
        """Of the merged model in `folder`, loaded by plain transformers."""
        import torch
        import transformers

        auto = heads.auto_class(self.run.labels) if self.run.is_encoder else transformers.AutoModelForCausalLM
        say(f"scoring the same rows with the merged model ({self.precision})")
        model = auto.from_pretrained(folder, dtype=getattr(torch, self.precision), use_safetensors=True)
        with tempfile.TemporaryDirectory() as scratch:
            return self.of(heads.placed(model), self.execution(scratch))

    def execution(self, folder):
        rows = self.run.facts.INFERENCE_BATCH_SIZE if self.run.facts else Execution.inference_batch_size
        return Execution(folder=Path(folder), precision=self.precision, inference_batch_size=rows, stages=("tuned",))

    def of(self, model, execution):
        run, tokenizer = self.run, qlora.tokenizer(self.run.checkpoint)
        if run.is_encoder:
            reader = encoders.reader(tokenizer, run.template, run.settings)
            stage = encoders.labels if run.labels else encoders.summaries
            scores = stage(model, reader, self.rows, run.settings, execution, run.checkpoint)
        else:
            scores = evaluation.of_task(run.task, model, run.encoder(tokenizer), self.rows, run.settings, execution)
        del model
        gc.collect()
        return {name: metric for name, metric in scores["tuned"].items() if not name.startswith("echo_")}


def planned(run, kind):
    """{file name: bytes, None if not known before} that an export of this kind would have, besides its card."""
    saved = {path.name: path.stat().st_size for path in run.weights.parent.iterdir() if path.is_file()}
    saved.pop("README.md", None)
    if kind == "adapter":
        return saved
    if run.has_adapter:
        weights = run.variant and run.variant.parameters * (4 if run.facts.PRECISION == "float32" else 2)
        if not weights and run.checkpoint.source == "folder":
            weights = sum(path.stat().st_size for path in Path(run.checkpoint.name).glob("*.safetensors"))
        saved = {name: size for name, size in saved.items() if not name.startswith("adapter_")}
        saved |= {"config.json": None, "model.safetensors": weights}
    if kind == "merged":
        return saved
    return {"GGUF": saved["model.safetensors"]} | ({"Modelfile": None} if kind == "ollama" else {})
