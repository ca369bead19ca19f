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


class Full(Exception):
    """As many requests wait as may."""


@dataclass(eq=False)
class Request:
    """One prompt and how it is to be answered. `answer` is what generation.cut gives, or None if there is none, once
    `ready` is set."""

    prompt: list  # token ids
    encoder: object  # encoding.Encoder: the tokenizer, and what ends an answer
    decoding: dict  # as generation.GREEDY
    max_tokens: int
    seed: int | None = None  # given: drawn alone, as generation.generate draws it, whoever else asks
    came: float = field(default_factory=time.monotonic)
    gone: bool = False  # nobody waits for the answer any more
    answer: dict | None = None
    ready: threading.Event = field(default_factory=threading.Event)

    def alike(self, other):
        """May both be answered by one batch?"""
        if self is other:
            return True
        same = (self.encoder, self.decoding, self.max_tokens) == (other.encoder, other.decoding, other.max_tokens)
        return same and self.seed is other.seed is None


class Worker(threading.Thread):
    """The thread that alone uses `model`.

    batch_size: requests answered at a time, at most. wait: seconds after it came that a request waits for others like
    it, at most, while the model is idle. room: requests that may wait.
    """

    def __init__(self, model, batch_size, wait, room):
        super().__init__(daemon=True)
        self.model, self.batch_size, self.wait, self.room = model, batch_size, wait, room
        self.waiting, self.changed, self.closed = collections.deque(), threading.Condition(), False

    def submit(self, request):
        """Take a request; it is `ready` some time later, whatever happens. Raises Full."""
        with self.changed:
            if len(self.waiting) >= self.room:
                raise Full
            if self.closed:
                request.ready.set()
            else:
                self.waiting.append(request)
                self.changed.notify()

    def drop(self, request):
        """Nobody waits for it any more."""
        request.gone = True
        with self.changed:
            if request in self.waiting:
                self.waiting.remove(request)

    def close(self):
        """Break off what is being written; whoever waits gets no answer."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        if self.is_alive():
            self.join(timeout=10)

    def run(self):
        while batch := self.next_batch():
            self.answer(batch)

    def next_batch(self):
        """The oldest request with those like it; [] once closed."""
        with self.changed:
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
                return batch
            for request in self.waiting:
                request.ready.set()
            self.waiting.clear()
            return []

    def answer(self, batch):
        """A batch that fails leaves its requests without an answer, and the reason on stderr."""
        first = batch[0]
        seed = secrets.randbits(62) if first.seed is None else first.seed * 1_000_003
        answers = [None] * len(batch)
        try:
            config = generation.configuration(
                first.decoding, first.max_tokens, first.encoder.stop, first.encoder.tokenizer.pad_token_id
            )
            given_up = lambda: self.closed or all(request.gone for request in batch)  # noqa: E731
            prompts = [request.prompt for request in batch]
            found = generation.batch(self.model, first.encoder, prompts, config, seed, given_up)
            answers = answers if self.closed else found
        except Exception:
            traceback.print_exc()
        for request, answer in zip(batch, answers, strict=True):
            request.answer = answer
            request.ready.set()
