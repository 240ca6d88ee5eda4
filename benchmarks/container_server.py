"""A model server in an image, of what the loader needs alone: transformers, and the standard library's HTTP.

    container_server.py MODEL PORT

`GET /health` answers once the model is loaded; `GET /generate` answers the id of the next token.
"""

from __future__ import annotations

import http.server
import sys

import torch  # type: ignore[import-not-found]
from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[import-not-found]

PROMPT = "The quick brown fox"


def main(path: str, port: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self.answer("ok")
                return
            with torch.inference_mode():
                logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits
            self.answer(str(int(logits[0, -1].argmax())))

        def answer(self, text: str) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Write nothing: a request is none of the figures."""

    http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
