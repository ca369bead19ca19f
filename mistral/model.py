"""Mistral-7B: the facts of this folder. Read by common/; nothing here computes anything.

Sources: the model card and config.json of mistralai/Mistral-7B-v0.1, arXiv 2310.06825 (architecture),
arXiv 2305.14314 (QLoRA: NF4, double quantisation, alpha 16, gradient norm 0.3).
"""

NAME = "Mistral-7B"
CHECKPOINT = "mistralai/Mistral-7B-v0.1"
REVISION = "27d67f1b5f57dc0953326b2601d68371d40ea8da"
LICENSE = "Apache-2.0"
PARAMETERS = 7_241_732_096  # embeddings and head (131 M each, not tied) included
LINEAR_PARAMETERS = 6_979_321_856  # what NF4 packs: 32 layers x 218.1 M
CONTEXT = 8192  # attention reaches back 4,096 tokens a layer (sliding window)
MEMORY_TO_TRAIN = 10e9  # bytes of GPU memory, NF4, rank 64, batch 4 at 512 tokens, with recomputation
MEMORY_TO_RUN = 6e9

FORMAT = "plain"  # a base model: no chat template
PRECISION = "bfloat16"  # what the weights were published in
ATTENTION_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_TARGETS = [*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj"]
LORA_ALPHA = 16
LEARNING_RATE = 2e-4  # as in the source, Tables 1 and 2
BATCH_SIZE = 8  # rows an optimizer step, as in the source (4 rows, 2 accumulated)
DEVICE_BATCH_SIZE = 4
INFERENCE_BATCH_SIZE = 8
EPOCHS = {"classification": 5, "summarization": 1}
MAX_DOCUMENT_TOKENS = {"classification": 512, "summarization": 1024}
