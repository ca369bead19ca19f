"""Fine-tune SmolLM2-135M with QLoRA on Alpaca: write a response to an instruction, sometimes with an input.

Train the model of the decoding study; a tenth of the rows is held out and answered greedily:
    python smollm2/smollm2_instructions.py
Run the whole experiment with the embedded 135M model and the sample, on any machine, in minutes:
    python smollm2/smollm2_instructions.py --demo

It scores the base and the tuned model, and an echo of the prompt, by BLEU, ROUGE and BERTScore of the response alone
(study: of prompt and response together). A comment says why a setting differs from the study's.
"""

import sys

import model
import prompts

from common import budget, data, encoding, evaluation, qlora, training
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=256,
    max_new_tokens=200,
    trainer="SFTTrainer",
    quantization="nf4, double",
    lora_r=64,  # study: 16, for 7B models
    lora_alpha=16,
    dropout=0.1,  # study: 0; as in this folder's other tasks
    targets=model.ATTENTION_TARGETS,  # study: all linear layers
    epochs=1,  # study: 60 steps, 480 rows
    learning_rate=3e-3,  # a small model and few steps
    lr_scheduler="cosine",  # so high a learning rate has to decay
    warmup_ratio=0.03,  # study: 5 steps
    optimizer="adamw_torch",  # study: adamw_8bit, which has no CPU kernel
    weight_decay=0.0,  # study: 0.01; as in this folder's other tasks
    max_grad_norm=0.3,
    batch_size=4,
    micro_batch_size=4,
    keep="last",
    bertscore_model="minilm",  # embedded here; the study's encoder is not named
    seed=42,  # study: 3407
)
DEMO = {"epochs": 2}  # 48 training instructions
EXPERIMENT = experiment.Experiment(__file__, __doc__, "instructions", "training", SETTINGS, model, prompts, demo=DEMO)


def main(run):
    rows = data.alpaca(**run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, rows.labels)
    base = qlora.base(run.checkpoint, run.execution)  # 4-bit, frozen
    tuned, report = training.tune(base, prompter, rows, run.settings, run.execution, budget.before)
    scores = evaluation.instructions(tuned, prompter, rows, run.settings, run.execution)
    run.finish(rows, prompter.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
