"""Upscale images with Dask, on this machine or on a cluster.

Usage: python dask_workers.py IMAGES OUT [MODEL], where IMAGES and OUT are folders or addresses.
"""

import sys

import fsspec
from distributed import Client

import cascade

BATCH = 4


def main(
    pictures: str, out: str, model: str = "photo-x4-restore", client: Client | None = None
) -> None:
    client = client or Client(threads_per_worker=1)  # or the address of a scheduler
    store, folder = fsspec.url_to_fs(pictures)
    paths = [store.unstrip_protocol(path) for path in store.find(folder)]
    upscale = cascade.Upscaler(model, root=store.unstrip_protocol(folder), out=out)
    batches = [{"path": paths[first : first + BATCH]} for first in range(0, len(paths), BATCH)]
    for result in client.gather(client.map(upscale, batches)):
        for name, error in zip(result["name"], result["error"], strict=True):
            print(f"{name}: {error or 'upscaled'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
