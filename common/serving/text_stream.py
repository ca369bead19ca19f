"""From the token ids of one answer to its text, in pieces that no later token can change."""

import re

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a SentencePiece token that is one byte of a character
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # decoders write it for a character with missing bytes


class TextStream:
    """The text of one answer while it is written.

    The pieces, joined, equal the whole answer: decoded at once, stripped of white space, cut before the first stop text
    that is complete. So `piece` holds back trailing white space, a possible beginning of a stop text and a character
    with missing bytes until later tokens decide about them.

    encoder: encoding.Encoder, which has the tokenizer and the ids that end an answer; stops: stop texts.
    `ended` is "end of sequence" or "stop text" once the answer is over; None if its length cut it off.
    """

    def __init__(self, encoder, stops=()):
        self.encoder, self.stops = encoder, [stop for stop in stops if stop]
        self.ids, self.ended, self.sent, self.tokens = [], None, "", 0

    def add(self, token):
        """Add the next token id."""
        self.tokens += 1
        if token in self.encoder.stop:
            self.ended = "end of sequence"
        else:
            self.ids.append(token)
            if self.stops and self.cut(self.settled())[1]:
                self.ended = "stop text"

    def piece(self, last=False):
        """The new text, since the last call, that no later token can change. last: no token follows."""
        certain = self.text() if last or self.ended else self.certain(self.settled())
        piece = certain[len(self.sent) :]
        self.sent += piece
        return piece

    def answer(self):
        """{"text", "tokens": number written, with the end of sequence, "stopped"}, as generation.cut returns it."""
        return {"text": self.text(), "tokens": self.tokens, "stopped": self.ended is not None}

    def text(self):
        text, complete = self.cut(self.decoded())
        if complete:
            self.ended = "stop text"
        return text.rstrip()

    def settled(self):
        """The decoded text, without characters that the next token may complete or change."""
        ids, tokens_of = self.ids, self.encoder.tokenizer.convert_ids_to_tokens
        # An incomplete character turns all bytes beside it into replacement characters.
        while ids and BYTE.fullmatch(tokens_of(ids[-1]) or ""):
            ids = ids[:-1]
        return self.decoded(ids).rstrip(UNFINISHED)

    def decoded(self, ids=None):
        ids = self.ids if ids is None else ids
        return self.encoder.tokenizer.decode(ids, skip_special_tokens=True).lstrip()

    def cut(self, text):
        """(text before the stop text that is complete first, whether there is one)."""
        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in self.stops if stop in text]
        return (text[: min(places)[1]], True) if places else (text, False)

    def certain(self, text):
        """The longest beginning of `text` that no later token can change."""
        partial_stops = [n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        text = text[: len(text) - max(partial_stops, default=0)]
        while text != (shorter := text.rstrip().rstrip(UNFINISHED)):
            text = shorter
        return text
