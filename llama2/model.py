"""Llama 2, 7B and 13B: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model cards and config.json of meta-llama/Llama-2-7b-hf and -13b-hf, arXiv 2307.09288 (Llama 2),
arXiv 2305.14314 (QLoRA). Quirks: gated on the hub (accept the licence, then `hf auth login`); no pad token, so rows
are padded with the end of sequence and masked by position.
"""

from common.checkpoints import Variant

WHAT = "base model in two sizes"
LICENSE = "Llama 2 Community License"
SHAPE_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
SHAPE_13B = SHAPE_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}
VARIANTS = [
    Variant(
        "meta-llama/Llama-2-7b-hf",
        name="Llama2-7B",
        revision="01c7f73d771dfac7d292323805ebc428287df4f9",
        parameters=6_738_415_616,
        linear_parameters=6_476_005_376,
        context=4096,
        shape=SHAPE_7B,
    ),
    Variant(
        "meta-llama/Llama-2-13b-hf",
        name="Llama2-13B",
        revision="5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
        parameters=13_015_864_320,
        linear_parameters=12_687_769_600,
        context=4096,
        shape=SHAPE_13B,
    ),
]

PRECISION = "float16"  # dtype of the published weights
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_TARGETS = (*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj")
INFERENCE_BATCH_SIZE = 8

BENCH_GPU = "Llama2-13B"  # `make bench-gpu` trains the shape of this variant
