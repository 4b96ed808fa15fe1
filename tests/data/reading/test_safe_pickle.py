import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest

from timebox.data.reading import safe_pickle
from timebox.data.reading.safe_pickle import load_pickled_dict
from timebox.errors import DataError

PLANES = np.arange(12, dtype=np.uint8).reshape(3, 4)


class Calling:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def refused(content, words, protocol=2):
    with pytest.raises(DataError, match=words):
        load_pickled_dict(pickle.dumps(content, protocol=protocol), "batch_1")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_the_content_of_cifar_files(protocol):
    content = {b"data": PLANES, "labels": [0, 1, 300], b"filenames": [b"a.png"]}
    loaded = load_pickled_dict(pickle.dumps(content, protocol=protocol), "batch_1")
    assert set(loaded) == {"data", "labels", "filenames"}
    assert np.array_equal(loaded["data"], PLANES)
    assert loaded["labels"] == [0, 1, 300]


def test_pickles_of_python_2_and_old_numpy():
    blob = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03"
        b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06abcdef"
        b"tbs."
    )
    assert load_pickled_dict(blob, "batch_1")["data"].tobytes() == b"abcdef"


def test_column_major_arrays_keep_their_order():
    loaded = load_pickled_dict(pickle.dumps({"data": np.asfortranarray(PLANES)}, protocol=2), "batch_1")
    assert np.array_equal(loaded["data"], PLANES)


@pytest.mark.parametrize("protocol", range(5))
def test_a_system_call_is_refused_by_name_and_not_executed(tmp_path, protocol):
    victim = tmp_path / "victim"
    call = Calling(os.system, f"touch {victim}")
    refused(
        {"data": call}, f"batch_1: this pickle asks for {os.system.__module__}.system, which no CIFAR file", protocol
    )
    assert not victim.exists()


@pytest.mark.parametrize(
    ("blob", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__builtin__\ngetattr\n(cos\nsystem\nS'x'\ntR.", "__builtin__.getattr"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromstring\n.", "numpy.core.multiarray.fromstring"),
        (b"(ios\nsystem\n.", "os.system"),
        (b"\x82\x01.", "registered extension 1"),
        (b"Pname\n.", "persistent object"),
    ],
)
def test_every_other_global_is_refused_by_name(blob, name):
    with pytest.raises(DataError, match=f"{name}, which no CIFAR file holds; refused"):
        load_pickled_dict(blob, "batch_1")


def test_allowed_globals_cannot_be_misused():
    refused({"data": np.array([None])}, "dtype .*O8.*only bytes")
    refused({"data": np.zeros(3)}, "dtype .*f8")
    with pytest.raises(DataError, match=r"calls numpy\.ndarray; refused"):
        load_pickled_dict(b"cnumpy\nndarray\n(I1000000000000\ntR.", "batch_1")
    with pytest.raises(DataError, match="sets the state of a Global"):
        load_pickled_dict(b"cnumpy\nndarray\n}S'a'\nI1\nsb.", "batch_1")
    with pytest.raises(DataError, match="encoding 'rot13'"):
        load_pickled_dict(b"c_codecs\nencode\n(Vab\nVrot13\ntR.", "batch_1")


def test_an_array_larger_than_its_bytes_is_refused():
    blob = pickle.dumps({"data": PLANES}, protocol=2).replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fK\x04\x86")
    with pytest.raises(DataError, match=r"shape \(2147483647, 4\), but 12 bytes"):
        load_pickled_dict(blob, "batch_1")


LONG_INTEGER = b"\x8b" + (400_000).to_bytes(4, "little") + b"\x01" * 400_000


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        pytest.param(b"(" + LONG_INTEGER + b"q\xf0" + b"h\xf0" * 30 + b"t", "not a whole pickle", id="long integers"),
        pytest.param(b"(J\xff\xff\xff\x7fq\xf0" + b"h\xf0" * 150_000 + b"t", "shape .*but 12 bytes", id="dimensions"),
        pytest.param(b"(K\x0c" + b"K\x01" * 150_000 + b"t", "shape .*but 12 bytes", id="dimensions of 1"),
    ],
)
def test_a_shape_that_takes_minutes_to_multiply_is_refused_at_once(shape, words):
    blob = pickle.dumps({"data": PLANES}, protocol=2)
    assert blob.count(b"K\x03K\x04\x86") == 1
    started = time.process_time()
    with pytest.raises(DataError, match=words):
        load_pickled_dict(blob.replace(b"K\x03K\x04\x86", shape), "batch_1")
    assert time.process_time() - started < 2


