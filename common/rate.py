"""Blind human scores: `python -m common.rate RECORD…` serves a page on this machine that shows the records' answers
in an order of the rater's own, without saying which model wrote which, and keeps every rating at once;
`python -m common.rate RECORD… --report` prints what came of it: mean score (1 to 5) and how far the raters agree.
"""

import getpass
import hashlib
import http.server
import json
import os
import secrets
import sys
import urllib.parse
from pathlib import Path

from common import flags, ratings, records, tables
from common.console import InputError, columns, exit_code, say

LIMIT = 200  # bytes of a rating; the page sends about 40
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Study:
    """What one rater is shown: the answers of all records, shuffled, and the scores given so far.

    items: {id: (record, row, texts)} in the order shown, fixed by rater and item; an id does not tell the record.
    scores: {id: 1 to 5}.
    """

    def __init__(self, paths, rater, file):
        self.rater, self.file = rater, Path(file).resolve()
        self.scores, items, given = {}, {}, ratings.read(self.file)
        for path, rows in ratings.same_rows(paths).items():
            whole, home = Path(path).resolve(), self.file.parent
            record = os.path.relpath(whole, home)  # both may be moved together
            for row, texts in enumerate(rows):
                key = hashlib.sha256(json.dumps([rater, record, row]).encode()).hexdigest()[:16]
                items[key] = (record, row, texts)
                if (str(whole), row, rater) in given:
                    self.scores[key] = given[str(whole), row, rater]
        self.items = dict(sorted(items.items()))

    def rate(self, key, score):
        record, row, _ = self.items[key]
        rating = {"record": record, "row": row, "rater": self.rater, "score": score, "rated_at": records.now()}
        ratings.append(self.file, rating)
        self.scores[key] = score

    def shown(self):
        return [{"id": key, **texts, "score": self.scores.get(key)} for key, (_, _, texts) in self.items.items()]

    def left(self):
        return f"{len(self.items) - len(self.scores)} of {len(self.items)} answers are left to rate for {self.rater}"


class Refused(Exception):
    """A request that is not served: HTTP status, reason."""


class Server(http.server.ThreadingHTTPServer):
    """The page of one study, for this machine only."""

    def __init__(self, port, study):
        super().__init__(("127.0.0.1", port), Handler)
        self.study = study
        self.token = secrets.token_urlsafe(16)  # keeps out the machine's other users
        self.page = (Path(__file__).parent / "rate.html").read_text(encoding="utf-8")

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a browser may hang up when it likes
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /?token=…: the page. GET /items: what to rate. POST /rate {"id", "score"}: one rating."""

    timeout = 30  # seconds: a connection on which nothing comes is closed
    server_version, sys_version = "rate", ""

    def do_GET(self):
        self.serve(self.get)

    def do_POST(self):
        self.serve(self.post)

    def serve(self, work):
        self.nonce = secrets.token_urlsafe(12)
        try:
            self.check()
            status, (kind, text) = 200, work()
        except Refused as refused:
            (status, text), kind = refused.args, "text/plain"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value.format(self.nonce))
        self.end_headers()
        self.wfile.write(body)

    def check(self):
        """Refuse what comes neither from the page nor from the printed address. The host is compared because
        any name can be made to lead here, the origin because any page can post here."""
        host, port = self.headers["Host"], self.server.server_port
        if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            raise Refused(403, "this machine has another name")
        if self.headers["Origin"] not in (None, f"http://{host}"):
            raise Refused(403, "this comes from another page")
        self.place, _, query = self.path.partition("?")
        token = self.headers["X-Token"] or urllib.parse.parse_qs(query).get("token", [""])[0]
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "this is not the address that common.rate printed when it was last started")

    def get(self):
        if self.place == "/":
            return "text/html", self.server.page.replace("NONCE", self.nonce)
        if self.place == "/items":
            return "application/json", json.dumps(self.server.study.shown())
        raise Refused(404, "there is nothing here")

    def post(self):
        length = self.headers["Content-Length"] or ""
        if self.place != "/rate":
            raise Refused(404, "there is nothing here")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "send application/json")
        if not length.isdecimal() or int(length) > LIMIT:
            raise Refused(413, f"send a Content-Length of at most {LIMIT}")
        try:
            sent = json.loads(self.rfile.read(int(length)))
            key, score = sent["id"], sent["score"]
            known = key in self.server.study.items
        except (ValueError, TypeError, KeyError):
            raise Refused(400, "send an id and a score") from None
        if not known:
            raise Refused(404, "no such answer; reload the page")
        if not ratings.is_score(score):
            raise Refused(400, "a score is 1, 2, 3, 4 or 5")
        try:
            self.server.study.rate(key, score)
        except OSError as error:
            raise Refused(500, f"{self.server.study.file.name}: {error.strerror}") from None
        return "application/json", json.dumps({"score": score})

    def log_message(self, *words):
        """Nothing: the address stays in sight."""


def report(paths, file):
    """One row a record: human score, ratings, raters, agreement."""
    if not Path(file).is_file():
        raise InputError(f"no ratings in {file}: rate first, without --report, or name the file with --scores")
    given = ratings.read(file)
    rows = [["record", "human score, 1-5 (95 % interval)", "rows", "ratings", "raters", "alpha", "kappa"]]
    for path in paths:
        records.checked(path)
        score = ratings.human(path, given)
        counts = [str(score[name]) for name in ("n", "ratings", "raters")]
        agreed = ["-" if score[name] is None else f"{score[name]:.3f}" for name in ("alpha", "kappa")]
        rows.append([path, tables.figure(score), *counts, *agreed])
    say(columns(rows))
    say("alpha: Krippendorff's, ordinal; kappa: Cohen's, quadratically weighted, of two raters")


def serve(paths, rater, port, file):
    """The page until Ctrl-C."""
    study = Study(paths, rater, file)
    try:
        open(file, "ab").close()
    except OSError as error:
        raise InputError(f"cannot write ratings to {file}: {error.strerror}; name a file with --scores") from None
    try:
        server = Server(port, study)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port}: {error}; name another with --port") from None
    say(f"{study.left()}; ratings go to {file}; Ctrl-C ends")
    say(f"open http://127.0.0.1:{server.server_port}/?token={server.token}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say(f"\n{study.left()}; the same command goes on")
    finally:
        server.server_close()


def user():
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        raise InputError("your name is not known here: give it with --rater") from None


def main():
    parser = flags.Parser(description=__doc__)
    parser.add_argument("records", nargs="+", metavar="RECORD", help="records of runs on the same test rows")
    parser.add_argument("--rater", metavar="NAME", help="whose ratings they are (default: your user name)")
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="0: any that is free (default: 8765)")
    parser.add_argument(
        "--scores",
        metavar="FILE",
        help=f"ratings (default: {ratings.FILE} beside the first record, where tables look)",
    )
    parser.add_argument("--report", action="store_true", help="print the scores so far instead")
    args = parser.parse_args()
    file = args.scores or Path(args.records[0]).parent / ratings.FILE
    if args.report:
        report(args.records, file)
    else:
        serve(args.records, args.rater or user(), args.port, file)


if __name__ == "__main__":
    sys.exit(exit_code(main))
