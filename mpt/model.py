"""MPT-7B: facts about the model, which common/ reads; nothing here computes anything.

Sources: MosaicML's MPT-7B announcement and model card (ALiBi positions, no biases, GPT-NeoX tokenizer), transformers'
models/mpt (the native class; the 2023 repository's own code is never run), arXiv 2305.14314 (QLoRA).
Quirks: config.json names no end-of-sequence id, and transformers' generation then never stops, which explains the
published 0.0 %; here the id is that of the tokenizer, <|endoftext|>. Rows are never packed, because packed examples
would see each other without a position embedding to restart. mosaicml/mpt-7b was removed from the hub in 2025 and
had its weights only as pickles: --pretrained_ckpt takes a converted copy (README).
"""

from common.checkpoints import Variant

WHAT = "base model; ALiBi, no biases"
LICENSE = "Apache-2.0"
SHAPE = {
    "model_type": "mpt",
    "vocab_size": 50432,
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "expansion_ratio": 4,
}
VARIANTS = [
    Variant(
        "mosaicml/mpt-7b",
        name="MPT-7B",
        revision="ada218f9a93b5f1c6dce48a4cc9ff01fcba431e7",  # gone from the hub
        parameters=6_649_286_656,
        linear_parameters=6_442_450_944,
        context=2048,
        shape=SHAPE,
    ),
]

PRECISION = "bfloat16"  # dtype of the published weights
ATTENTION_TARGETS = ("Wqkv", "out_proj")
ALL_TARGETS = (*ATTENTION_TARGETS, "up_proj", "down_proj")
INFERENCE_BATCH_SIZE = 8
