"""A pool of worker processes that ends with the command that started it: on Ctrl-C, and when that
is killed."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from marey.errors import killed_workers


@contextmanager
def worker_pool(workers: int, remedy: str) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes; when the block is left by an error or Ctrl-C, jobs that have
    not begun are dropped, and nobody waits for the others.

    Args:
        workers: number of processes.
        remedy: what the user can do where one of them is killed.

    Raises:
        UserError: if a worker is killed.
    """
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        with killed_workers(remedy):
            yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _begin() -> None:
    """Leave Ctrl-C to the process that started this one; ask Linux to end this one with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
