"""GGUF by llama.cpp's own converter, and a Modelfile for Ollama."""

import os
import subprocess
import sys

from common import files
from common.console import InputError, say
from common.export import usage

TYPES = ("f16", "bf16", "q8_0")
NAME = "convert_hf_to_gguf.py"
DOCUMENT = "\0document\0"  # stands for the prompt while a chat template is read


def converter(path):
    """Path of llama.cpp's converter. path: a checkout of llama.cpp or its convert_hf_to_gguf.py. Raises InputError."""
    if path:
        script = files.expanded(path).resolve()
        script = script / NAME if script.is_dir() else script
        if script.is_file() and script.suffix == ".py":
            return script
        raise InputError(f"no {NAME} at {path} (--converter)")
    raise InputError(
        f"GGUF needs llama.cpp's {NAME}: name it with --converter; it is in a checkout of llama.cpp, and in "
        "vendor/llama.cpp of what `pip download llama-cpp-python --no-binary :all: --no-deps` fetches, unpacked"
    )


def convert(script, folder, file, type):
    """Write the model in `folder` as the GGUF `file`. script: from `converter`; type: one of TYPES. Raises InputError
    with the converter's last line if it fails."""
    say(f"converting to GGUF ({type})")
    command = [sys.executable, str(script), str(folder), "--outfile", str(file), "--outtype", type]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode or not file.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise InputError(f"{script.name} cannot convert this model: {lines[-1][:300] if lines else 'no reason given'}")


def modelfile(run, tokenizer, file):
    """The text of a Modelfile that answers as the run does: greedily or with its temperature, without a penalty for
    repetitions, which Ollama has by default. file: name of the GGUF file."""
    settings, encoder = run.settings, run.encoder(tokenizer)
    stops = [tokenizer.decode([id]) for id in encoder.stop]
    sampled = 1.0 if settings.top_k else 0
    lines = ["# ollama create NAME -f Modelfile", f"FROM ./{file}", f'TEMPLATE """{template(run, tokenizer)}"""']
    lines += [f"PARAMETER temperature {settings.temperature or sampled:g}", "PARAMETER repeat_penalty 1"]
    lines += [f"PARAMETER top_k {settings.top_k}"] if settings.top_k else []
    lines += [f"PARAMETER num_predict {settings.max_new_tokens}"] if settings.max_new_tokens else []
    lines += [f"PARAMETER num_ctx {usage.context(run)}", *(f'PARAMETER stop "{stop}"' for stop in stops)]
    return "\n".join(lines) + "\n"


def template(run, tokenizer):
    """Ollama's template: the prompt as it is or, of a chat model, within one user turn of its own chat template."""
    if run.fields["format"] == "plain":
        return "{{ .Prompt }}"
    turn = [{"role": "user", "content": DOCUMENT}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    bos = tokenizer.bos_token
    if bos and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        text = text.removeprefix(bos)  # llama.cpp puts it before every prompt, as this tokenizer does
    before, _, after = (part.replace("{{", '{{ "{{" }}') for part in text.partition(DOCUMENT))
    return f"{before}{{{{ .Prompt }}}}{after}"
