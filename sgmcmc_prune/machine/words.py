"""How the ranks of a run find each other, and what they leave for each other when they end: in the launcher's store.

The store outlives the ranks. One that fails leaves its reason there, so that the others can say which rank ended, and
why; one that was killed leaves nothing, and is named by that.
"""

import json
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

#: Seconds in which ranks that have lost another leave a word, and between two looks for one.
LAST_WORDS, LOOK = 3.0, 0.05


class Words:
    """What the ranks of a run leave for each other when they end, in a store that outlives them.

    Parameters
    ----------
    store : Store
        Of the launcher.
    meeting : str
        Names this start of the ranks among all those under one launcher.
    rank : int
    """

    def __init__(self, store: Any, meeting: str, rank: int) -> None:
        self._all, self._now, self.rank = store, dist.PrefixStore(meeting, store), rank
        self._now.set(f"host {rank}", socket.gethostname())
        self.hosts: list[str] = []

    def leave(self, word: str, refused: bool = False) -> None:
        """Say why this rank ends; `refused` ones are not started anew."""
        with _store_may_be_gone():
            self._now.set(f"word {self.rank}", word)
            if refused:
                self._all.set("refused", word)

    def of(self, ranks: Sequence[int]) -> dict[int, str | None]:
        """What these ranks have said, once all have or it is late; None of those that have said nothing."""
        found: dict[int, str | None] = dict.fromkeys(ranks)
        deadline = time.monotonic() + LAST_WORDS
        with _store_may_be_gone():
            while None in found.values() and time.monotonic() < deadline:
                for rank in (rank for rank, word in found.items() if word is None):
                    found[rank] = self._read(f"word {rank}")
                time.sleep(LOOK)
        return found

    def learn_hosts(self, size: int) -> None:
        """Read where the ranks are, once all are here."""
        self.hosts = [self._now.get(f"host {rank}").decode() for rank in range(size)]

    def place(self, rank: int) -> str:
        """A rank and its host, in words."""
        return f"rank {rank} on {self.hosts[rank]}"

    def _read(self, key: str) -> str | None:
        return self._now.get(key).decode() if self._now.check([key]) else None


@contextmanager
def _store_may_be_gone() -> Iterator[None]:
    """The launcher's store may end with its host; then nothing can be said, and the ranks end all the same."""
    with suppress(dist.DistError):
        yield


def meet(store: Any, rank: int, size: int) -> str:
    """Agree with the other ranks on a name for this meeting, whatever dead ones have left in the store.

    Each rank says that it is here, under a number that nobody had before; the first says whom it sees, under a number
    of its own, which is the name once every other has found itself among them.
    """
    mine = uuid.uuid4().hex
    others = range(1, size)
    while True:
        if rank == 0:
            seen = {r: store.get(f"here {r}").decode() for r in others if store.check([f"here {r}"])}
            store.set("meeting", json.dumps([mine, list(seen.values())]))
            if all(store.check([f"{mine} {r}"]) for r in others):
                return mine
        else:
            store.set(f"here {rank}", mine)
            name, seen_by_first = json.loads(store.get("meeting"))
            if mine in seen_by_first:
                store.set(f"{name} {rank}", "")
                return str(name)
        time.sleep(LOOK)
