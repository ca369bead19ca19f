"""Encoders: models that read text and do not generate it. A new head classifies a text, or picks the utterances of a
dialogue that make its summary (extractive summarization). README.md says how scripts use this package.
"""

from common.encoders.heads import guarded, network, new_modules, save, saved, tune, with_new_adapter
from common.encoders.loops import Progress, autocast, batches, report
from common.encoders.reader import Reader as reader
from common.encoders.testing import answers, baseline, labels, summaries

__all__ = [
    "Progress", "answers", "autocast", "baseline", "batches", "guarded", "labels", "network", "new_modules",
    "reader", "report", "save", "saved", "summaries", "tune", "with_new_adapter",
]  # fmt: skip
