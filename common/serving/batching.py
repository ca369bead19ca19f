"""Requests that wait for one model: one thread takes them in the order they came and answers those that decode alike
as one batch.
"""

import collections
import secrets
import threading
import time
import traceback
from dataclasses import dataclass, field

from common import generation
from common.serving.text_stream import TextStream


class Full(Exception):
    """As many requests wait as may."""


@dataclass(eq=False)
class Request:
    """One prompt and how it is to be answered.

    Once `ready` is set, `answer` is {"text", "tokens", "stopped"} as generation.cut has it, or None if there is none.
    listen(piece) is called from the worker's thread: with each piece of text, if `streams`, and with None at the end.
    """

    prompt: list  # token ids
    encoder: object  # encoding.Encoder: the tokenizer, and what ends an answer
    decoding: dict  # as generation.GREEDY
    max_tokens: int
    seed: int | None = None  # given: drawn alone, as generation.generate draws it, whoever else asks
    stops: tuple = ()  # the answer ends before the first of these texts
    streams: bool = False
    listen: object = lambda piece: None
    came: float = field(default_factory=time.monotonic)
    gone: bool = False  # nobody waits for the answer any more
    answer: dict | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    turn: object = field(default_factory=threading.Lock)

    def alike(self, other):
        """May both be answered by one batch?"""
        if self is other:
            return True
        same = (self.encoder, self.decoding, self.max_tokens) == (other.encoder, other.decoding, other.max_tokens)
        return same and self.seed is other.seed is None

    def end(self, answer):
        """Hand the answer over; only the first call counts."""
        with self.turn:
            if self.ready.is_set():
                return
            self.answer = answer
            self.ready.set()
        self.listen(None)


class Worker(threading.Thread):
    """The thread that alone uses `model`.

    batch_size: requests answered at a time, at most. wait: seconds after it came that a request waits for others like
    it, at most, while the model is idle. max_waiting: requests that may wait.
    """

    def __init__(self, model, batch_size, wait, max_waiting):
        super().__init__(daemon=True)
        self.model, self.batch_size, self.wait, self.max_waiting = model, batch_size, wait, max_waiting
        self.waiting, self.running, self.closed = collections.deque(), [], False
        self.changed = threading.Condition()

    def submit(self, request):
        """Take a request; it is `ready` some time later, whatever happens. Raises Full."""
        with self.changed:
            if len(self.waiting) >= self.max_waiting:
                raise Full
            if not self.closed:
                self.waiting.append(request)
                self.changed.notify()
                return
        request.end(None)

    def drop(self, request):
        """Nobody waits for it any more: it leaves the queue, or the batch at the next token."""
        request.gone = True
        with self.changed:
            if request in self.waiting:
                self.waiting.remove(request)

    def close(self):
        """Break off at the next token what is being written. Whoever waits is told at once that there is no answer."""
        with self.changed:
            self.closed = True
            left = [*self.waiting, *self.running]
            self.waiting.clear()
            self.changed.notify()
        for request in left:
            request.end(None)

    def run(self):
        while batch := self.next_batch():
            self.answer(batch)

    def next_batch(self):
        """The oldest request with those like it; [] once closed."""
        with self.changed:
            self.running = []
            while not self.closed:
                if not self.waiting:
                    self.changed.wait()
                    continue
                first = self.waiting[0]
                batch = [request for request in self.waiting if request.alike(first)][: self.batch_size]
                left = first.came + self.wait - time.monotonic()
                if first.seed is None and len(batch) < self.batch_size and left > 0:
                    self.changed.wait(left)
                    continue
                for request in batch:
                    self.waiting.remove(request)
                self.running = batch
                return batch
            return []

    def answer(self, batch):
        """Write the answers of a batch. Each request ends as soon as its own answer does. A batch that fails leaves
        those that have not ended without an answer, and the reason on stderr."""
        first = batch[0]
        seed = secrets.randbits(62) if first.seed is None else first.seed * 1_000_003
        texts = [TextStream(request.encoder, request.stops) for request in batch]

        def on_token(rows, tokens):
            """Returns the rows that are to leave the batch."""
            for row, token in zip(rows, tokens, strict=True):
                texts[row].add(token)
                tell(batch[row], texts[row])
            return [row for row in rows if texts[row].ended or batch[row].gone]

        try:
            config = generation.configuration(
                first.decoding, first.max_tokens, first.encoder.stop, first.encoder.tokenizer.pad_token_id
            )
            prompts = [request.prompt for request in batch]
            generation.batch(self.model, first.encoder, prompts, config, seed, lambda: self.closed, on_token)
            for request, text in zip(batch, texts, strict=True):
                if not self.closed:
                    tell(request, text, last=True)
        except Exception:
            traceback.print_exc()
        for request in batch:
            request.end(None)


def tell(request, text, last=False):
    """Pass on what has become certain of an answer, and its end."""
    if request.ready.is_set() or request.gone:
        return
    if request.streams and (piece := text.piece(last)):
        request.listen(piece)
    if last or text.ended:
        request.end(text.answer())
