"""A small model server, as people write them: FastAPI and uvicorn around a model that transformers loads at the start.

`/health` answers 200 once the model is there, `/generate` gives the next token. Where systemd wants to be told
(Type=notify, sd_notify(3)), it is told at the same moment.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import torch  # type: ignore[import-not-found]
import uvicorn  # type: ignore[import-not-found]
from fastapi import Body, FastAPI  # type: ignore[import-not-found]
from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[import-not-found]

MODEL = os.environ["ENGINE_MODEL"]
loaded: dict[str, Any] = {}


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    loaded["tokenizer"] = AutoTokenizer.from_pretrained(MODEL)
    loaded["model"] = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto").eval()
    yield


def health() -> dict[str, str]:
    return {"status": "ok"}


def generate(text: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    tokens = loaded["tokenizer"](text, return_tensors="pt")
    with torch.inference_mode():
        logits = loaded["model"](**tokens).logits
    return {"token": loaded["tokenizer"].decode(logits[0, -1].argmax())}


async def tell_systemd() -> None:
    """uvicorn calls it once it serves, and now and then after that."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(b"READY=1", address)


app = FastAPI(lifespan=lifespan)
app.add_api_route("/health", health)
app.add_api_route("/generate", generate, methods=["POST"])

if __name__ == "__main__":
    port = int(os.environ.get("ENGINE_PORT", "8000"))
    uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, callback_notify=tell_systemd)).run()
