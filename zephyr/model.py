"""Zephyr-7B: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model cards of HuggingFaceH4/zephyr-7b-beta and -alpha, arXiv 2310.16944 (Zephyr: Mistral-7B tuned on
UltraChat, then by DPO on UltraFeedback), arXiv 2310.05914 (NEFTune), arXiv 2305.14314 (QLoRA). Architecture
and sizes are Mistral-7B's.
"""

from common.checkpoints import Variant

WHAT = "chat model: Mistral-7B after DPO"
LICENSE = "MIT"
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
        "HuggingFaceH4/zephyr-7b-beta",
        name="Zephyr-7B-beta",
        revision="892b3d7a7b1cf10c7a701c60881cd93df615734c",
        parameters=7_241_732_096,
        linear_parameters=6_979_321_856,
        context=8192,
        format="chat",
        shape=SHAPE,
    ),
    Variant(
        "HuggingFaceH4/zephyr-7b-alpha",
        name="Zephyr-7B-alpha",
        revision="2ce2d025864af849b3e5029e2ec9d568eeda892d",
        parameters=7_241_732_096,
        linear_parameters=6_979_321_856,
        context=8192,
        format="chat",
        shape=SHAPE,
    ),
]

PRECISION = "bfloat16"  # dtype of the published weights
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_TARGETS = (*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj")
INFERENCE_BATCH_SIZE = 8
