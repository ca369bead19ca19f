"""Send requests when they are due, whether or not earlier ones were answered; every request sent has an Outcome."""

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

REPLY = 16_000_000  # largest number of bytes of a reply that are read
MOST_TOKENS = 1e9  # a reply that reports more tokens of an answer is not believed
LOST = (OSError, http.client.HTTPException, UnicodeError)  # UnicodeError: the host's name is too long
LOCAL = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL}  # the client has no file or port left


@dataclass
class Outcome:
    """The result of one request. sent, ended: seconds from the start; failure: kind of the failure, None for an answer;
    tokens: of the answer, None if the server does not report them."""

    sent: float
    ended: float
    failure: str | None
    tokens: int | None


@dataclass
class BrokenOff:
    """Ctrl-C or SIGTERM ended the load. seconds: from its start; code: exit code of the command."""

    seconds: float
    code: int


def offer(ask, due, on_end):
    """For every i, call ask(i) -> (failure, tokens) in its own thread, due[i] seconds from now.

    Calls on_end() after each. Returns (list of Outcome of the requests sent, in order of `due`; BrokenOff or None).
    Requests that Ctrl-C or SIGTERM left unanswered have the failure "interrupted".
    """
    start, ends = time.perf_counter(), queue.SimpleQueue()
    elapsed = lambda: time.perf_counter() - start  # noqa: E731
    sent, ended, broken_off = [], {}, None

    def send(i):
        try:
            failure, tokens = ask(i)
        except Exception as error:  # a defect of this client, not of the server
            failure, tokens = f"client: {type(error).__name__}", None
        ends.put((i, elapsed(), failure, tokens))

    def collect(timeout=None):
        i, *result = ends.get(timeout=timeout)
        ended[i] = result
        on_end()

    try:
        for i, at in enumerate(due):
            while (wait := at - elapsed()) > 0:
                try:
                    collect(wait)
                except queue.Empty:
                    break
            sent.append(elapsed())
            try:
                threading.Thread(target=send, args=(i,), daemon=True).start()
            except RuntimeError:
                ends.put((i, elapsed(), "client: no thread left", None))
        while len(ended) < len(sent):
            collect()
    except KeyboardInterrupt as interruption:
        code = console.TERMINATED if isinstance(interruption, console.Terminated) else console.INTERRUPTED
        broken_off = BrokenOff(elapsed(), code)
    interrupted = broken_off and (broken_off.seconds, "interrupted", None)
    return [Outcome(at, *ended.get(i, interrupted)) for i, at in enumerate(sent)], broken_off


class Client:
    """A client of one OpenAI-compatible server; it opens a connection for every request.

    url: http(s)://host[:port][/path][/v1]; timeout: longest time without a byte, in seconds; key: bearer token, "" for
    none. Raises InputError if the URL or the key is not valid.
    """

    def __init__(self, url, timeout, key=""):
        self.url, self.timeout, self.key = url, timeout, key
        try:
            split = urllib.parse.urlsplit(url)
            self.host, self.port = split.hostname, split.port
        except ValueError as error:
            raise InputError(f"URL: {error}") from None
        if split.scheme not in ("http", "https") or not self.host:
            raise InputError("URL: http://host:port or https://host, with or without /v1")
        if split.username or split.password or split.query or split.fragment:
            raise InputError("URL: without user, password and query; a key goes into OPENAI_API_KEY")
        if not all("!" <= letter <= "~" for letter in key):
            raise InputError("OPENAI_API_KEY holds something that is no key: spaces, line ends or foreign letters")
        self.path = split.path.rstrip("/").removesuffix("/v1")
        self.secure = ssl.create_default_context() if split.scheme == "https" else None

    def request(self, method, endpoint, body=None):
        """(HTTP status, reply as bytes). Raises the errors in LOST."""
        tls = {"context": self.secure} if self.secure else {}
        connection_class = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = connection_class(self.host, self.port, timeout=self.timeout, **tls)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, self.path + endpoint, body, headers)
            response = connection.getresponse()
            return response.status, response.read(REPLY)
        finally:
            connection.close()

    def ask(self, endpoint, body):
        """(None, tokens of the answer or None if the server does not report them), or (kind of failure, None)."""
        try:
            status, reply = self.request("POST", endpoint, body)
        except LOST as error:
            return failure(error), None
        if status != http.HTTPStatus.OK:
            return f"HTTP {status}", None
        try:
            completion = json.loads(reply)
            if not completion["choices"]:
                return "no answer in the reply", None
        except (ValueError, TypeError, KeyError, RecursionError):
            return "no answer in the reply", None
        usage = completion.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return None, tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else None

    def model(self):
        """Name of the first model that the server lists. Raises InputError."""
        try:
            return str(self.checked("GET", "/v1/models")["data"][0]["id"])
        except (TypeError, KeyError, IndexError):
            raise InputError(f"{self.url} names no model at /v1/models: give it with --model") from None

    def warm_up(self, endpoint, body):
        """Send one request that does not count, because the first is slower. Raises InputError if it fails."""
        reply = self.checked("POST", endpoint, body)
        if not isinstance(reply, dict) or not reply.get("choices"):
            raise InputError(f"{self.url} is not OpenAI-compatible: {endpoint} answers without choices")

    def checked(self, method, endpoint, body=None):
        """The reply's JSON value. Raises InputError with the server's own error message, the key removed from it."""
        try:
            status, reply = self.request(method, endpoint, body)
        except LOST as error:
            raise InputError(f"{self.url} cannot be reached ({failure(error)}): is the server running?") from None
        try:
            value = json.loads(reply)
        except (ValueError, RecursionError):
            value = None
        if status == http.HTTPStatus.OK and value is not None:
            return value
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise InputError(f"{self.url} answers HTTP {status}: set OPENAI_API_KEY to a key that it knows")
        try:
            reason = value["error"]["message"]
        except (TypeError, KeyError):
            reason = "is this an OpenAI-compatible server?"
        reason = str(reason).replace(self.key, "…") if self.key else str(reason)
        raise InputError(f"{self.url}: {method} {endpoint} answers HTTP {status}: {reason[:300]}")


def failure(error):
    """The kind of failure under which an exception is counted."""
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
