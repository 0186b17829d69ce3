"""The program of a worker process: requests on standard input, answers on standard output, one line
of JSON each.

It loads each model once, keeps the least recently used out, and ends with the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any

import torch

from marey.errors import UserError, VideoError
from marey.web.dispatch import run_task
from marey.web.inspection import BeyondLimitsError
from marey.web.models import ModelShelf
from marey.web.task import CancelledError, ModelError


def main() -> None:
    """Answer requests until standard input ends."""
    threads, nice = int(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to the server's log, not between the answers
    torch.set_num_threads(threads)
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests, stop), daemon=True).start()
    shelf = ModelShelf()
    gc.collect()
    gc.freeze()  # what the imports made stays; looking through it takes .3 s after every answer
    while True:
        request = requests.get()
        stop.clear()
        shelf.views, shelf.device = request["views"], request["device"]
        _say(answers, {"started": True})
        _say(answers, answer(shelf, request, lambda message: _tell(answers, stop, message)))
        _return_memory()


def answer(
    shelf: ModelShelf, request: dict[str, Any], tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Return the last message for a request: {"result": ...}, or {"status": ..., "error": ...}.

    Paths of the server are cut out of what the visitor reads.
    """
    try:
        return {"result": run_task(shelf, request, tell)}
    except CancelledError:
        status, message = 499, "cancelled"
    except ModelError as error:
        status, message = 503, str(error)
    except BeyondLimitsError as error:
        status, message = 413, str(error)
    except VideoError as error:
        status, message = 415, str(error)
    except UserError as error:
        status, message = 400, str(error)
    except MemoryError:
        status, message = 413, "the video needs more memory than there is; shrink or cut it"
    except Exception:
        traceback.print_exc()
        status, message = 500, "this video cannot be answered; the server's log says why"
    return {"status": status, "error": public(message, request)}


def public(message: str, request: dict[str, Any]) -> str:
    """Return a message as one line without the server's paths."""
    named = request.get("shown", {})
    for path in sorted(named, key=len, reverse=True):
        message = message.replace(path, named[path])
    return " ".join(message.split())


def _listen(
    stream: IO[bytes], requests: queue.Queue[dict[str, Any]], stop: threading.Event
) -> None:
    """Pass requests on; the end of the stream is the end of the server, and of this process."""
    for line in stream:
        message = json.loads(line)
        if message == "stop":
            stop.set()
        else:
            requests.put(message)
    os._exit(0)


def _tell(answers: IO[bytes], stop: threading.Event, message: dict[str, Any]) -> None:
    if stop.is_set():
        raise CancelledError
    _say(answers, message)


def _say(answers: IO[bytes], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def _return_memory() -> None:
    """Give freed memory back to the system, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


if __name__ == "__main__":
    main()
