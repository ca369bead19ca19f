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
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")  # layers of that class
LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
SAME_SIZE = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}  # MPT's names

# Chat templates of the form of the true ones. `zephyr`'s turns end in the end of sequence, `gemma`'s in a token of
# their own, and it names roles otherwise and trims.
CHATS = {
    "zephyr": (
        "{% for turn in messages %}{{ '<|' + turn.role + '|>\n' + turn.content + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for turn in messages %}{% set role = 'model' if turn.role == 'assistant' else turn.role %}"
        "{{ '<start_of_turn>' + role + '\n' + turn.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
}
TURNS = {"gemma": ["<start_of_turn>", "<end_of_turn>"]}  # special tokens beside <s> and </s>


def settings(**changes):
    """A training's full Settings, for the tiny model of the Mistral class."""
    from common.settings import Settings

    usual = {
        "max_document_tokens": 512,
        "max_new_tokens": 32,
        "prompt_tokens": 1900,
        "trainer": "SFTTrainer",
        "quantization": "nf4, double",
        "lora_r": 16,
        "lora_alpha": 16,
        "dropout": 0.0,
        "targets": ATTENTION,
        "epochs": 1,
        "learning_rate": 0.02,
        "lr_scheduler": "constant",
        "warmup_ratio": 0.0,
        "optimizer": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 0.3,
        "batch_size": 4,
        "micro_batch_size": 4,
        "keep": "last",
    }
    return Settings(**usual).replaced(changes)


def execution(folder, **changes):
    from common.settings import Execution

    return Execution(**{"folder": folder and Path(folder), **changes})


def data(train, test=(), validation=(), labels=()):
    """Rows {"text", "target"} as common/data.py hands them on."""
    from common.data import Data

    told = {"name": "toy", "source": "toy", "kind": "own", "columns": {"text": "text", "target": "target"}}
    rows = {"train": list(train), "validation": list(validation), "test": list(test)}
    return Data(**told, **rows, labels=list(labels), dropped={})


def texts():
    """What tokenizers are trained on: the rows of the sample."""
    lines = [line for file in sorted(SAMPLE.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [" ".join(str(value) for value in json.loads(line).values()) for line in lines]


def tokenizer(chat=None):
    """A byte-level BPE tokenizer with <s>, </s> and no pad token, as base models have it. chat: a key of CHATS."""
    import tokenizers
    import transformers

    trained = tokenizers.ByteLevelBPETokenizer()
    turns = TURNS.get(chat, [])
    special = ["<unk>", "<s>", "</s>", *turns]
    trained.train_from_iterator(texts(), vocab_size=SIZES["vocab_size"], special_tokens=special)
    bos = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trained._tokenizer.post_processor = bos
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    made.add_special_tokens({"additional_special_tokens": turns})
    made.chat_template = CHATS.get(chat)
    return made


def config(**changes):
    import transformers

    return transformers.MistralConfig(**{**SIZES, "bos_token_id": 1, "eos_token_id": 2, **changes})


def shrunk(shape):
    """The config of a model folder's `shape` (model.py) with small sizes: what else the shape says stays, and so
    does whether key/value heads are one, fewer than the heads, or as many. Weights are large enough for positions
    and neighbours to matter. MPT's own config names no end of sequence, so here neither."""
    import transformers

    small = {name: SIZES[SAME_SIZE.get(name, name)] for name in shape if SAME_SIZE.get(name, name) in SIZES}
    if "num_key_value_heads" in shape:
        as_heads = shape["num_attention_heads"]
        kinds = {1: 1, as_heads: SIZES["num_attention_heads"]}
        small["num_key_value_heads"] = kinds.get(shape["num_key_value_heads"], SIZES["num_key_value_heads"])
    if "head_dim" in shape:
        small["head_dim"] = 16
    ends = {} if shape["model_type"] == "mpt" else {"bos_token_id": 1, "eos_token_id": 2}
    return transformers.AutoConfig.for_model(**{**shape, **small, **ends, "initializer_range": 0.2})


def write(folder, model_config=None, seed=0, chat=None):
    """Save a random model and the tokenizer into `folder`; returns it."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(model_config or config())
    model.save_pretrained(folder)
    tokenizer(chat).save_pretrained(folder)
    return folder


def write_encoder(folder, shape):
    """Save a random encoder of the class that `shape` names, small, with a WordPiece tokenizer; returns `folder`."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    small = {"vocab_size": 1024, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4, "initializer_range": 0.2}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**{**shape, **small}))
    model.save_pretrained(folder)
    trained = tokenizers.BertWordPieceTokenizer()
    trained.train_from_iterator(texts(), vocab_size=1024)
    trained.save(str(Path(folder) / "pieces.json"))
    transformers.DistilBertTokenizerFast(tokenizer_object=trained._tokenizer).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(write(sys.argv[1]))
