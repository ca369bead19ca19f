"""Gemma on IMDB: zero-, one- and few-shot, fine-tuned with QLoRA, and with a head that nobody trained.

    python gemma/gemma_sentiment.py --prompt_type zero-shot                      # label-scored and greedy
    python gemma/gemma_sentiment.py --prompt_type zero-shot --temperature 1 --seed 2   # one of three executions
    python gemma/gemma_sentiment.py --prompt_type few-shot
    python gemma/gemma_sentiment.py                                              # fine-tuned, 900 reviews
    python gemma/gemma_sentiment.py --random_head --seed 2                       # what the source measured
On any machine, with the embedded 135M model:
    python gemma/gemma_sentiment.py --prompt_type few-shot --pretrained_ckpt smollm2 --max_test_samples 300

The three executions differ because answers are sampled, by --seed; label-scored and greedy rows do not differ. The
source's "zero-shot" was a randomly initialised classification head: chance, around 50 %.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records, training


def arguments():
    return flags.prompted_sentiment(flags.training(__doc__)).parse_args()


def main(run):
    reviews = data.imdb(run)  # the same rows, in the same order, for every model
    if run.args.random_head:
        return records.finish(run, reviews, evaluation.random_head(run, reviews))
    network = training.tune(run, run.model(), reviews) if run.trains else run.model()
    scores = evaluation.labels(run, network, reviews)  # both labels scored, free answers beside
    return records.finish(run, reviews, scores)


if __name__ == "__main__":
    args = arguments()
    kind = "baseline" if args.prompt_type or args.random_head else "training"
    sys.exit(experiment.start(main, args, model, prompts, kind))
