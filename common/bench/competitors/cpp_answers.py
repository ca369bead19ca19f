"""Generation by llama.cpp (llama-cpp-python), one answer at a time. Reads a JSON task from standard input, prints one
JSON line: "seconds" of the generation and "results", the texts.

Task: {"file", "prompts": [[token id]], "max_new_tokens", "threads"}. This file must not be called llama_cpp.py, because
it would hide the module that it imports.
"""

import json
import sys
import time


def main():
    import llama_cpp

    task = json.load(sys.stdin)
    longest = max(map(len, task["prompts"])) + task["max_new_tokens"]
    model = llama_cpp.Llama(task["file"], n_ctx=longest, n_threads=task["threads"], verbose=False)
    texts, began = [], time.monotonic()
    for prompt in task["prompts"]:
        written = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            if token == model.token_eos() or len(written) == task["max_new_tokens"]:
                break
            written.append(token)
        texts.append(model.detokenize(written).decode(errors="replace"))
    print(json.dumps({"seconds": time.monotonic() - began, "results": texts}))


if __name__ == "__main__":
    main()
