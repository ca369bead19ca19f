"""Generation by llama.cpp with parallel slots, as its server does it: every pass takes the next token of all answers
that are being written, and the whole prompt of each answer that enters a free slot. Reads a JSON task from standard
input, prints one JSON line: "seconds" of the generation and "results", the texts.

Task: {"file", "prompts": [[token id]], "max_new_tokens", "threads", "slots"}. llama-cpp-python's high-level class has
one slot, so this uses its bindings of llama.cpp's own functions.
"""

import json
import sys
import time


def main():
    import llama_cpp

    task = json.load(sys.stdin)
    model = llama_cpp.Llama(task["file"], n_ctx=64, n_threads=task["threads"], verbose=False)
    began = time.monotonic()
    answers = parallel_answers(model, task)
    seconds = time.monotonic() - began
    texts = [model.detokenize(answer).decode(errors="replace") for answer in answers]
    print(json.dumps({"seconds": seconds, "results": texts}))


def parallel_answers(model, task):
    """The greedy answers of all prompts, as token ids. model: llama_cpp.Llama, of which only the weights are used."""
    import llama_cpp
    import numpy

    prompts, slots, limit = task["prompts"], task["slots"], task["max_new_tokens"]
    longest = max(map(len, prompts)) + limit
    settings = llama_cpp.llama_context_default_params()
    settings.n_seq_max, settings.n_ctx, settings.kv_unified = slots, slots * longest, False
    settings.n_batch, settings.n_outputs_max = slots * longest, slots
    settings.n_threads = settings.n_threads_batch = task["threads"]
    context = llama_cpp.llama_init_from_model(model._model.model, settings)
    memory = llama_cpp.llama_get_memory(context)
    batch = llama_cpp.llama_batch_init(slots * longest, 0, 1)
    answers, waiting, running = [[] for _ in prompts], list(range(len(prompts))), {}
    while waiting or running:
        batch.n_tokens = 0
        for slot in range(slots):
            if slot not in running and waiting:
                running[slot] = waiting.pop(0)
                llama_cpp.llama_memory_seq_rm(memory, slot, -1, -1)
            if slot in running:
                prompt, answer = prompts[running[slot]], answers[running[slot]]
                tokens = answer[-1:] or prompt
                first = len(prompt) + len(answer) - len(tokens)
                for offset, token in enumerate(tokens):
                    place = batch.n_tokens
                    batch.token[place], batch.pos[place], batch.logits[place] = token, first + offset, False
                    batch.n_seq_id[place], batch.seq_id[place][0] = 1, slot
                    batch.n_tokens += 1
                batch.logits[batch.n_tokens - 1] = True
        if failed := llama_cpp.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode returned {failed}")
        for row, slot in zip(range(-len(running), 0), sorted(running), strict=True):
            logits = llama_cpp.llama_get_logits_ith(context, row)  # counted from the last
            token = int(numpy.ctypeslib.as_array(logits, (model.n_vocab(),)).argmax())
            answer = answers[running[slot]]
            if token != model.token_eos():
                answer.append(token)
            if token == model.token_eos() or len(answer) == limit:
                del running[slot]
    return answers


if __name__ == "__main__":
    main()
