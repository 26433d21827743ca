"""The error that ends a command: one line, also under torchrun, where it ends all processes."""

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from s2mlp_cuda._terminal import printable

if TYPE_CHECKING:
    from torch.distributed import Store

#: How long a process waits for the report of another one.
_PATIENCE = timedelta(seconds=10)


def _store() -> "Store | None":
    """The store that torchrun shares with the processes that it started; None without one, or for a single process."""
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or environment.get("WORLD_SIZE") == "1":
        return None
    from torch.distributed import PrefixStore, TCPStore

    try:
        store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    except RuntimeError:  # torchrun has ended
        return None
    return PrefixStore(f"s2mlp_cuda/{environment.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _is_printed(store: "Store") -> bool:
    """Waits for a report."""
    try:
        store.wait(["printed"], _PATIENCE)
    except RuntimeError:  # none in time
        return False
    return True


def report(message: object) -> None:
    """Prints the error that ends this process to the standard error. Under torchrun, the first of all processes to call this prints
    its own; the others wait for it, since torchrun stops all processes when one has ended."""
    store = _store()
    if store is None or store.add("claimed", 1) == 1:
        print(printable(message), file=sys.stderr, flush=True)
        if store is not None:
            store.set("printed", "")
    else:
        _is_printed(store)


def is_reported_elsewhere() -> bool:
    """Whether another process has reported an error, whose end is then the cause of errors of communication here."""
    store = _store()
    return store is not None and _is_printed(store)