def test_an_array_without_content_is_refused():
    blob = b"}S'data'\ncnumpy.core.multiarray\n_reconstruct\n(tRs."
    with pytest.raises(DataError, match="array without content"):
        load_pickled_dict(blob, "batch_1")


def test_a_huge_memo_index_allocates_nothing():
    tracemalloc.start()
    try:
        load_pickled_dict(b"\x80\x02}r\xff\xff\xff\x7f.", "batch_1")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def text_of(length, character="a", protocol=2):
    """A pickle of a long text that ends in a character."""
    return pickle.dumps("a" * length + character, protocol)


ENCODE = b"c_codecs\nencode\nq\x00X\x00\x00\x01\x00" + b"a" * 65_536 + b"q\x01U\x06latin1q\x02"
HUGE = [
    pytest.param(b"\x80\x05\x96" + (1 << 32).to_bytes(8, "little"), "bytearray", id="bytearray"),
    pytest.param(b"\x80\x04\x8e" + (1 << 32).to_bytes(8, "little"), "truncated", id="bytes"),
    pytest.param(b"\x80\x04\x8d" + (1 << 32).to_bytes(8, "little"), "truncated", id="text"),
    pytest.param(b"\x80\x04\x95" + (1 << 32).to_bytes(8, "little"), "truncated", id="frame"),
    pytest.param(b"\x80\x02\x8b" + (1 << 30).to_bytes(4, "little"), "truncated", id="whole number"),
    pytest.param(b"\x80\x02]" + b"]a" * 20_000, "more than 10,000 operations, more than any CIFAR", id="nested lists"),
    pytest.param(b"\x80\x02]" + b"2a" * 20_000, "more than 10,000 operations", id="a list in itself"),
    pytest.param(b"\x80\x02" + b"(" * 20_000, "more than 10,000 operations", id="marks"),
    pytest.param(b"\x80\x02" + b"}" * 20_000, "more than 10,000 operations", id="dictionaries"),
    pytest.param(b"\x80\x02" + ENCODE + b"h\x00h\x01h\x02\x86R" * 999, "encodes more text than it holds", id="encode"),
    pytest.param(text_of(70_000, "\u0100"), "a text of 70,002 bytes with characters that are no bytes", id="wide"),
    pytest.param(text_of(70_000, "\U0001f600", 4), "a text of 70,004 bytes with characters", id="wider, protocol 4"),
    pytest.param(text_of(70_000, "\u0100", 0), "a text of 70,006 bytes with characters", id="wide, protocol 0"),
]


@pytest.mark.parametrize(("blob", "words"), HUGE)
def test_a_small_pickle_takes_little_memory(monkeypatch, blob, words):
    monkeypatch.setattr(safe_pickle, "_MAX_OPERATIONS", 10_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"^batch_1: .*{words}"):
            load_pickled_dict(blob + b".", "batch_1")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_holds_a_whole_cifar_file(protocol):
    names = [f"{number}.png".encode() for number in range(2_000)]
    planes = np.arange(400_000, dtype=np.uint32).astype(np.uint8).reshape(100, 4_000)
    loaded = load_pickled_dict(pickle.dumps({"data": planes, "filenames": names}, protocol), "batch_1")
    assert np.array_equal(loaded["data"], planes)
    assert loaded["filenames"] == names


def test_truncated_damaged_and_other_pickles_are_refused():
    blob = pickle.dumps({"data": PLANES}, protocol=2)
    for end in (0, 1, 10, len(blob) // 2, len(blob) - 1):
        with pytest.raises(DataError, match="batch_1: not a whole pickle"):
            load_pickled_dict(blob[:end], "batch_1")
    refused([1, 2], "batch_1: it holds a list, not a dictionary")
    refused({3: 4}, "key 3, not a string")
    with pytest.raises(DataError, match="not a whole pickle"):
        load_pickled_dict(b"no pickle at all", "batch_1")


def test_keys_that_take_years_to_hash_are_refused():
    nested = b"I1\n" + b"".join(b"p%d\n0(g%d\ng%d\nt" % (k, k, k) for k in range(60))
    for blob in (b"}" + nested + b"I1\ns.", b"}(" + nested + b"I1\nu.", b"(" + nested + b"I1\nd."):
        with pytest.raises(DataError, match="not a string"):
            load_pickled_dict(blob, "batch_1")
    for blob in (b"\x80\x04\x8f.", b"\x80\x04(I1\n\x91."):
        with pytest.raises(DataError, match="holds a set, which no CIFAR file does"):
            load_pickled_dict(blob, "batch_1")
