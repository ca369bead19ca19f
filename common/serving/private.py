"""What keeps a local server to itself: which requests it refuses, and the headers of its pages."""

import secrets

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page_headers():
    """(nonce, headers) of a reply. Scripts and styles with the nonce run alone, and the page reaches its own server."""
    nonce = secrets.token_urlsafe(12)
    return nonce, {name: value.format(nonce) for name, value in HEADERS.items()}


def foreign(headers, port):
    """Why a request is not for this server on 127.0.0.1, in words; None if it is. Any host name can be resolved to this
    machine, and any web page can post here."""
    host = headers.get("host")
    if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
        return f"this is 127.0.0.1:{port} and has no other name"
    if headers.get("origin") not in (None, f"http://{host}"):
        return "this comes from a web page"
    return None
