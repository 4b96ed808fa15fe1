"""Limits on decompression, against decompression bombs."""

from timebox.errors import DataError

MAX_BYTES = 64 << 30
UNLIMITED_RATIO_BYTES = 64 << 20  # up to this size any ratio is accepted: blank images compress a thousandfold
MAX_RATIO = 200  # photographs compress to 1/2, MNIST to 1/5, drawings to 1/50


def check_unpacked(num_bytes: int, packed_bytes: int, source: str) -> None:
    """Raise DataError, naming `source`, where its `packed_bytes` unpack to more bytes than real data would."""
    if num_bytes > min(MAX_BYTES, max(UNLIMITED_RATIO_BYTES, packed_bytes * MAX_RATIO)):
        raise DataError(
            f"{source}: unpacks from {packed_bytes:,} bytes to {num_bytes:,} or more, which looks like a decompression "
            f"bomb: at most {MAX_RATIO} times the size is read, and {MAX_BYTES:,} bytes; unpack it yourself if you "
            "trust it"
        )
