"""What keeps a local page to itself: the headers of its replies."""

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
