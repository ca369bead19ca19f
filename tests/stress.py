"""`python -m common serve` under load: many clients for minutes, slow ones and broken requests between them.

    python smollm2/smollm2_summarization.py --demo --precision float32 --no_before --output_dir RUN
    python tests/stress.py RUN --clients 50 --minutes 10 --output assets/stress.json

Every whole request must be answered as it is when it is asked alone; the server's memory must not grow. RUN was scored
in float32, so that an answer does not depend on its batch.
"""

import argparse
import collections
import http.client
import json
import os
import random
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import test_serve

from common import files
from common.runs import records

TOKENS = 16
KINDS = {"whole": 70, "streamed": 15, "slow": 5, "hangs up": 5, "broken": 5}  # in % of the requests
BROKEN = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b'POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n{"prompt"',
    b"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999\r\n\r\n{}",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
)


class Clients:
    """What all clients share: the address, the right answers, what came of their requests."""

    def __init__(self, server, ends_at):
        self.port, self.ends_at = server.port, ends_at
        self.right = {
            text: server.complete(text, max_tokens=TOKENS)[2]["choices"][0]["text"] for text in test_serve.TEXTS
        }
        self.counted, self.seconds, self.lock = collections.Counter(), [], threading.Lock()

    def client(self, seed):
        drawn = random.Random(seed)
        while time.monotonic() < self.ends_at:
            (kind,) = drawn.choices(list(KINDS), KINDS.values())
            text, began = drawn.choice(list(self.right)), time.monotonic()
            try:
                came = getattr(self, kind.replace(" ", "_"))(text, drawn)
            except OSError as error:
                came = f"no answer ({type(error).__name__})"
            with self.lock:
                self.counted[kind, came] += 1
                if came == "right":
                    self.seconds.append(time.monotonic() - began)

    def judged(self, text, answer):
        return "right" if answer == self.right[text] else "another answer"

    def body(self, text, **more):
        return json.dumps({"prompt": text, "max_tokens": TOKENS, **more}).encode()

    def asked(self, text, **more):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST", "/v1/completions", self.body(text, **more))
        return connection, connection.getresponse()

    def whole(self, text, drawn):
        connection, reply = self.asked(text)
        value = json.loads(reply.read())
        connection.close()
        return self.judged(text, value["choices"][0]["text"]) if reply.status == 200 else f"status {reply.status}"

    def streamed(self, text, drawn):
        connection, reply = self.asked(text, stream=True)
        if reply.status != 200:
            return f"status {reply.status}"
        events = [line.removeprefix(b"data: ") for line in reply.read().splitlines() if line]
        connection.close()
        if not events or events[-1] != b"[DONE]":
            return "cut short"
        return self.judged(text, "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]))

    def slow(self, text, drawn):
        """The request comes in ten pieces within four seconds."""
        body = self.body(text)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: {len(body)}\r\n\r\n"
        sent = head.encode() + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            for part in range(10):
                connection.sendall(sent[len(sent) * part // 10 : len(sent) * (part + 1) // 10])
                time.sleep(0.4)
            reply = http.client.HTTPResponse(connection)
            reply.begin()
            value = json.loads(reply.read())
        return self.judged(text, value["choices"][0]["text"]) if reply.status == 200 else f"status {reply.status}"

    def hangs_up(self, text, drawn):
        connection, reply = self.asked(text, stream=True)
        reply.read(1)
        connection.close()
        return "left"

    def broken(self, text, drawn):
        host = f"127.0.0.1:{self.port}".encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(drawn.choice(BROKEN).replace(b"{host}", host))
            reply = connection.makefile("rb").readline()
        status = reply.split()[1].decode() if reply else None
        return "refused" if status is None or status.startswith("4") else f"status {status}"


def resident(process):
    """(MB of memory, open files) of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
    size = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return size / 1000, len(os.listdir(f"/proc/{process.pid}/fd"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="record of a trained run, or its folder")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", help="write what was counted there, as JSON")
    args = parser.parse_args()
    server, samples = test_serve.Server(args.run, "--max_waiting", 2 * args.clients), []
    try:
        shared = Clients(server, time.monotonic() + 60 * args.minutes)
        threads = [threading.Thread(target=shared.client, args=(seed,)) for seed in range(args.clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            samples.append(resident(server.process))
            time.sleep(2)
        time.sleep(5)  # connections end
        idle = resident(server.process)
        assert server.complete(test_serve.TEXTS[0], max_tokens=TOKENS)[0] == 200
    finally:
        server.kill()
    third = len(samples) // 3
    memory = [max(size for size, _ in part) for part in (samples[:third], samples[-third:])]
    seconds = sorted(shared.seconds)
    found = {
        "command": f"python tests/stress.py RUN --clients {args.clients} --minutes {args.minutes:g}",
        "device": records.environment()["device"],
        "date": records.now()[:10],
        "requests": {
            kind: {came: n for (of, came), n in sorted(shared.counted.items()) if of == kind} for kind in KINDS
        },
        "latency_s": {f"p{share}": seconds[len(seconds) * share // 100] for share in (50, 90, 99)},
        "memory_mb": {"first third": memory[0], "last third": memory[1]},
        "open_files": {"at most": max(n for _, n in samples), "afterwards": idle[1]},
    }
    print(json.dumps(found, indent=1))
    if args.output:
        files.write_json(args.output, found)
    lost = {key: n for key, n in shared.counted.items() if key[1] not in ("right", "left", "refused")}
    assert not lost, lost
    assert memory[1] < 1.05 * memory[0], memory


if __name__ == "__main__":
    main()
