"""Generation by llama.cpp (llama-cpp-python) with parallel slots: a slot that ends takes the next prompt. Reads a JSON
task from standard input, prints one JSON line: "seconds" of the generation and "results", the texts.

Task: {"file", "prompts": [[token id]], "max_new_tokens", "threads", "batch_size": number of slots}.
"""

import json
import sys
import time


class Slots:
    """A llama.cpp context with some sequences side by side, decoded greedily."""

    def __init__(self, llama, file, slots, longest, threads):
        self.llama, self.tokens = llama, 512  # tokens of one call at most
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(file.encode(), llama.llama_model_default_params())
        parameters = llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = slots * longest, self.tokens, self.tokens
        parameters.n_seq_max = slots
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, parameters)
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.size = llama.llama_vocab_n_tokens(self.vocabulary)
        self.batch = llama.llama_batch_init(self.tokens, 0, 1)

    def decode(self, entries):
        """The next token of every entry (token, position, slot, whether it is wanted) that is wanted."""
        import numpy

        batch, batch_size = self.batch, len(entries)
        for i, (token, position, slot, wanted) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, slot
            batch.logits[i] = wanted
        batch.n_tokens = batch_size
        if self.llama.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        logits = (self.llama.llama_get_logits_ith(self.context, i) for i, entry in enumerate(entries) if entry[3])
        return [int(numpy.ctypeslib.as_array(row, shape=(self.size,)).argmax()) for row in logits]

    def read(self, prompt, slot):
        """The first new token after a prompt, which is read into an empty slot."""
        self.llama.llama_memory_seq_rm(self.llama.llama_get_memory(self.context), slot, -1, -1)
        entries = [(token, i, slot, i == len(prompt) - 1) for i, token in enumerate(prompt)]
        for start in range(0, len(entries), self.tokens):
            found = self.decode(entries[start : start + self.tokens])
        return found[0]


def main():
    import llama_cpp

    task = json.load(sys.stdin)
    prompts, most = task["prompts"], task["max_new_tokens"]
    slots = Slots(llama_cpp, task["file"], task["batch_size"], max(map(len, prompts)) + most, task["threads"])
    end = llama_cpp.llama_vocab_eos(slots.vocabulary)
    began, waiting = time.monotonic(), list(range(len(prompts)))[::-1]
    written, active = [[] for _ in prompts], {}
    while waiting or active:
        for slot in range(task["batch_size"]):
            if slot not in active and waiting:
                number = waiting.pop()
                active[slot] = number, slots.read(prompts[number], slot)
        entries, order = [], []
        for slot, (number, token) in list(active.items()):
            if token == end or len(written[number]) == most:
                del active[slot]
                continue
            written[number].append(token)
            entries.append((token, len(prompts[number]) + len(written[number]) - 1, slot, True))
            order.append((slot, number))
        if entries:
            for (slot, number), token in zip(order, slots.decode(entries), strict=True):
                active[slot] = number, token
    seconds = time.monotonic() - began
    tokenizer = llama_cpp.Llama(task["file"], vocab_only=True, verbose=False)
    texts = [tokenizer.detokenize(tokens).decode(errors="replace").strip() for tokens in written]
    print(json.dumps({"seconds": seconds, "results": texts}))


if __name__ == "__main__":
    main()
