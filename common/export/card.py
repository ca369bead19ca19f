"""The model card of an export: README.md with the header that the hub reads, in plain Markdown."""

from common import data, metrics
from common.export import usage

# Licences of the data sets as their publishers state them; None: they state none. Own data are their owner's.
DATA_LICENCES = {"newsgroup": None, "samsum": "CC BY-NC-ND 4.0", "imdb": None, "alpaca": "CC BY-NC 4.0"}
LIMITS = (
    "The figures are of one training with one seed. The intervals are 95 % over test rows and say nothing of others.",
    "It was trained for the one task and wording above. Other questions were not tried.",
    "Nothing was done against false, biased or harmful answers beyond what the base model has.",
)


def text(run, kind, scores=None, file=None):
    """The card of an export as text. run: trained.Trained; kind: "adapter", "merged", "gguf" or "ollama"; scores:
    {"rows", "precision", "before", "after": metrics} or None; file: name of the GGUF file."""
    parts = [
        f"---\n{header(run, kind).to_yaml()}\n---\n\n# {run.title}",
        what(run, kind),
        "## Scores\n\n" + scored(run),
        changed(scores, kind) if scores else "",
        "## Data\n\n" + rows(run),
        "## Licences\n\n" + licences(run),
        "## How to use it\n\n" + usage.text(run, kind, file),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in [*LIMITS, *own_limits(run)]),
        "## Identity\n\n" + identity(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def header(run, kind):
    """The card's header as huggingface_hub.ModelCardData."""
    import huggingface_hub

    hub, study = run.checkpoint.source == "hub", run.source == "study"
    return huggingface_hub.ModelCardData(
        base_model=run.checkpoint.name if hub else None,
        library_name={"adapter": "peft", "merged": "transformers"}.get(kind, "gguf"),
        pipeline_tag=pipeline(run),
        datasets=[dataset(run)["hub"][0]] if study else None,
        tags=[run.task, *(["lora"] if run.has_adapter else [])],
        **licence_fields(run),
        **({"model_name": run.title, "eval_results": results(run)} if study and results(run) else {}),
    )


def pipeline(run):
    """The hub's name of what the model does."""
    if not run.is_encoder:
        return "text-generation"
    return "text-classification" if run.labels else "token-classification"


def dataset(run):
    """The fields of the task's data set in common/data.py."""
    return data.TASKS[run.task][0]


def licence_fields(run):
    """license, license_name and license_link of the header: the base model's licence on own data, "unknown" where a
    licence is not known, else "other" with the name of the section that says which."""
    base = run.facts and run.facts.LICENSE
    terms = DATA_LICENCES[dataset(run)["name"]] if run.source == "study" else "none of others"
    if not base or not terms:
        return {"license": "unknown"}
    if run.source == "study" or base not in ("Apache-2.0", "MIT"):
        return {"license": "other", "license_name": "see-licences", "license_link": "README.md"}
    return {"license": base.lower()}


def results(run):
    """The record's metrics as huggingface_hub.EvalResult."""
    import huggingface_hub

    return [
        huggingface_hub.EvalResult(
            task_type=pipeline(run),
            dataset_type=dataset(run)["hub"][0],
            dataset_name=dataset(run)["name"],
            dataset_split="test",
            metric_type=name,
            metric_name=metrics.TITLES.get(name, name),
            metric_value=round(metric["value"], 4),
        )
        for name, metric in (run.record["metrics"] if run.record and run.record["metrics"] else {}).items()
        if metric["value"] is not None and not name.startswith("echo_")
    ]


def what(run, kind):
    """Sentences that say what the files are."""
    name = base_name(run)
    if not run.has_adapter:
        return f"An encoder that reads, every weight of it trained from {name} for {run.task}."
    adapter = f"a LoRA adapter of rank {run.settings.lora_r}, trained for {run.task} on {name} in 4 bits (NF4, QLoRA)"
    if kind == "adapter":
        return f"This is {adapter}. It needs that base model."
    whole = f"This is a whole model: {adapter}, merged into that base model in the precision it was published in"
    return f"{whole}." if kind == "merged" else f"{whole} and converted by llama.cpp's own converter to GGUF."


def base_name(run):
    """The base model in words. A local folder goes by its name, without its place."""
    name = f"{run.checkpoint.label} ({run.fields['revision'] or 'no revision'})"
    if run.checkpoint.source == "hub":
        return (
            f"[{run.checkpoint.name}](https://huggingface.co/{run.checkpoint.name}), revision {run.fields['revision']}"
        )
    if run.variant:
        return f"{run.variant.name} ({run.fields['revision']})"
    return name


def scored(run):
    """The record's metrics as a table."""
    if not run.record or not run.record["metrics"]:
        return "It was not scored."
    tuned, before = run.record["metrics"], run.record["metrics_before"]
    lines = [["metric", *(["base model"] if before else []), "tuned", "n"]]
    for name, metric in tuned.items():
        if name.startswith("echo_"):
            continue
        base = [metrics.figure(before.get(name))] if before else []
        lines.append([metrics.TITLES.get(name, name), *base, metrics.figure(metric), str(metric["n"])])
    how = "the adapter on its 4-bit base" if run.has_adapter else "the trained weights"
    return f"{table(lines)}\n\nIn % with 95 % intervals where they are shares; `n` is in test rows. Scored: {how}."


def compared(scores):
    """Lines of a table with the scores before and after merging. scores: see `text`."""
    lines = [["metric (%, 95 % interval)", "adapter on its 4-bit base", "merged", "n"]]
    for name, metric in scores["after"].items():
        figures = [metrics.figure(scores[stage].get(name)) for stage in ("before", "after")]
        lines.append([metrics.TITLES.get(name, name), *figures, str(metric["n"])])
    return lines


def changed(scores, kind):
    """The section with the scores before and after merging."""
    note = "The GGUF file itself was not scored." if kind in ("gguf", "ollama") else ""
    how = (
        f"The same first {scores['rows']} test rows, computed in {scores['precision']}. The adapter was trained on the "
        "base in 4 bits, and is merged into unrounded weights: answers can differ."
    )
    return f"### Before and after merging\n\n{table(compared(scores))}\n\n{how} {note}".rstrip()


def rows(run):
    """Where the rows come from and how many there are."""
    if run.source == "study":
        name = f"{dataset(run)['name']} (on the hub: [{dataset(run)['hub'][0]}]({hub_page(run)}))"
    else:
        name = "the sample of the training scripts" if run.source == "sample" else "data of the owner"
    if not run.record:
        return f"{name[0].upper()}{name[1:]}."
    counted = run.record["data"]
    numbers = ", ".join(f"{count} {split}" for split, count in counted["n"].items() if count)
    dropped = ", ".join(f"{count} ({reason})" for reason, count in counted["dropped"].items()) or "none"
    cut = ", ".join(f"{count} {split}" for split, count in counted["truncated"].items() if count) or "none"
    limit = f"longer than {run.settings.max_document_tokens} tokens and cut"
    return f"{name[0].upper()}{name[1:]}. Rows: {numbers}. Dropped: {dropped}. Documents {limit}: {cut}."


def hub_page(run):
    return f"https://huggingface.co/datasets/{dataset(run)['hub'][0]}"


def licences(run):
    """What is known of the licences of base model and data."""
    base = (run.facts and run.facts.LICENSE) or "unknown"
    if run.source == "study":
        rows = DATA_LICENCES[dataset(run)["name"]] or "unknown: its publisher states none"
    else:
        rows = {"sample": "Apache-2.0, as the training scripts", "own": "the owner's"}[run.source]
    return f"- Base model: {base}.\n- Data: {rows}.\n\nWhoever passes this model on has to keep to both."


def own_limits(run):
    """Limits of this run."""
    if run.is_encoder:
        end = "their middle" if run.settings.cut == "middle" else "their end"
        return [f"In training and scoring, texts longer than {run.settings.max_document_tokens} tokens lost {end}."]
    lines = [f"Documents longer than {run.settings.max_document_tokens} tokens were cut: it never saw longer ones."]
    if run.labels:
        lines.append("Its accuracy is that of the label with the highest log-likelihood; free text can name no label.")
    return lines


def identity(run):
    """Everything that can change a number of the run, as a table."""
    fields = {"run": run.id, "checkpoint": run.checkpoint.label, "revision": run.fields["revision"]}
    fields |= {name: run.fields[name] for name in ("task", "format", "precision")}
    fields |= {f"{split} rows, sha256": digest for split, digest in run.fields["data"]["sha256"].items() if digest}
    fields |= run.fields["settings"]
    if run.record:
        fields |= {f"trained with {name}": run.record["environment"]["packages"][name] for name in ("torch", "peft")}
        fields["commit of the scripts"] = run.record["environment"]["git_commit"]
    lines = [["setting", "value"]]
    for name, value in fields.items():
        if value is not None and value is not False:
            lines.append([name, " ".join(map(str, value)) if isinstance(value, list) else str(value)])
    return table(lines)


def table(lines):
    """A Markdown table of lines of texts, the first one its head."""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])
