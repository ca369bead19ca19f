"""Phi-2: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model card and config.json of microsoft/phi-2 (format "Instruct: … Output:", MIT), transformers'
models/phi, arXiv 2305.14314 (QLoRA). Quirks: peft's own default would add fc1 and fc2 to the attention layers, so
the targets are named; the output projection is called dense; the tokenizer adds no beginning of sequence; pad, begin
and end of sequence are one token, <|endoftext|>, id 50256, and rows are masked by position.
"""

from common.checkpoints import Variant

WHAT = "base model trained on textbook-like text; partial rotary positions"
LICENSE = "MIT"
SHAPE = {
    "model_type": "phi",
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "partial_rotary_factor": 0.4,
}
VARIANTS = [
    Variant(
        "microsoft/phi-2",
        name="Phi-2",
        revision="ef382358ec9e382308935a992d908de099b64c23",
        parameters=2_779_683_840,
        linear_parameters=2_516_582_400,
        context=2048,
        shape=SHAPE,
    ),
]

PRECISION = "float16"  # dtype of the published weights
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "dense")
ALL_TARGETS = (*ATTENTION_TARGETS, "fc1", "fc2")
INFERENCE_BATCH_SIZE = 8
