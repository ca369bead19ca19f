"""A picture of the page by an installed Chromium, with the hash of its figures inside."""

import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

from common.console import InputError

NAMES = ("chromium", "chromium-browser", "google-chrome")
SIZE = (1120, 930)  # CSS pixels
DATASET = "classification"
QUESTION = f"#data={DATASET}&gb=12&usd=2&labels=500&licence=free"  # the one that the picture shows
SECONDS = 60  # limit of the time that the browser takes
KEY, BEGIN = b"Description", b"\x89PNG\r\n\x1a\n"


def browser():
    return next(filter(None, map(shutil.which, NAMES)), None)


def check(path):
    """Raises InputError without a browser, or if the picture at `path` is not one of this command."""
    if browser() is None:
        raise InputError(f"no browser for --screenshot: install one of {', '.join(NAMES)}, or leave the flag out")
    if not path.parent.is_dir():
        raise InputError(f"no folder {path.parent}; name another --screenshot")
    if os.path.lexists(path) and stamp_of(path) is None:
        raise InputError(f"{path} is no picture of this command: name another --screenshot")


def take(page, path, stamp):
    """Write the picture of the file `page` to `path`. stamp: build.stamp. Raises InputError if the browser fails."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "page.png")
        words = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--force-color-profile=srgb"]
        words += ["--no-sandbox"] * (os.geteuid() == 0)  # Chromium refuses root otherwise; the page is our own file
        words += [f"--user-data-dir={folder}/profile", f"--screenshot={shot}", "--window-size={},{}".format(*SIZE)]
        address = page.resolve().as_uri() + QUESTION
        try:
            subprocess.run([browser(), *words, address], capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise InputError(f"the browser took more than {SECONDS} s: leave --screenshot out") from None
        if not shot.is_file():
            raise InputError("the browser made no picture: leave --screenshot out")
        text = KEY + b"\0" + stamp.encode()
        chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
        png, head = shot.read_bytes(), len(BEGIN) + 25  # behind the first chunk, the size of the picture
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(png[:head] + chunk + png[head:])
        os.replace(temporary, path)


def stamp_of(path):
    """The hash of figures in a picture; None if it is not a picture of this command."""
    start = Path(path).read_bytes()[:300] if Path(path).is_file() else b""
    mark = b"tEXt" + KEY + b"\0"
    return start.split(mark)[1][:64].decode() if start.startswith(BEGIN) and mark in start else None
