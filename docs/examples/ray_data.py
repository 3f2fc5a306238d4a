"""Upscale images with Ray Data, on this machine or on a cluster.

Usage: python ray_data.py IMAGES OUT [MODEL], where IMAGES and OUT are folders or addresses.
"""

import sys

import ray

import cascade


def main(pictures: str, out: str, model: str = "photo-x4-restore") -> None:
    files = ray.data.read_binary_files(pictures, include_paths=True)  # columns bytes and path
    upscale = cascade.Upscaler(model, root=pictures, out=out)
    rows = files.map_batches(upscale, batch_size=4).take_all()
    failed = [row for row in rows if row["error"]]
    print(f"{len(rows) - len(failed)} upscaled, {len(failed)} failed")
    for row in failed:
        print(f"{row['name']}: {row['error']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
