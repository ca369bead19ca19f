"""Fine-tune Mistral-7B with QLoRA on SAMSum: summarize a messenger dialogue in one or two sentences.

Make the row "fine-tuning + QLoRA" of Table 2 (--neftune 5 and --full_tune give the variants):
    python mistral/mistral_summarization.py --lora_r 64
Run the whole experiment with the embedded 135M model and the sample, on any machine, in minutes:
    python mistral/mistral_summarization.py --demo

It scores the base and the tuned model by ROUGE on the test dialogues, with the same prompt and the same decoding. A
comment says why a setting differs from the study's.
"""

import sys

import model
import prompts

from common import budget, data, encoding, evaluation, qlora, training
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=1024,  # study: 512 with prompt and summary, cut on the right, which loses the summary
    max_new_tokens=100,  # study: 50 for prompted models; one budget for all
    trainer="SFTTrainer",
    quantization="nf4, double",  # study: trained on NF4, scored on FP4
    lora_r=64,
    lora_alpha=16,
    dropout=0.1,
    targets=model.ATTENTION_TARGETS,  # study: peft's choice, which differs from model to model
    epochs=1,
    learning_rate=2e-4,
    lr_scheduler="constant",
    warmup_ratio=0.0,  # study: 0.03, which "constant" ignores
    optimizer="adamw_torch",  # study: paged_adamw_32bit, the same steps with pages for a full GPU
    weight_decay=0.0,
    max_grad_norm=0.3,
    batch_size=8,
    micro_batch_size=4,
    keep="last",
    seed=42,  # study: none
)
EXPERIMENT = experiment.Experiment(__file__, __doc__, "summarization", "training", SETTINGS, model, prompts)


def main(run):
    dialogues = data.samsum(**run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, dialogues.labels)
    base = qlora.base(run.checkpoint, run.execution)  # 4-bit, frozen
    tuned, report = training.tune(base, prompter, dialogues, run.settings, run.execution, budget.before)
    scores = evaluation.summaries(tuned, prompter, dialogues, run.settings, run.execution)
    run.finish(dialogues, prompter.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
