"""Merkle tree hashes and proofs of RFC 6962, section 2.1, verified as in RFC 9162, section 2.1."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from privacy.consent.limits import DIGEST_BYTES
from privacy.errors import MalformedError, TamperingError

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256 of 0x00 and `entry`."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class TreeHead:
    """A growing tree that knows its root at every size it had; n appends cost O(n), a root O(log n).

    Keeps the hash of every complete subtree: level k holds those of 2^k leaves. C2SP tlog-tiles stores the
    same hashes, so a registry can serve them as tiles.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """Root over all leaves."""
        return self.root_at(self.size)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        levels = self._levels
        levels[0].append(leaf)
        level = 0
        while len(levels[level]) % 2 == 0:
            left, right = levels[level][-2:]
            level += 1
            if level == len(levels):
                levels.append([])
            levels[level].append(node_hash(left, right))

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add many leaf hashes in order."""
        for leaf in leaf_hashes:
            self.append(leaf)

    def root_at(self, size: int) -> bytes:
        """Root when there were `size` leaves. Raises MalformedError for a size the tree never had."""
        self._require(0 <= size <= self.size, f"size {size}")
        return self.subtree_root(0, size) if size else EMPTY_ROOT

    def subtree_root(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) for 0 <= begin < end <= size; `begin` a multiple of the range's power of two."""
        width = end - begin
        if width & (width - 1) == 0 and begin % width == 0:
            return self._levels[width.bit_length() - 1][begin // width]
        split = begin + _split(width)
        return node_hash(self.subtree_root(begin, split), self.subtree_root(split, end))

    def _require(self, holds: bool, asked: str) -> None:
        if not holds:
            raise MalformedError(
                f"{asked} was asked of a log with {self.size} entries; ask for what it has, or sync it first."
            )


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


def inclusion_proof(tree: TreeHead, index: int, size: int) -> list[bytes]:
    """PATH(index, D[:size]) of RFC 6962, section 2.1.1, from the leaf's sibling up. Raises MalformedError."""
    tree._require(0 <= index < size <= tree.size, f"inclusion of entry {index} at size {size}")
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


def consistency_proof(tree: TreeHead, old_size: int, new_size: int) -> list[bytes]:
    """PROOF(old_size, D[:new_size]) of RFC 6962, section 2.1.2. Raises MalformedError; `old_size` >= 1."""
    tree._require(1 <= old_size <= new_size <= tree.size, f"growth from {old_size} to {new_size}")
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


def _are_hashes(*nodes: bytes) -> bool:
    # With nodes of other lengths, left || right could be cut at another place.
    return all(len(node) == DIGEST_BYTES for node in nodes)


def _unproven(kind: str) -> TamperingError:
    return TamperingError(
        f"a log's {kind} proof does not hold; do not rely on this log, keep the proof, and tell the registry "
        "and the auditor."
    )
