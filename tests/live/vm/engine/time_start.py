"""Prints, as JSON, the `seconds` from `systemctl start UNIT` to the first answer of 200, and that `answer`.

    python3 - UNIT URL [BODY] [--warm]     (on the machine itself, as root)

The unit is stopped first, and the page cache is dropped unless `--warm`. With a BODY the request is a POST.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import time
import urllib.parse

TIMEOUT_S = 900


def asked(url: urllib.parse.SplitResult, body: str | None) -> str | None:
    """The answer's text; None for none, or for another status than 200."""
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", url.path or "/", body, headers)
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("unit")
    parser.add_argument("url", type=urllib.parse.urlsplit)
    parser.add_argument("body", nargs="?")
    parser.add_argument("--warm", action="store_true")
    options = parser.parse_args()
    subprocess.run(["systemctl", "stop", options.unit], check=True)
    assert asked(options.url, options.body) is None, "somebody else answers"
    if not options.warm:
        subprocess.run(["sync"], check=True)
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
    started = time.monotonic()
    subprocess.run(["systemctl", "start", "--no-block", options.unit], check=True)
    while (answer := asked(options.url, options.body)) is None:
        if time.monotonic() - started > TIMEOUT_S:
            sys.exit(f"no answer after {TIMEOUT_S} s")
        time.sleep(0.2)
    print(json.dumps({"seconds": round(time.monotonic() - started, 2), "answer": json.loads(answer)}))


if __name__ == "__main__":
    main()
