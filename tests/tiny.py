"""Tiny models of the true classes with random weights, and a tokenizer trained on the sample, as local folders.

    python tests/tiny.py FOLDER        writes a tiny model of the Mistral class
Sizes are multiples of 64: bitsandbytes quantises in blocks of that many weights.
"""

import json
import sys
from pathlib import Path

SAMPLE = Path(__file__).parent.parent / "common" / "sample"
SIZES = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def tokenizer():
    """A byte-level BPE tokenizer with <s>, </s> and no pad token, as base models have it."""
    import tokenizers
    import transformers

    texts = [line for file in sorted(SAMPLE.glob("*.jsonl")) for line in file.read_text().splitlines()]
    texts = [" ".join(str(value) for value in json.loads(line).values()) for line in texts]
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=SIZES["vocab_size"], special_tokens=["<unk>", "<s>", "</s>"])
    bos = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trained._tokenizer.post_processor = bos
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def config(**changes):
    import transformers

    return transformers.MistralConfig(**{**SIZES, "bos_token_id": 1, "eos_token_id": 2, **changes})


def write(folder, model_config=None, seed=0):
    """Save a random model and the tokenizer into `folder`; returns it."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(model_config or config())
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(write(sys.argv[1]))
