"""Fine-tune Mistral-7B with QLoRA on Alpaca: write a response to an instruction, sometimes with an input.

Train the model of the decoding study; a tenth of the rows is held out and answered greedily:
    python mistral/mistral_instructions.py
Run the whole experiment with the embedded 135M model and the sample, on any machine, in minutes:
    python mistral/mistral_instructions.py --demo

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
    max_document_tokens=512,  # study: 2048 with prompt and answer
    max_new_tokens=200,
    trainer="SFTTrainer",
    quantization="nf4, double",
    lora_r=16,
    lora_alpha=16,
    dropout=0.0,
    full_tune=True,
    targets=model.ALL_TARGETS,
    epochs=1,  # study: 60 steps, 480 rows
    learning_rate=2e-4,
    lr_scheduler="linear",
    warmup_ratio=0.03,  # study: 5 steps
    optimizer="adamw_torch",  # study: adamw_8bit, which has no CPU kernel
    weight_decay=0.01,
    max_grad_norm=1.0,
    batch_size=8,
    micro_batch_size=2,
    keep="last",
    bertscore_model="minilm",  # embedded here; the study's encoder is not named
    seed=42,  # study: 3407
)
EXPERIMENT = experiment.Experiment(__file__, __doc__, "instructions", "training", SETTINGS, model, prompts)


def main(run):
    rows = data.alpaca(**run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, rows.labels)
    base = qlora.base(run.checkpoint, run.execution)  # 4-bit, frozen
    tuned, report = training.tune(base, prompter, rows, run.settings, run.execution, budget.before)
    scores = evaluation.instructions(tuned, prompter, rows, run.settings, run.execution)
    run.finish(rows, prompter.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
