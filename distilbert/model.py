"""DistilBERT: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model card and config.json of distilbert-base-uncased, arXiv 1910.01108 (six layers of BERT-base, taught
by it), arXiv 2106.09685 (LoRA on query and value).
Quirks: peft has no default targets for this class, so they are named here. The classification head has two layers, and
peft's own list would leave the first one random, so every new layer is trained. Without --lora_r all weights are
float32; with it the frozen encoder is NF4, as in every other folder, and the head float32.
"""

from common.checkpoints import Variant

WHAT = "encoder: reads, cannot write"
LICENSE = "Apache-2.0"
VARIANTS = [
    Variant(
        "distilbert/distilbert-base-uncased",
        name="DistilBERT",
        revision="12040accade4e8a0f71eabdb258fecc2e7e948be",
        parameters=66_362_880,
        linear_parameters=42_467_328,
        context=512,
        format="encoder",
        shape={
            "model_type": "distilbert",
            "vocab_size": 30522,
            "dim": 768,
            "hidden_dim": 3072,
            "n_layers": 6,
            "n_heads": 12,
        },
    ),
]

PRECISION = "float32"
ATTENTION_TARGETS = ("q_lin", "v_lin")
ALL_TARGETS = ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")
INFERENCE_BATCH_SIZE = 64
