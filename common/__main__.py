"""The tools of this collection: `python -m common VERB …`; every verb has --help."""

import difflib
import importlib
import sys

from common import console
from common.console import InputError, say

# verb -> (module whose main(words) it is, what it does)
VERBS = {
    "look": ("look", "look at a file of rows before training: what is in it, baselines, what to run next"),
    "advise": ("advise", "what to use for a file of rows now, and what more labels would bring"),
    "tables": ("reports.tables", "rewrite the tables of every README from the records; --check changes nothing"),
    "plots": ("reports.plots", "draw the pictures of the READMEs from the records; --check changes nothing"),
    "report": ("reports.page", "one page to choose by: quality against memory, money, labels, licence"),
    "calibrate": ("reports.calibration", "how often the tests behind better and worse are wrong, measured"),
    "factors": ("factors", "what moved the published numbers, one factor at a time"),
    "sweep": ("sweeps", "run a grid of one script's flags, cell after cell, skipping what is finished"),
    "budget": ("budget", "what a training takes before it runs: memory, steps, time, cost"),
    "records": ("runs.records", "validate records"),
    "checkpoints": ("runs.embedded", "install and unpack the embedded models"),
    "export": ("export", "a trained run as a folder for other tools: adapter, merged model, GGUF, Ollama"),
    "serve": ("serving.serve", "a trained run or a model behind a local OpenAI-compatible address"),
    "loadtest": ("serving.loadtest", "offer load to such an address: latencies, throughput, cost"),
    "rate": ("ratings", "a page on which people rate answers blind; what their ratings say"),
    "bench": ("bench", "speed against what people would use instead, as ratios side by side"),
}


def run(words):
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        say(__doc__ + "\n")
        return say("\n".join(f"  {verb.ljust(width)}  {what}" for verb, (_, what) in VERBS.items()))
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(VERBS)}"
        raise InputError(f"no verb {words[0]}; {hint}")
    sys.argv[0] = f"python -m common {words[0]}"
    return importlib.import_module(f"common.{VERBS[words[0]][0]}").main(words[1:])


if __name__ == "__main__":
    sys.exit(console.exit_code(run, sys.argv[1:]))
