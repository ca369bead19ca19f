"""From the token ids of one answer to its text, in pieces that no later token can change."""

import re

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a token of SentencePiece that is one byte of a character
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a decoder writes for a character whose bytes are not all there


class TextStream:
    """The text of one answer while it is written.

    What is sent in pieces is, in the end, the whole answer: decoded at once, without white space at both ends, cut at
    the first stop text to be complete. Held back until later tokens decide are therefore white space at the end, what
    may begin a stop text, and a character of which bytes are missing.

    encoder: encoding.Encoder, which has the tokenizer and the ids that end an answer; stops: stop texts.
    `ended` is "end of sequence" or "stop text" once the answer is over; without either it is cut off by its length.
    """

    def __init__(self, encoder, stops=()):
        self.encoder, self.stops = encoder, [stop for stop in stops if stop]
        self.ids, self.ended, self.sent, self.tokens = [], None, "", 0

    def add(self, token):
        """Take the next id."""
        self.tokens += 1
        if token in self.encoder.stop:
            self.ended = "end of sequence"
        else:
            self.ids.append(token)
            if self.stops and self.cut(self.settled())[1]:
                self.ended = "stop text"

    def piece(self, last=False):
        """The text that has become certain since the last call. last: no token follows."""
        certain = self.text() if last or self.ended else self.certain(self.settled())
        piece = certain[len(self.sent) :]
        self.sent += piece
        return piece

    def answer(self):
        """As generation.cut has it: {"text", "tokens" (written, the end of sequence included), "stopped"}."""
        return {"text": self.text(), "tokens": self.tokens, "stopped": self.ended is not None}

    def text(self):
        text, found = self.cut(self.decoded())
        if found:
            self.ended = "stop text"
        return text.rstrip()

    def settled(self):
        """What is decoded, without characters that the next token may complete or change."""
        ids, name = self.ids, self.encoder.tokenizer.convert_ids_to_tokens
        while ids and BYTE.fullmatch(name(ids[-1]) or ""):  # a wrong byte makes all beside it replacement characters
            ids = ids[:-1]
        return self.decoded(ids).rstrip(UNFINISHED)

    def decoded(self, ids=None):
        ids = self.ids if ids is None else ids
        return self.encoder.tokenizer.decode(ids, skip_special_tokens=True).lstrip()

    def cut(self, text):
        """(text up to the stop text that is complete first, whether there is one)."""
        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in self.stops if stop in text]
        return (text[: min(places)[1]], True) if places else (text, False)

    def certain(self, text):
        """The longest start of `text` that stays, whatever follows."""
        begun = [n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        text = text[: len(text) - max(begun, default=0)]
        while text != (shorter := text.rstrip().rstrip(UNFINISHED)):
            text = shorter
        return text
