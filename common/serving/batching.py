"""The queue of requests for one model: one thread takes them in order of arrival and answers requests with the same
decoding as one batch.
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
    """The queue holds as many requests as it may."""


@dataclass(eq=False)
class Request:
    """One prompt and how to answer it.

    Once `ready` is set, `answer` is the dict {"text", "tokens", "stopped"} of generation.cut, or None if the request
    failed. The worker's thread calls listen(piece) with each piece of text, if `streams`, and with None at the end.
    """

    prompt: list  # token ids
    encoder: object  # encoding.Encoder: the tokenizer and the token ids that end an answer
    decoding: dict  # of the form of generation.GREEDY
    max_tokens: int  # limit of the answer
    seed: int | None = None  # if given, the request is a batch of its own, sampled as generation.generate samples
    stops: tuple = ()  # the answer ends before the first of these texts
    streams: bool = False  # whether listen gets pieces of text
    listen: object = lambda piece: None
    came: float = field(default_factory=time.monotonic)  # seconds, when it was made
    gone: bool = False  # whether nobody waits for the answer any more
    answer: dict | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    turn: object = field(default_factory=threading.Lock)

    def alike(self, other):
        """Whether one batch may answer both requests."""
        if self is other:
            return True
        same = (self.encoder, self.decoding, self.max_tokens) == (other.encoder, other.decoding, other.max_tokens)
        return same and self.seed is other.seed is None

    def end(self, answer):
        """Hand over the answer (None: there is none); only the first call counts."""
        with self.turn:
            if self.ready.is_set():
                return
            self.answer = answer
            self.ready.set()
        self.listen(None)


class Worker(threading.Thread):
    """The only thread that uses `model`.

    batch_size: largest number of requests in a batch. wait: longest time in seconds, from its arrival, that a request
    waits for similar ones while the model is idle. max_waiting: largest number of requests in the queue.
    """

    def __init__(self, model, batch_size, wait, max_waiting):
        super().__init__(daemon=True)
        self.model, self.batch_size, self.wait, self.max_waiting = model, batch_size, wait, max_waiting
        self.waiting, self.running, self.closed = collections.deque(), [], False
        self.changed = threading.Condition()

    def submit(self, request):
        """Queue a request; it becomes `ready` later, even if it fails. Raises Full."""
        with self.changed:
            if len(self.waiting) >= self.max_waiting:
                raise Full
            if not self.closed:
                self.waiting.append(request)
                self.changed.notify()
                return
        request.end(None)

    def drop(self, request):
        """Remove a request that nobody waits for: from the queue at once, from a batch at the next token."""
        request.gone = True
        with self.changed:
            if request in self.waiting:
                self.waiting.remove(request)

    def close(self):
        """Stop the running batch at the next token, and end every request without an answer at once."""
        with self.changed:
            self.closed = True
            unfinished = [*self.waiting, *self.running]
            self.waiting.clear()
            self.changed.notify()
        for request in unfinished:
            request.end(None)

    def run(self):
        while batch := self.next_batch():
            self.answer(batch)

    def next_batch(self):
        """The oldest request and those that may share its batch; [] once closed."""
        with self.changed:
            self.running = []
            while not self.closed:
                if not self.waiting:
                    self.changed.wait()
                    continue
                first = self.waiting[0]
                batch = [request for request in self.waiting if request.alike(first)][: self.batch_size]
                seconds_left = first.came + self.wait - time.monotonic()
                if first.seed is None and len(batch) < self.batch_size and seconds_left > 0:
                    self.changed.wait(seconds_left)
                    continue
                for request in batch:
                    self.waiting.remove(request)
                self.running = batch
                return batch
            return []

    def answer(self, batch):
        """Generate the answers of a batch. Each request ends as soon as its own answer does. If generation fails, the
        requests that have not ended get no answer, and stderr gets the reason."""
        first = batch[0]
        seed = secrets.randbits(62) if first.seed is None else first.seed * 1_000_003
        texts = [TextStream(request.encoder, request.stops) for request in batch]

        def on_token(rows, tokens):
            """Returns the rows that leave the batch."""
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
    """Pass on the part of an answer that no later token can change, and the end of the answer."""
    if request.ready.is_set() or request.gone:
        return
    if request.streams and (piece := text.piece(last)):
        request.listen(piece)
    if last or text.ended:
        request.end(text.answer())
