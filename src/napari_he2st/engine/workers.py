"""Several batches at a time, each on a core of its own, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def in_order(function: Callable[[A], B], items: Iterable[A], n_workers: int) -> Iterator[B]:
    """Results of ``function(item)``, in the order of the items.

    Parameters
    ----------
    function
        Called in ``n_workers`` threads, in which torch uses one core each; with a single worker in this thread, as
        torch is set.
    items
        Taken in this thread, one more than there are workers ahead of the results.
    n_workers
        How many.
    """
    if n_workers < 2:
        yield from map(function, items)
        return
    threads = torch.get_num_threads()
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(n_workers, "he2st-model", torch.set_num_threads, (1,)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > n_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when the caller stops early
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)  # setting it in a thread also sets it for threads to come
