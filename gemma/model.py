"""Gemma, 2B and 7B: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model cards and config.json of google/gemma-2b, -7b, -2b-it and -7b-it, arXiv 2403.08295 (Gemma: heads of
256, GeGLU, tied embeddings; the 2B has one key/value head), arXiv 2305.14314 (QLoRA). Quirks: gated on the hub
(accept the licence, then `hf auth login`); the vocabulary of 256,000 tokens makes logits take more memory than
activations; the -it variants end a turn with <end_of_turn>, which is not their end of sequence: both end an answer.
"""

from common.checkpoints import Variant

WHAT = "base and chat models in two sizes; tied embeddings"
LICENSE = "Gemma Terms of Use"
SHAPE_2B = {
    "model_type": "gemma",
    "vocab_size": 256000,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
SHAPE_7B = SHAPE_2B | {
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
VARIANTS = [
    Variant(
        "google/gemma-2b",
        name="Gemma-2B",
        revision="9cf48e52b224239de00d483ec8eb84fb8d0f3a3a",
        parameters=2_506_172_416,
        linear_parameters=1_981_808_640,
        context=8192,
        shape=SHAPE_2B,
    ),
    Variant(
        "google/gemma-7b",
        name="Gemma-7B",
        revision="ff6768d9368919a1f025a54f9f5aa0ee591730bb",
        parameters=8_537_680_896,
        linear_parameters=7_751_073_792,
        context=8192,
        shape=SHAPE_7B,
    ),
    Variant(
        "google/gemma-2b-it",
        name="Gemma-2B-it",
        revision="96988410cbdaeb8d5093d1ebdc5a8fb563e02bad",
        parameters=2_506_172_416,
        linear_parameters=1_981_808_640,
        context=8192,
        format="chat",
        shape=SHAPE_2B,
    ),
    Variant(
        "google/gemma-7b-it",
        name="Gemma-7B-it",
        revision="9c5798d27f588501ce1e108079d2a19e4c3a2353",
        parameters=8_537_680_896,
        linear_parameters=7_751_073_792,
        context=8192,
        format="chat",
        shape=SHAPE_7B,
    ),
]

CHAT_2B = VARIANTS[2]

PRECISION = "bfloat16"  # dtype of the published weights
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_TARGETS = (*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj")
INFERENCE_BATCH_SIZE = 8
