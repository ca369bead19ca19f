"""How to use an export, as code for its card: plain peft, transformers, llama-cpp-python and Ollama, in the run's own
wording."""

import json

FOLDER = 'FOLDER = "."  # this folder, or the name of its repository'
OLLAMA = "\n\nOr with Ollama, which is then asked by the same text:\n\n```shell\nollama create tuned -f Modelfile\n```"
PICKS = (
    "\n\nIt scores every token by whether its utterance belongs to the summary (class 1). An utterance's score is the "
    "mean of its tokens' log-probabilities; every utterance is read between the tokenizer's own beginning and end."
)


def text(run, kind, file=None):
    """The section of the card. run: trained.Trained; kind: of the export; file: name of the GGUF file."""
    if run.is_encoder:
        return block([*head(kind), *reading(run, kind)]) + ("" if run.labels else PICKS)
    if kind in ("gguf", "ollama"):
        model = f"model = llama_cpp.Llama({json.dumps(file)}, n_ctx={context(run)}, verbose=False)"
        code = block(["import llama_cpp", "", model, *wording(run), *asking(run)])
        return code + (OLLAMA if kind == "ollama" else "")
    return block([*head(kind), *loading(run, kind), *wording(run), *generating(run)])


def block(lines):
    return "\n".join(["```python", *lines, "```"])


def head(kind):
    return [*(["import peft"] if kind == "adapter" else []), "import torch", "import transformers", "", FOLDER]


def base(run):
    """(Line that names the base model, further keywords of from_pretrained)."""
    if run.checkpoint.source == "hub":
        revision = f", revision={json.dumps(run.checkpoint.pin)}" if run.checkpoint.pin else ""
        return f"BASE = {json.dumps(run.checkpoint.name)}", revision
    return f"BASE = {json.dumps(run.checkpoint.label)}  # put the place of the base model here", ""


def loading(run, kind):
    """Lines that load `model` and `tokenizer`."""
    dtype = f"torch.{precision(run)}"
    if kind == "adapter":
        name, revision = base(run)
        yield name
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
    asked = template.filled("{document}", run.labels)
    if run.fields["format"] == "plain":
        asked += template.cue
    yield f"WORDING = {json.dumps(asked, ensure_ascii=False)}"
    if template.extra:
        yield f"# An input follows the document: document += {json.dumps(template.extra)}, with the input in its slot."
    yield 'document = "…"  # what to ask about'
    yield 'text = WORDING.replace("{document}", document)'


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


def asking(run):
    """Lines that print the answer to `text` by llama-cpp-python."""
    options = f"temperature=0, repeat_penalty=1.0, max_tokens={run.settings.max_new_tokens}"
    if run.fields["format"] == "chat":
        yield 'turn = [{"role": "user", "content": text}]'
        yield f"answer = model.create_chat_completion(turn, {options})"
        yield 'print(answer["choices"][0]["message"]["content"].strip())'
    else:
        yield f"answer = model.create_completion(text, {options})"
        yield 'print(answer["choices"][0]["text"].strip())'


def reading(run, kind):
    """Lines that use an encoder."""
    auto = "AutoModelForSequenceClassification" if run.labels else "AutoModelForTokenClassification"
    if kind == "adapter":
        name, revision = base(run)
        labels = json.dumps(run.labels, ensure_ascii=False)
        classes = f"id2label=dict(enumerate({labels}))" if run.labels else "num_labels=2"
        yield name
        yield f"base = transformers.{auto}.from_pretrained(BASE, {classes}{revision})"
        yield "model = peft.PeftModel.from_pretrained(base, FOLDER).eval()"
    else:
        yield f"model = transformers.{auto}.from_pretrained(FOLDER)"
    yield "tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)"
    yield 'inputs = tokenizer("…", truncation=True, return_tensors="pt")'
    yield "with torch.inference_mode():"
    yield "    scores = model(**inputs).logits.softmax(-1)[0]"
    yield "print(model.config.id2label[scores.argmax().item()])" if run.labels else "print(scores)"


def precision(run):
    """The dtype's name that the run was scored in; the one asked for, if it was not scored."""
    asked = run.record["environment"]["precision"] if run.record else run.fields["precision"]
    return asked if asked in ("float32", "bfloat16", "float16") else "float32"


def context(run):
    """Tokens for a prompt and its answer: the wording may take a thousand."""
    longest = run.settings.max_document_tokens + (run.settings.max_new_tokens or 0)
    return -(-(longest + 1024) // 1024) * 1024
