"""A Zarr store on the local disk in which every chunk is whole or absent, also after a power cut."""

import asyncio
from typing import Any

from zarr.storage import LocalStore

from sgmcmc_prune.store.files import atomic_path


class DurableStore(LocalStore):
    """`LocalStore` writing each key under a temporary name, flushed to disk, then renamed.

    Zarr renames too (since 3.1.3) but does not flush, so a power cut could leave an empty chunk behind its new name.
    """

    async def set(self, key: str, value: Any) -> None:
        """Write one key.

        Parameters
        ----------
        key : str
        value : zarr Buffer
        """
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Any) -> None:
        """Write one key; newer Zarr calls this one.

        Parameters
        ----------
        key : str
        value : zarr Buffer
        """
        with atomic_path(self.root / key) as partial:
            partial.write_bytes(value.to_bytes())
