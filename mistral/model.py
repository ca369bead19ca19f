"""Mistral-7B: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model card and config.json of mistralai/Mistral-7B-v0.1, arXiv 2310.06825 (architecture),
arXiv 2305.14314 (QLoRA: NF4, double quantisation, alpha 16, gradient norm 0.3).
"""

from common.checkpoints import Variant

WHAT = "base model; grouped-query attention, sliding window"
LICENSE = "Apache-2.0"
SHAPE = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
VARIANTS = [
    Variant(
        "mistralai/Mistral-7B-v0.1",
        name="Mistral-7B",
        revision="27d67f1b5f57dc0953326b2601d68371d40ea8da",
        parameters=7_241_732_096,
        linear_parameters=6_979_321_856,
        context=8192,
        shape=SHAPE,
    ),
    Variant(
        "mistralai/Mistral-7B-Instruct-v0.2",
        name="Mistral-7B-Instruct-v0.2",
        revision="63a8b081895390a26e140280378bc85ec8bce07a",
        parameters=7_241_732_096,
        linear_parameters=6_979_321_856,
        context=32768,  # no sliding window
        format="chat",
        shape=SHAPE,
    ),
]

INSTRUCT = VARIANTS[1]

PRECISION = "bfloat16"  # dtype of the published weights
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_TARGETS = (*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj")
INFERENCE_BATCH_SIZE = 8

BENCH_GPU = "Mistral-7B"  # `make bench-gpu` trains the shape of this variant
