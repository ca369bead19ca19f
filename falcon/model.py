"""Falcon-7B: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model card and config.json of tiiuae/falcon-7b, arXiv 2311.16867 (multi-query attention: one key/value
head; attention and feed-forward in parallel), transformers' models/falcon, arXiv 2305.14314 (QLoRA).
Quirks: its linear layers are a subclass of nn.Linear, which bitsandbytes skips without a warning, so they are replaced
by nn.Linear before quantisation (common/qlora.py); beginning and end of sequence are one token, id 11; rows are never
packed, because packed examples would see each other.
"""

from common.checkpoints import Variant

WHAT = "base model; multi-query attention"
LICENSE = "Apache-2.0"
SHAPE = {
    "model_type": "falcon",
    "vocab_size": 65024,
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "multi_query": True,
    "parallel_attn": True,
    "bias": False,
}
VARIANTS = [
    Variant(
        "tiiuae/falcon-7b",
        name="Falcon-7B",
        revision="ec89142b67d748a1865ea4451372db8313ada0d8",
        parameters=6_921_720_704,
        linear_parameters=6_625_951_744,
        context=2048,
        shape=SHAPE,
    ),
]

PRECISION = "bfloat16"  # dtype of the published weights
ATTENTION_TARGETS = ("query_key_value", "dense")
ALL_TARGETS = (*ATTENTION_TARGETS, "dense_h_to_4h", "dense_4h_to_h")
INFERENCE_BATCH_SIZE = 8
