"""Data that do not fit: a process that may not hold them all reads each of them once, and its memory stays flat."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE, COUNT, PER_SHARD = 512, 1000, 100  # 0.8 MB each: 790 MB in all
SET = SIDE * SIDE * 3 * COUNT
LIMIT = 640 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all allocations on Linux alone"),
]

READER = """
import json, resource, sys
import numpy as np, torch
from ganvas import parts
from ganvas.engine.feed import Feed
from ganvas.recipe.check import check_node

node, limit, count = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # every allocation counts; maps of read-only files do not

def held():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(lines["RssAnon"].split()[0]) << 10

data = parts.build("dataset", check_node("dataset", node))
feed = Feed(data, 20, 0, torch.device("cpu"), channels_last=False)
seen, before, most = torch.zeros(count), 0, 0
for step in range(count // 20):
    label = next(feed).label
    seen[label] += 1
    before = before or held()
    most = max(most, held())
print(json.dumps({"seen": seen.tolist(), "grown": most - before, "most": most}))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of pixels that do not compress, each labelled with its own number."""
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    for start in range(0, COUNT, PER_SHARD):
        with tarfile.open(folder / f"{start // PER_SHARD:03d}.tar", "w") as tar:
            for number in range(start, start + PER_SHARD):
                file = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "BMP")
                for name, data in ((f"{number:05d}.bmp", file.getvalue()), (f"{number:05d}.cls", b"%d" % number)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    assert sum(each.stat().st_size for each in folder.iterdir()) > SET
    return folder


@pytest.fixture(scope="module")
def tables(shards: Path) -> Path:
    """The same images as Parquet files and as Arrow files."""
    pytest.importorskip("datasets", reason="needs the extra datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    for kind in ("parquet", "arrow"):
        (shards.parent / kind).mkdir()
    for shard in sorted(shards.iterdir()):
        with tarfile.open(shard) as tar:
            rows = [tar.extractfile(info).read() for info in tar if info.name.endswith(".bmp")]
        label = [int(shard.stem) * PER_SHARD + each for each in range(len(rows))]
        table = pa.table({"image": pa.array(rows, pa.large_binary()), "label": label})
        pq.write_table(
            table, shards.parent / "parquet" / f"{shard.stem}.parquet", compression="none", row_group_size=25
        )
        with pa.ipc.new_stream(str(shards.parent / "arrow" / f"{shard.stem}.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=25)
    return shards.parent


def run_under(limit: int, keys: dict) -> subprocess.CompletedProcess[str]:
    node = {"size": 16, **keys}
    return subprocess.run(
        [sys.executable, "-c", READER, json.dumps(node), str(limit), str(COUNT)],
        capture_output=True, text=True, timeout=300,
        # Arrow's own allocator sets a gigabyte of addresses aside at its start, used or not.
        env={**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip


def read_under(limit: int, keys: dict) -> dict:
    """What a process found that may allocate `limit` bytes, torch and all."""
    done = run_under(limit, keys)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "keys", [{"use": "webdataset"}, {"use": "webdataset-stream", "classes": COUNT, "block": 50}], ids=lambda k: k["use"]
)
def test_shards_larger_than_the_process_may_be(shards: Path, keys: dict) -> None:
    assert LIMIT < SET
    found = read_under(LIMIT, {**keys, "path": str(shards)})
    assert found["seen"] == [1.0] * COUNT  # all of it was read
    assert found["grown"] < SET / 5


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("arrow", {"use": "huggingface"}), ("parquet", {"use": "huggingface-stream", "classes": COUNT, "block": 20})],
)
def test_tables_larger_than_the_process_may_be(tables: Path, kind: str, keys: dict) -> None:
    found = read_under(LIMIT, {**keys, "path": str(tables / kind)})
    assert found["seen"] == [1.0] * COUNT
    assert found["grown"] < SET / 5


def test_the_limit_bites(shards: Path) -> None:
    keys = {"use": "webdataset-stream", "classes": COUNT, "block": COUNT, "path": str(shards)}  # a block of everything
    done = run_under(LIMIT, keys)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr or "allocate" in done.stderr
