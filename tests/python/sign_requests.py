"""Hook of schemathesis: signs each request with the shared key, as the server checks it.

Read by `schemathesis` from SCHEMATHESIS_HOOKS; account and key come from PIECEWORK_ACCOUNT and PIECEWORK_KEY.
Leaves counts.json behind: how many answers came, and how many of them refused the signature.
"""

import atexit
import base64
import email.utils
import hashlib
import hmac
import json
import os
import urllib.parse

import schemathesis

SIGNED = (
    "Content-Encoding Content-Language Content-Length Content-MD5 Content-Type Date "
    "If-Modified-Since If-Match If-None-Match If-Unmodified-Since Range"
).split()


def sign(request):
    account = os.environ["PIECEWORK_ACCOUNT"]
    headers = request.headers
    headers["ocp-date"] = email.utils.formatdate(usegmt=True)
    lines = [request.method]
    for name in SIGNED:
        value = headers.get(name, "")
        value = value.decode("latin-1") if isinstance(value, bytes) else value
        lines.append("" if (name, value) == ("Content-Length", "0") else value)
    own = {name.lower(): value for name, value in headers.items() if name.lower().startswith("ocp-")}
    lines += [f"{name}:{value.decode('latin-1') if isinstance(value, bytes) else value}" for name, value in sorted(own.items())]
    path, _, query = request.path_url.partition("?")
    text = "\n".join(lines) + f"\n/{account}{path}"
    values = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        values.setdefault(name.lower(), []).append(value)
    text += "".join(f"\n{name}:{','.join(sorted(values[name]))}" for name in sorted(values))
    digest = hmac.new(base64.b64decode(os.environ["PIECEWORK_KEY"]), text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(digest).decode()}"
    return request


@schemathesis.hook
def before_call(context, case, kwargs):
    kwargs["auth"] = sign


counts = {"answers": 0, "unsigned": 0}


@schemathesis.hook
def after_call(context, case, response):
    counts["answers"] += 1
    counts["unsigned"] += response.status_code in (401, 403)


@atexit.register
def leave():
    with open("counts.json", "w", encoding="utf-8") as file:
        json.dump(counts, file)
