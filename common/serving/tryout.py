"""The page on which a served model can be tried: GET /. It posts to the API beside it, as any other client does."""

import json
from pathlib import Path

from common.encoding import Template
from common.serving import private


def page(served):
    """(html, headers) of the page. served: serve.Served."""
    nonce, headers = private.page_headers()
    before, after = frame(served)
    told = {"name": served.name, "chat": served.format == "chat", "before": before, "after": after}
    data = json.dumps(told).replace("<", "\\u003c")  # a closing tag inside a text ends no script
    html = Path(__file__).with_name("tryout.html").read_text(encoding="utf-8")
    html = html.replace("NONCE", nonce).replace("SERVED", data)
    return html, headers


def frame(served):
    """The wording before and after a text, as the run was trained; (None, None) of an untrained model."""
    if not served.wording:
        return None, None
    template = Template(**served.wording)
    before, _, after = template.filled("\0", served.labels).partition("\0")
    return before, after + (template.cue if served.format == "plain" else "")
