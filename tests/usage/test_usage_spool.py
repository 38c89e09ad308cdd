"""The spool: what was appended is there after anything, and nothing that was torn comes out of it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from omni.errors import StorageError
from omni.usage.collect import Collector
from omni.usage.spool import (
    MAGIC,
    STALE_SECONDS,
    Batch,
    Spool,
    merged,
    read_segment,
    recover,
    sealed_segments,
)


@pytest.fixture
def batch(home, tenant, event):
    collector = Collector(tenant, oldest_days=None)

    def make(*numbers, bad=()):
        sent = [event(n) for n in numbers] + [event(n, type="unknown") for n in bad]
        return collector.read(json.dumps(sent).encode()).batch

    return make


def ids(segment):
    return segment.rows["event_id"].to_pylist()


def test_batches_come_back_in_order_with_their_letters_and_counts(tmp_path, batch):
    spool = Spool(tmp_path)
    spool.append(batch(1, 2))
    spool.append(batch(bad=[9]))
    spool.append(batch(3))
    assert sealed_segments(tmp_path) == []
    path = spool.seal()
    assert sealed_segments(tmp_path) == [path]
    segment = read_segment(path)
    assert ids(segment) == ["e1", "e2", "e3"]
    assert [letter.key for letter in segment.letters] == ["web|e9"]
    assert segment.cut == 0


def test_an_empty_spool_seals_nothing_and_an_empty_batch_writes_nothing(tmp_path, batch):
    spool = Spool(tmp_path)
    assert spool.seal() is None
    spool.append(merged([batch(), batch()]))
    assert list(tmp_path.iterdir()) == []


def test_merged_batches_are_one_frame_with_everything(tmp_path, batch):
    spool = Spool(tmp_path)
    spool.append(merged([batch(1, bad=[8]), batch(), batch(2, bad=[9])]))
    segment = read_segment(spool.seal())
    assert ids(segment) == ["e1", "e2"]
    assert [letter.key for letter in segment.letters] == ["web|e8", "web|e9"]


def test_every_torn_tail_is_cut_and_what_came_before_stays(tmp_path, batch):
    spool = Spool(tmp_path)
    ends = []
    for n in range(3):
        spool.append(batch(n))
        [path] = tmp_path.glob("*.open")
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    torn = tmp_path / "torn.seg"
    for size in {*range(0, len(whole), 13), *ends, *(end - 1 for end in ends), ends[0] + 1}:
        torn.write_bytes(whole[:size])
        segment = read_segment(torn)
        kept = sum(end <= size for end in ends)
        assert ids(segment) == [f"e{n}" for n in range(kept)]
        assert segment.cut == (size - ends[kept - 1] if kept else max(0, size - len(MAGIC)))


@pytest.mark.parametrize("at", [0, 4, 9, 40, -1])
def test_a_flipped_byte_is_noticed(tmp_path, batch, at):
    spool = Spool(tmp_path)
    spool.append(batch(1))
    [path] = tmp_path.glob("*.open")
    start = path.stat().st_size
    spool.append(batch(2))
    data = bytearray(path.read_bytes())
    data[start + at if at >= 0 else at] ^= 1
    damaged = tmp_path / "damaged.seg"
    damaged.write_bytes(data)
    assert ids(read_segment(damaged)) == ["e1"]


@pytest.mark.parametrize("at", [0, 4, 9, 40, -1])
@pytest.mark.parametrize("sealed", [True, False])
def test_damage_in_the_middle_loses_only_its_own_frame_and_is_told(tmp_path, batch, at, sealed):
    spool = Spool(tmp_path)
    ends = []
    for n in range(3):
        spool.append(batch(n))
        [path] = tmp_path.glob("*.open")
        ends.append(path.stat().st_size)
    if sealed:
        path = spool.seal()
    data = bytearray(path.read_bytes())
    for place in [(ends[0] if at >= 0 else ends[1]) + at] + [ends[1] + 30] * sealed:
        data[place] ^= 1
    path.write_bytes(data)
    segment = read_segment(path)
    # Of a segment that was sealed its last frame was acknowledged whole too.
    assert ids(segment) == (["e0"] if sealed else ["e0", "e2"])
    assert (segment.cut, segment.lost) == (0, ends[2 if sealed else 1] - ends[0])


def test_after_a_seal_whose_folder_could_not_be_synced_nothing_goes_to_the_old_file(tmp_path, batch):
    import resource

    spool = Spool(tmp_path)
    spool.append(batch(1))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # the file is renamed, the folder not opened
    try:
        with pytest.raises(StorageError, match="is sealed, but"):
            spool.seal()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    [sealed] = sealed_segments(tmp_path)
    sealed.unlink()  # as a loader does
    spool.append(batch(2))
    assert ids(read_segment(spool.seal())) == ["e2"]


def test_what_is_too_large_or_too_much_is_refused_before_it_is_kept(tmp_path, batch):
    one = batch(1)
    with pytest.raises(StorageError, match="send fewer"):
        Spool(tmp_path, largest=500).append(one)
    assert list(tmp_path.iterdir()) == []
    spool = Spool(tmp_path, most_bytes=3_000)
    spool.append(one)
    [path] = tmp_path.glob("*.open")
    kept = 1
    while path.stat().st_size + path.stat().st_size // kept < 3_000:
        spool.append(one)
        kept += 1
    with pytest.raises(StorageError, match="is full"):
        spool.append(one)
    assert len(ids(read_segment(spool.seal()))) == kept


def test_a_file_that_never_got_its_name_is_removed_when_it_is_old(tmp_path):
    old, new = tmp_path / ".1.new", tmp_path / ".2.new"
    for path in (old, new):
        path.write_bytes(MAGIC)
    os.utime(old, (0, new.stat().st_mtime - STALE_SECONDS - 60))
    recover(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_a_living_writers_segment_is_left_alone_and_a_dead_ones_is_sealed(tmp_path, batch):
    spool = Spool(tmp_path)
    spool.append(batch(1))
    assert recover(tmp_path) == []
    spool.append(batch(2))
    os.close(spool._handle)  # as the system does when the process dies
    spool._handle = None
    [sealed] = recover(tmp_path)
    assert ids(read_segment(sealed)) == ["e1", "e2"]


def test_a_large_segment_seals_itself(tmp_path, batch):
    spool = Spool(tmp_path, seal_bytes=2_000)
    for n in range(10):
        spool.append(batch(n))
    spool.seal()
    found = [name for path in sealed_segments(tmp_path) for name in ids(read_segment(path))]
    assert found == [f"e{n}" for n in range(10)]
    assert len(sealed_segments(tmp_path)) > 2


def test_many_threads_lose_nothing(tmp_path, batch):
    spool = Spool(tmp_path, seal_bytes=5_000)

    def write(first):
        for n in range(first, first + 20):
            spool.append(batch(n))
            if n % 7 == 0:
                spool.seal()

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 100, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.seal()
    found = [name for path in sealed_segments(tmp_path) for name in ids(read_segment(path))]
    assert sorted(found) == sorted(f"e{n}" for n in range(100))


def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(tmp_path, batch):
    """The limit of file size stands for the full disk: writes fail in the middle of a frame."""
    import resource
    import signal

    spool = Spool(tmp_path)
    spool.append(batch(1))
    [path] = tmp_path.glob("*.open")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        with pytest.raises(StorageError, match="not accepted"):
            spool.append(batch(2, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    spool.append(batch(4))
    spool.seal()
    segments = [read_segment(path) for path in sealed_segments(tmp_path)]
    assert [name for segment in segments for name in ids(segment)] == ["e1", "e4"]
    assert [segment.cut for segment in segments] == [0, 0]


def test_a_folder_that_vanished_is_told(tmp_path, batch):
    spool = Spool(tmp_path / "gone")
    with pytest.raises(StorageError, match="make the folder writable"):
        spool.append(batch(1))


def test_a_file_that_is_no_segment_is_refused(tmp_path):
    path = Path(tmp_path / "x.seg")
    path.write_bytes(b"something else")
    with pytest.raises(StorageError, match="no segment"):
        read_segment(path)


def test_nothing_to_append_makes_no_file(tmp_path, batch):
    empty = batch()
    Spool(tmp_path).append(Batch(empty.rows))
    assert list(tmp_path.iterdir()) == []
