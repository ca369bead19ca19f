"""Generation by CTranslate2, in batches. Reads a JSON task from standard input, prints one JSON line: "seconds" of the
generation and "results", the texts. The checkpoint is converted first, which is not timed.

Task: {"folder", "prompts": [[token id]], "stop": [token id], "max_new_tokens", "batch_size", "threads", "type":
CTranslate2's name of the precision: "float32", "bfloat16", "int8_float32"}.
"""

import json
import sys
import tempfile
import time


def main():
    import ctranslate2
    import transformers

    task = json.load(sys.stdin)
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    tokens = tokenizer.convert_ids_to_tokens
    with tempfile.TemporaryDirectory() as folder:
        converter = ctranslate2.converters.TransformersConverter(task["folder"])
        converter.convert(folder, quantization=task["type"], force=True)
        model = ctranslate2.Generator(
            folder, device="cpu", compute_type=task["type"], inter_threads=1, intra_threads=task["threads"]
        )
        prompts = [tokens(prompt) for prompt in task["prompts"]]
        options = {
            "max_length": task["max_new_tokens"],
            "sampling_topk": 1,
            "end_token": tokens(task["stop"]),
            "include_prompt_in_result": False,
            "max_batch_size": task["batch_size"],
        }
        model.generate_batch(prompts[:1], **options | {"max_length": 4})  # warm up
        began = time.monotonic()
        answers = model.generate_batch(prompts, **options)
        seconds = time.monotonic() - began
    texts = [tokenizer.decode(answer.sequences_ids[0], skip_special_tokens=True).strip() for answer in answers]
    print(json.dumps({"seconds": seconds, "results": texts}))


if __name__ == "__main__":
    main()
