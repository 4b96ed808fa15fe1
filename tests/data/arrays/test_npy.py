import io

import numpy as np
import pytest

from timebox.data.arrays.npy import read_npy

WHOLE = np.arange(6, dtype=np.uint8).reshape(2, 3)


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def read(blob):
    return read_npy(io.BytesIO(blob), len(blob))


def described(header, run_worker=b""):
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + run_worker


@pytest.mark.parametrize("code", ["u1", "<i4", ">i8", "<f4", "?", "<U3", "S4"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 4), (2, 3, 4)])
def test_arrays_saved_by_numpy(code, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(code)
    for laid_out in (array, np.asfortranarray(array)):
        read_back = read(saved(laid_out))
        assert read_back.dtype == array.dtype
        assert read_back.shape == laid_out.shape
        assert np.array_equal(read_back, laid_out)


def test_version_2_of_the_format():
    stream = io.BytesIO()
    np.lib.format.write_array(stream, WHOLE, version=(2, 0))
    assert np.array_equal(read(stream.getvalue()), WHOLE)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "not an array in the .npy format"),
        (b"\x93NUMPY\x07\0", "not an array in the .npy format"),
        (saved(WHOLE)[:-1], "truncated: its header claims 6 bytes, but 5 follow"),
        (saved(WHOLE) + b"x", "longer than its array"),
        (saved(WHOLE)[:40], "its header is not that of an array"),
        (saved(np.array([{}], dtype=object)), "Python objects, which are not unpickled"),
        (saved(np.zeros(2, dtype=[("a", "u1")])), "not that of an array of numbers or strings"),
        (saved(np.zeros(2, dtype="M8[s]")), "neither numbers nor strings"),
        (described("{'descr': '<i3', 'fortran_order': False, 'shape': (2,), }"), "cannot be understood"),
        (described("{'descr': '<U0', 'fortran_order': False, 'shape': (9999999,), }"), "neither numbers nor strings"),
        (described("{'descr': '|u1', 'fortran_order': False, 'shape': (1 2,), }"), "cannot be understood"),
        (described("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}"), "cannot be understood"),
        (described("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 50 + ", 0)}"), "shape is impossible"),
        (described("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 40 + ")}", b"x"), "impossible"),
        (described("__import__('os').system('true')"), "not that of an array of numbers or strings"),
        (described("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,)}"), "but 0 follow"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff", "its header claims 4,294,967,295 bytes, more than 10,000"),
    ],
)
def test_invalid_and_unsupported_content_is_refused(blob, words):
    with pytest.raises(ValueError, match=words):
        read(blob)


def test_a_header_that_exceeds_the_stream_is_refused():
    blob = saved(WHOLE)
    with pytest.raises(ValueError, match="truncated: its header claims 6 bytes, but 4 follow"):
        read_npy(io.BytesIO(blob[:-2]), len(blob))
