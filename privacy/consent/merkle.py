"""Merkle tree hashes and proofs of RFC 6962, section 2.1, verified as in RFC 9162, section 2.1."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from privacy.consent.limits import DIGEST_BYTES
from privacy.errors import MalformedError, TamperingError

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
_SIZE_BYTES: Final = 8


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 of 0x00 and `entry`."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class HashSource(Protocol):
    """A tree that proofs can be made from, wherever its hashes are kept."""

    @property
    def size(self) -> int:
        """Number of leaves."""
        ...

    def subtree_root(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) for 0 <= begin < end <= size; `begin` a multiple of the power of two >= end - begin."""
        ...


def range_root(begin: int, end: int, complete: Callable[[int, int], bytes]) -> bytes:
    """MTH(D[begin:end]) from the roots `complete(level, index)` of whole subtrees of 2^level leaves."""
    width = end - begin
    if width & (width - 1) == 0 and begin % width == 0:
        return complete(width.bit_length() - 1, begin // width)
    split = begin + _split(width)
    return node_hash(range_root(begin, split, complete), range_root(split, end, complete))


class TreeHead:
    """A growing tree that knows its root at every size it had; n appends cost O(n), a root O(log n).

    Keeps the hash of every complete subtree, 64 bytes a leaf in all: level k holds those of 2^k leaves. C2SP
    tlog-tiles stores the same hashes, so a registry can serve them as tiles.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0]) // DIGEST_BYTES

    @property
    def root(self) -> bytes:
        """Root over all leaves."""
        return self.root_at(self.size)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash. Raises MalformedError for another length than 32."""
        self.extend((leaf,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add many leaf hashes in order, or none: raises MalformedError when one has another length than 32."""
        fresh = _joined(leaf_hashes)
        levels = self._levels
        for level in itertools.count():
            if level == len(levels):
                levels.append(bytearray())
            levels[level] += fresh
            above = len(levels[level + 1]) if level + 1 < len(levels) else 0
            fresh = _parents(memoryview(levels[level])[2 * above :])
            if not fresh:
                return

    def nodes(self, level: int, begin: int, end: int) -> bytes:
        """The roots of the complete subtrees `begin` to `end` (exclusive) of 2^level leaves, one after another.

        Raises MalformedError for what the tree does not have.
        """
        count = self.size >> level
        _require(0 <= begin <= end <= count, count, f"subtrees of 2^{level} entries from {begin} to {end}")
        return bytes(self._levels[level][begin * DIGEST_BYTES : end * DIGEST_BYTES]) if begin < end else b""

    def root_at(self, size: int) -> bytes:
        """Root when there were `size` leaves. Raises MalformedError for a size the tree never had."""
        _require(0 <= size <= self.size, self.size, f"size {size}")
        return self.subtree_root(0, size) if size else EMPTY_ROOT

    def subtree_root(self, begin: int, end: int) -> bytes:
        """See `HashSource`. Raises MalformedError for what the tree does not have."""
        _require(0 <= begin < end <= self.size, self.size, f"entries {begin} to {end}")
        return range_root(begin, end, self._complete)

    def _complete(self, level: int, index: int) -> bytes:
        return bytes(self._levels[level][index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])


class Frontier:
    """What a growing tree's root follows from: the roots of its largest complete subtrees, largest first.

    One subtree for each 1 in the binary size, so at most 63 hashes; an append is O(1) amortised. Knows nothing of
    the past: it makes no proofs.
    """

    __slots__ = ("_roots", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._roots: list[bytes] = []

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def root(self) -> bytes:
        """Root over all leaves."""
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for left in self._roots[-2::-1]:
            root = node_hash(left, root)
        return root

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash. Raises MalformedError for another length than 32."""
        self.extend((leaf,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add many leaf hashes in order, or none: raises MalformedError when one has another length than 32."""
        fresh = _joined(leaf_hashes)
        count = len(fresh) // DIGEST_BYTES
        smaller: list[bytes] = []  # of the new roots, smallest first
        level = 0
        while fresh:
            if self._size >> level & 1:
                fresh = self._roots.pop() + fresh
            if len(fresh) // DIGEST_BYTES % 2:
                smaller.append(fresh[-DIGEST_BYTES:])
            fresh = _parents(memoryview(fresh))
            level += 1
        self._roots += smaller[::-1]
        self._size += count

    def copy(self) -> "Frontier":
        """A frontier that grows on its own from here."""
        other = Frontier()
        other._size, other._roots = self._size, self._roots.copy()
        return other

    def to_bytes(self) -> bytes:
        """The size (8, big-endian), then the roots, largest subtree first."""
        return self._size.to_bytes(_SIZE_BYTES, "big") + b"".join(self._roots)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Frontier":
        """The frontier that `to_bytes` wrote. Raises MalformedError."""
        size = int.from_bytes(data[:_SIZE_BYTES], "big")
        if len(data) != _SIZE_BYTES + size.bit_count() * DIGEST_BYTES or size >= 1 << 63:
            raise MalformedError(
                f"a log's frontier of {len(data)} bytes does not have one hash for each 1 in its size; "
                "its owner must compute it again from the log."
            )
        frontier = cls()
        frontier._size = size
        frontier._roots = [data[start : start + DIGEST_BYTES] for start in range(_SIZE_BYTES, len(data), DIGEST_BYTES)]
        return frontier


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Merkle tree hash of leaves already hashed; EMPTY_ROOT for none."""
    level = list(leaf_hashes)
    if not level:
        return EMPTY_ROOT
    sha256 = hashlib.sha256
    while len(level) > 1:
        # An odd node at the end moves up unchanged, which is the RFC's split at the largest power of two.
        odd = level[-1:] if len(level) % 2 else []
        level = [
            sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)
        ] + odd
    return level[0]


def inclusion_proof(tree: HashSource, index: int, size: int) -> list[bytes]:
    """PATH(index, D[:size]) of RFC 6962, section 2.1.1, from the leaf's sibling up. Raises MalformedError."""
    _require(0 <= index < size <= tree.size, tree.size, f"inclusion of entry {index} at size {size}")
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        split = begin + _split(end - begin)
        if index < split:
            proof.append(tree.subtree_root(split, end))
            end = split
        else:
            proof.append(tree.subtree_root(begin, split))
            begin = split
    return proof[::-1]


def consistency_proof(tree: HashSource, old_size: int, new_size: int) -> list[bytes]:
    """PROOF(old_size, D[:new_size]) of RFC 6962, section 2.1.2. Raises MalformedError; `old_size` >= 1."""
    _require(1 <= old_size <= new_size <= tree.size, tree.size, f"growth from {old_size} to {new_size}")
    proof: list[bytes] = []
    begin, end, complete = 0, new_size, True
    while old_size != end:
        split = begin + _split(end - begin)
        if old_size <= split:
            proof.append(tree.subtree_root(split, end))
            end = split
        else:
            proof.append(tree.subtree_root(begin, split))
            begin, complete = split, False
    if not complete:
        proof.append(tree.subtree_root(begin, end))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise TamperingError unless `proof` puts `leaf` at `index` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf, *proof):
        raise _unproven("inclusion")
    position, last = index, size - 1
    current = leaf
    for sibling in proof:
        if last == 0:
            raise _unproven("inclusion")
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            current = node_hash(current, sibling)
        position >>= 1
        last >>= 1
    if last != 0 or current != root:
        raise _unproven("inclusion")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise TamperingError unless `proof` shows that the new log extends the old (RFC 9162, 2.1.4.2).

    Requires 1 <= old_size: an empty log proves nothing, so its caller decides.
    """
    if not 1 <= old_size <= new_size or not _are_hashes(*proof):
        raise _unproven("consistency")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise _unproven("consistency")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise _unproven("consistency")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _unproven("consistency")
        if position & 1 or position == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    if last != 0 or old != old_root or new != new_root:
        raise _unproven("consistency")


def _split(width: int) -> int:
    """The largest power of two below `width`."""
    return 1 << ((width - 1).bit_length() - 1)


def _joined(leaf_hashes: Iterable[bytes]) -> bytes:
    leaves = list(leaf_hashes)
    if not set(map(len, leaves)) <= {DIGEST_BYTES}:
        raise MalformedError(f"a leaf hash does not have {DIGEST_BYTES} bytes; its log must be read again.")
    return b"".join(leaves)


def _parents(nodes: memoryview) -> bytes:
    """The node hash of each pair in `nodes`; one left over at the end is left out."""
    sha256 = hashlib.sha256
    pair = 2 * DIGEST_BYTES
    return b"".join(
        [
            sha256(b"\x01" + nodes[start : start + pair]).digest()
            for start in range(0, len(nodes) - len(nodes) % pair, pair)
        ]
    )


def _require(holds: bool, size: int, asked: str) -> None:
    if not holds:
        raise MalformedError(f"{asked} was asked of a log with {size} entries; ask for what it has, or sync it first.")


def _are_hashes(*nodes: bytes) -> bool:
    # With nodes of other lengths, left || right could be cut at another place.
    return all(len(node) == DIGEST_BYTES for node in nodes)


def _unproven(kind: str) -> TamperingError:
    return TamperingError(
        f"a log's {kind} proof does not hold; do not rely on this log, keep the proof, and tell the registry "
        "and the auditor."
    )
