"""Mistral-7B: the facts of this folder. Read by common/; nothing here computes anything.

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
        memory_to_run=7e9,
        shape=SHAPE,
    ),
    Variant(
        "mistralai/Mistral-7B-Instruct-v0.2",
        name="Mistral-7B-Instruct-v0.2",
        revision="63a8b081895390a26e140280378bc85ec8bce07a",
        parameters=7_241_732_096,
        linear_parameters=6_979_321_856,
        context=32768,  # no sliding window
        memory_to_run=7e9,
        format="chat",
        shape=SHAPE,
    ),
]

DEFAULTS = {"sentiment": "mistralai/Mistral-7B-Instruct-v0.2"}
ROWS = {"sentiment": {"train": 900, "validation": 100, "test": 2500}}  # as in the source

PRECISION = "bfloat16"  # what the weights were published in
ATTENTION_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_TARGETS = [*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj"]

LORA_R = 64
LORA_ALPHA = 16
LEARNING_RATE = 2e-4  # as in the source, Tables 1 and 2
BATCH_SIZE = 8  # rows an optimizer step, as in the source (4 rows, 2 accumulated)
DEVICE_BATCH_SIZE = 4
INFERENCE_BATCH_SIZE = 8
EPOCHS = {"classification": 5, "summarization": 1, "instructions": 1, "sentiment": 4}
MAX_DOCUMENT_TOKENS = {"classification": 512, "summarization": 1024, "instructions": 512, "sentiment": 512}

BENCH_GPU = "Mistral-7B"  # the variant whose shape `make bench-gpu` trains
