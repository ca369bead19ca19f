"""How to use an export, as code for its card: plain peft, transformers, llama-cpp-python and Ollama, in the run's own
wording."""

import json

DOCUMENT = "{document}"


def text(run, kind, file=None):
    """The section of the card. run: trained.Trained; kind: of the export; file: name of the GGUF file."""
    if run.is_encoder:
        return "\n\n".join([reading(run, kind), *([PICKS] if not run.labels else [])])
    if kind in ("gguf", "ollama"):
        answer = run.settings.max_new_tokens
        ollama = (
            f"\n\nOr with Ollama:\n\n{block('ollama create tuned -f Modelfile', 'shell')}" if kind == "ollama" else ""
        )
        head = [
            "import llama_cpp",
            "",
            f"model = llama_cpp.Llama({json.dumps(file)}, n_ctx={context(run)}, verbose=False)",
        ]
        return block("\n".join([*head, *wording(run), *cpp(run, answer)])) + ollama
    return block("\n".join([*imports(run, kind), *loading(run, kind), *wording(run), *generating(run)]))


PICKS = (
    "It scores every token by whether its utterance belongs to the summary (class 1). An utterance's score is the mean "
    "of its tokens' log-probabilities; every utterance is read between the tokenizer's own beginning and end."
)


def block(code, language="python"):
    return f"```{language}\n{code}\n```"


def imports(run, kind):
    yield from (["import peft"] if kind == "adapter" else [])
    yield from ["import torch", "import transformers", "", 'FOLDER = "."  # this folder, or the name of its repository']


def loading(run, kind):
    """Lines that load `model` and `tokenizer`."""
    dtype = f"torch.{precision(run)}"
    if kind == "adapter":
        revision = f", revision={json.dumps(run.checkpoint.pin)}" if run.checkpoint.pin else ""
        hub = run.checkpoint.source == "hub"
        name, where = (
            (run.checkpoint.name, "") if hub else (run.checkpoint.label, "  # put the place of the base model here")
        )
        yield f"BASE = {json.dumps(name)}{where}"
        yield "four_bits = transformers.BitsAndBytesConfig("
        yield '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,'
        yield f"    bnb_4bit_compute_dtype={dtype},"
        yield ")"
        yield "base = transformers.AutoModelForCausalLM.from_pretrained("
        yield f"    BASE, quantization_config=four_bits, dtype={dtype}{revision}"
        yield ")"
        yield "model = peft.PeftModel.from_pretrained(base, FOLDER)"
    else:
        yield f"model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype={dtype})"
    yield "tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)"
    yield ""


def wording(run):
    """Lines that make the text to ask with."""
    template = run.template
    asked = template.text.replace("{labels}", "\n".join(run.labels)).replace("{examples}", "")
    if run.fields["format"] == "plain":
        asked += template.cue
    yield f"WORDING = {json.dumps(asked, ensure_ascii=False)}"
    if template.extra:
        yield f"# An input follows the document: document += {json.dumps(template.extra)}, with the input in its slot."
    yield 'document = "…"  # what to ask about'
    yield f'text = WORDING.replace("{DOCUMENT}", document)'


def generating(run):
    """Lines that print the answer to `text`."""
    special = ""
    if run.fields["format"] == "chat":
        yield 'turn = [{"role": "user", "content": text}]'
        yield "text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)"
        special = ", add_special_tokens=False"  # the template writes its own
    yield f'inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False{special}).to(model.device)'
    yield "decoding = transformers.GenerationConfig.from_pretrained(FOLDER)"
    yield "output = model.generate(**inputs, generation_config=decoding)"
    yield 'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())'


def cpp(run, longest):
    """Lines that print the answer to `text` by llama-cpp-python."""
    options = f"temperature=0, repeat_penalty=1.0, max_tokens={longest}"
    if run.fields["format"] == "chat":
        yield 'turn = [{"role": "user", "content": text}]'
        yield f"answer = model.create_chat_completion(turn, {options})"
        yield 'print(answer["choices"][0]["message"]["content"].strip())'
    else:
        yield f"answer = model.create_completion(text, {options})"
        yield 'print(answer["choices"][0]["text"].strip())'


def reading(run, kind):
    """The section of an encoder."""
    auto = "AutoModelForSequenceClassification" if run.labels else "AutoModelForTokenClassification"
    lines = ["import transformers", "", 'FOLDER = "."  # this folder, or the name of its repository']
    if kind == "adapter":
        names = (
            f"id2label=dict(enumerate({json.dumps(run.labels, ensure_ascii=False)}))" if run.labels else "num_labels=2"
        )
        lines.insert(0, "import peft")
        lines.append(f"BASE = {json.dumps(run.checkpoint.label)}  # put the place of the base model here")
        lines.append(f"base = transformers.{auto}.from_pretrained(BASE, {names})")
        lines.append("model = peft.PeftModel.from_pretrained(base, FOLDER).eval()")
        lines.append("tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)")
    elif run.labels:
        lines.append('classify = transformers.pipeline("text-classification", model=FOLDER, truncation=True)')
        lines.append('print(classify("…"))')
    else:
        lines.append(f"model = transformers.{auto}.from_pretrained(FOLDER)")
        lines.append("tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)")
    return block("\n".join(lines))


def precision(run):
    """The dtype's name that the run was scored in; the one asked for, if it was not scored."""
    asked = run.record["environment"]["precision"] if run.record else run.fields["precision"]
    return asked if asked in ("float32", "bfloat16", "float16") else "float32"


def context(run):
    """Tokens for a prompt and its answer: the wording may take a thousand."""
    longest = run.settings.max_document_tokens + (run.settings.max_new_tokens or 0)
    return -(-(longest + 1024) // 1024) * 1024
