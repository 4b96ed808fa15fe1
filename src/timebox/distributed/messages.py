"""Messages between the ranks: typed, bounded and signed, in the store of the launcher.

Whoever reaches the launcher's port can write into its store. A message is therefore decoded into the one type that its
receiver expects, by msgspec and never by pickle, and only after its signature has been verified: HMAC-SHA256 with the
key of the run (RFC 2104).
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Any

import msgspec
from msgspec import Struct
from torch.distributed.distributed_c10d import Store

from timebox.errors import UsageError
from timebox.recipes import Recipe, Value, recipe_from

# Largest message, in bytes: configs and plans take a few thousand. The store itself takes up to 8 MiB.
MAX_MESSAGE_BYTES = 1 << 20
_DIGEST_BYTES = hashlib.sha256().digest_size


class Message(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base class of the messages, each of which names its type, so that a receiver may expect one of several."""


class RecipeMessage(Message, frozen=True):
    """A message with a recipe, whose fields may name code of the user's, which the type of a recipe does not express.

    Attributes:
        recipe_fields: all fields of the recipe, by name. UsageError for those that make no recipe.
    """

    recipe_fields: dict[str, Value]

    def __post_init__(self) -> None:
        recipe_from(self.recipe_fields)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return recipe_from(self.recipe_fields)


class MessageChannel:
    """Messages in a store under a common prefix.

    Args:
        store: the launcher's; the prefix is not yet applied.
        key: of the run, the same on every rank.
    """

    def __init__(self, store: Store, prefix: str, key: bytes) -> None:
        self._store, self._prefix, self._key = store, prefix, key

    def send(self, name: str, message: object) -> None:
        """Store a message under a name. Raises RuntimeError where the store does not answer."""
        encoded = msgspec.msgpack.encode(message)
        if len(encoded) > MAX_MESSAGE_BYTES:
            raise UsageError(f"message {name!r} has {len(encoded):,} bytes; ranks send at most {MAX_MESSAGE_BYTES:,}")
        path = self._path(name)
        self._store.set(path, b64encode(self._signature(path, encoded) + encoded).decode())

    def is_sent(self, name: str) -> bool:
        """Whether there is a message under a name, whoever wrote it: :meth:`receive` verifies that."""
        return bool(self._store.check([self._path(name)]))

    def receive(self, name: str, kind: Any) -> Any:
        """The message under a name, of type ``kind``, which may be a union.

        Raises UsageError for a message that was not signed with the key of this run, or has another type. Raises
        RuntimeError where there is none.
        """
        path = self._path(name)
        encoded = _decoded(self._store.get(path))
        signature, encoded = encoded[:_DIGEST_BYTES], encoded[_DIGEST_BYTES:]
        if not hmac.compare_digest(signature, self._signature(path, encoded)):
            raise UsageError(
                f"message {name!r} between the ranks is not signed with this run's key: another program writes to the "
                "port of torchrun, or the ranks were started with different values of TIMEBOX_GROUP_KEY"
            )
        return decode_message(encoded, kind, name)

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _signature(self, path: str, encoded: bytes) -> bytes:
        """The signature of a message under its name: a message copied to another name is not valid there."""
        return hmac.digest(self._key, path.encode() + b"\0" + encoded, hashlib.sha256)


def decode_message(encoded: bytes, kind: Any, name: str) -> Any:
    """A message of type ``kind`` from its msgpack bytes. Raises UsageError for any other content."""
    try:
        return msgspec.msgpack.decode(encoded, type=kind)
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        raise UsageError(f"message {name!r} between the ranks is not valid: {str(error)[:200]}") from error


def _decoded(text: bytes) -> bytes:
    """The bytes of a base64 text; none where it is not base64, or too long."""
    if len(text) > 2 * MAX_MESSAGE_BYTES:
        return b""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""
