"""Uploads a file, then versions of it that are 90 % equal, and prints what each upload moved. Arguments: size in bytes."""

import os
import random
import sys
import tempfile
import urllib.request
from pathlib import Path

from huggingface_hub import HfApi

size = int(sys.argv[1])
noise = random.Random(7)


def received():
    with urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("opg_hub_received_bytes_total"))


first = noise.randbytes(size)
tenth = size // 10
# One region replaced; ten regions replaced; one region replaced by another that is longer, so that everything after it moves.
one = first[: 4 * tenth] + noise.randbytes(tenth) + first[5 * tenth :]
ten = bytearray(first)
for n in range(10):
    at = n * tenth + tenth // 3
    ten[at : at + tenth // 10] = noise.randbytes(tenth // 10)
moved = first[: 2 * tenth] + noise.randbytes(tenth + 12_345) + first[3 * tenth :]

api = HfApi()
repo = api.create_repo("dedup").repo_id
with tempfile.TemporaryDirectory() as work:
    for name, content in (("first", first), ("one region", one), ("ten regions", bytes(ten)), ("one longer region", moved)):
        path = Path(work) / "file.bin"
        path.write_bytes(content)
        before = received()
        api.upload_file(path_or_fileobj=str(path), path_in_repo="file.bin", repo_id=repo)
        print(f"{name}\t{received() - before}\t{len(content)}", flush=True)
        down = api.hf_hub_download(repo, "file.bin", local_dir=Path(work) / "down", force_download=True)
        assert Path(down).read_bytes() == content, name
