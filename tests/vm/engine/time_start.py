"""Prints the seconds from `systemctl start UNIT` to its first answer of 200 over HTTP, as JSON.

    python3 - UNIT URL [BODY] [--warm]     (on the machine itself, as root)

The unit is stopped before, and the page cache is dropped unless `--warm`. With a BODY the request is a POST.
"""

import http.client
import json
import subprocess
import sys
import time
import urllib.parse

TIMEOUT_S = 900


def answers(url: urllib.parse.SplitResult, body: str) -> bool:
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", url.path, body or None, headers)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--warm"]
    unit, url, body = words[0], urllib.parse.urlsplit(words[1]), words[2] if len(words) > 2 else ""
    subprocess.run(["systemctl", "stop", unit], check=True)
    assert not answers(url, body), "somebody else answers"
    if "--warm" not in sys.argv:
        subprocess.run(["sync"], check=True)
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
    started = time.monotonic()
    subprocess.run(["systemctl", "start", "--no-block", unit], check=True)
    while not answers(url, body):
        if time.monotonic() - started > TIMEOUT_S:
            sys.exit(f"no answer after {TIMEOUT_S} s")
        time.sleep(0.1)
    print(json.dumps(round(time.monotonic() - started, 2)))


if __name__ == "__main__":
    main()
