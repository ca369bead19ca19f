"""Requests sent when they are due, whether or not earlier ones were answered; every one sent ends as an Outcome."""

import errno
import http.client
import json
import queue
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass

from common import console
from common.console import InputError

REPLY = 16_000_000  # bytes of a reply that are read
MOST_TOKENS = 1e9  # of an answer: a server that tells more tells nothing
LOST = (OSError, http.client.HTTPException, UnicodeError)  # UnicodeError: a host's name that is too long
LOCAL = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL}  # this side is out of files or ports


@dataclass
class Outcome:
    """What became of one request. sent, ended: seconds from the start; failure: its kind, None for an answer; tokens:
    of the answer, None where the server does not say."""

    sent: float
    ended: float
    failure: str | None
    tokens: int | None


@dataclass
class BrokenOff:
    """A load that Ctrl-C or SIGTERM ended, after so many seconds; code: the exit code that it asks for."""

    seconds: float
    code: int


def offer(ask, due, on_end):
    """Call ask(i) -> (failure, tokens) in a thread of its own, due[i] seconds from now, for every i.

    on_end() is called after each. Returns (Outcomes of the requests sent, in their order; BrokenOff or None). What was
    not answered when it was broken off has failed as "interrupted".
    """
    start, ends = time.perf_counter(), queue.SimpleQueue()
    passed = lambda: time.perf_counter() - start  # noqa: E731
    sent, ended, broken_off = [], {}, None

    def one(i):
        try:
            failure, tokens = ask(i)
        except Exception as error:  # a defect here, not a request lost
            failure, tokens = f"client: {type(error).__name__}", None
        ends.put((i, passed(), failure, tokens))

    def take(timeout=None):
        i, *what = ends.get(timeout=timeout)
        ended[i] = what
        on_end()

    try:
        for i, at in enumerate(due):
            while (left := at - passed()) > 0:
                try:
                    take(left)
                except queue.Empty:
                    break
            sent.append(passed())
            try:
                threading.Thread(target=one, args=(i,), daemon=True).start()
            except RuntimeError:
                ends.put((i, passed(), "client: no thread left", None))
        while len(ended) < len(sent):
            take()
    except KeyboardInterrupt as end:
        code = console.TERMINATED if isinstance(end, console.Terminated) else console.INTERRUPTED
        broken_off = BrokenOff(passed(), code)
    lost = broken_off and (broken_off.seconds, "interrupted", None)
    return [Outcome(at, *ended.get(i, lost)) for i, at in enumerate(sent)], broken_off


class Client:
    """One OpenAI-compatible server. Every request has a connection of its own.

    url: http(s)://host[:port][/path][/v1]; timeout: seconds without a byte; key: sent as a bearer token, "" for none.
    """

    def __init__(self, url, timeout, key=""):
        self.url, self.timeout, self.key = url, timeout, key
        try:
            parts = urllib.parse.urlsplit(url)
            self.host, self.port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"URL: {error}") from None
        if parts.scheme not in ("http", "https") or not self.host:
            raise InputError("URL: http://host:port or https://host, with or without /v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InputError("URL: without user, password and query; a key goes into OPENAI_API_KEY")
        if not all("!" <= letter <= "~" for letter in key):
            raise InputError("OPENAI_API_KEY holds something that is no key: spaces, line ends or foreign letters")
        self.path = parts.path.rstrip("/").removesuffix("/v1")
        self.secure = ssl.create_default_context() if parts.scheme == "https" else None

    def request(self, method, place, body=None):
        """(status, reply as bytes). Raises what http.client raises."""
        secure = {"context": self.secure} if self.secure else {}
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=self.timeout, **secure)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, self.path + place, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read(REPLY)
        finally:
            connection.close()

    def ask(self, place, body):
        """(None, tokens of the answer if the server tells) or (kind of failure, None)."""
        try:
            status, reply = self.request("POST", place, body)
        except LOST as error:
            return failure(error), None
        if status != http.HTTPStatus.OK:
            return f"HTTP {status}", None
        try:
            answer = json.loads(reply)
            if not answer["choices"]:
                return "no answer in the reply", None
        except (ValueError, TypeError, KeyError, RecursionError):
            return "no answer in the reply", None
        usage = answer.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return None, tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else None

    def model(self):
        """The first model that the server names."""
        try:
            return str(self.checked("GET", "/v1/models")["data"][0]["id"])
        except (TypeError, KeyError, IndexError):
            raise InputError(f"{self.url} names no model at /v1/models: give it with --model") from None

    def warm_up(self, place, body):
        """One request that does not count: the first is slower, and one that cannot be served shows here."""
        reply = self.checked("POST", place, body)
        if not isinstance(reply, dict) or not reply.get("choices"):
            raise InputError(f"{self.url} is not OpenAI-compatible: {place} answers without choices")

    def checked(self, method, place, body=None):
        """The reply, read as JSON. Raises InputError with what the server says is wrong, without the key."""
        try:
            status, reply = self.request(method, place, body)
        except LOST as error:
            raise InputError(f"{self.url} cannot be reached ({failure(error)}): is the server running?") from None
        try:
            answer = json.loads(reply)
        except (ValueError, RecursionError):
            answer = None
        if status == http.HTTPStatus.OK and answer is not None:
            return answer
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise InputError(f"{self.url} answers HTTP {status}: set OPENAI_API_KEY to a key that it knows")
        try:
            reason = answer["error"]["message"]
        except (TypeError, KeyError):
            reason = "is this an OpenAI-compatible server?"
        reason = str(reason).replace(self.key, "…") if self.key else str(reason)
        raise InputError(f"{self.url}: {method} {place} answers HTTP {status}: {reason[:300]}")


def failure(error):
    """The kind of a failure, as it is counted."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, UnicodeError):
        return "no such host"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ssl.SSLError):
        return "TLS"
    if isinstance(error, ConnectionError | http.client.HTTPException):
        return "connection lost"
    return "client: out of files or ports" if error.errno in LOCAL else "unreachable"
