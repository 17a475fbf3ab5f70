"""Tiles: a log's hashes and entries cut into immutable files of 256, as C2SP tlog-tiles lays them out.

A tile is worth nothing until a proof made from it verifies under a signed head.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from privacy.consent.limits import DIGEST_BYTES
from privacy.consent.merkle import TreeHead, node_hash, range_root
from privacy.errors import MalformedError

TILE_WIDTH: Final = 256
_TILE_LEVELS: Final = 8  # of the tree, in one level of tiles
_MAX_LEVEL: Final = 63
_MAX_INDEX: Final = 2**55 - 1  # no tree of fewer than 2^63 leaves has a tile beyond
_LENGTH_BYTES: Final = 2
_MAX_ITEM_BYTES: Final = 2**16 - 1

_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """Which tile: `level` from 0 (the leaves) to 63, None for a bundle of entries; `width` from 1 to 256."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        level_holds = self.level is None or 0 <= self.level <= _MAX_LEVEL
        if not (level_holds and 0 <= self.index <= _MAX_INDEX and 1 <= self.width <= TILE_WIDTH):
            raise MalformedError(
                f"no log has a tile at level {self.level}, index {self.index} and width {self.width}; 0 to "
                f"{_MAX_LEVEL}, 0 to 2^55 - 1 and 1 to {TILE_WIDTH} are required. Ask for one that the log's head "
                "implies."
            )

    @property
    def path(self) -> str:
        """Where the log serves it: `tile/<level>/<index>[.p/<width>]`."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{'/'.join(groups)}{partial}"


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Path of the hashes of `width` subtrees of 256^level leaves. Raises MalformedError."""
    return Tile(level, index, width).path


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """Path of the `width` entries from position 256 `index` on. Raises MalformedError."""
    return Tile(None, index, width).path


def parse_tile_path(path: str) -> Tile:
    """The tile that a path names; each tile has one spelling. Raises MalformedError."""
    found = _PATH.match(path)
    if found:
        level = None if found["level"] == "entries" else int(found["level"])
        index = int(found["index"].replace("x", "").replace("/", ""))
        tile = Tile(level, index, int(found["width"] or TILE_WIDTH))
        if tile.path == path:
            return tile
    raise MalformedError(
        f"a path of {len(path)} characters names no tile; tile/<level>/<index>[.p/<width>] of C2SP tlog-tiles is "
        "required. Whoever asked must ask again."
    )


def tile_of(tree: TreeHead, level: int, index: int, width: int = TILE_WIDTH) -> bytes:
    """The tile's hashes, one after another. Raises MalformedError for a tile the tree does not have."""
    tile = Tile(level, index, width)
    begin = tile.index * TILE_WIDTH
    return tree.nodes(_TILE_LEVELS * level, begin, begin + tile.width)


def width_in(size: int, level: int, index: int) -> int:
    """How wide the tile is in a log of `size` entries: 256, less at the right edge, 0 beyond it."""
    return max(0, min(TILE_WIDTH, (size >> (_TILE_LEVELS * level)) - index * TILE_WIDTH))


def write_bundle(items: Sequence[bytes | None]) -> bytes:
    """1 to 256 items, each after its length (2, big-endian); None, which is length 0, for one that is not there.

    Raises MalformedError for an empty item and for one beyond 65,535 bytes.
    """
    if not 1 <= len(items) <= TILE_WIDTH:
        raise MalformedError(f"a bundle has {len(items)} entries; 1 to {TILE_WIDTH} are required.")
    parts: list[bytes] = []
    for item in items:
        if item is not None and not 1 <= len(item) <= _MAX_ITEM_BYTES:
            raise MalformedError(f"an entry has {len(item)} bytes; 1 to {_MAX_ITEM_BYTES} fit a bundle.")
        content = item or b""
        parts += (len(content).to_bytes(_LENGTH_BYTES, "big"), content)
    return b"".join(parts)


def read_bundle(data: bytes, count: int) -> list[bytes | None]:
    """The `count` items that `write_bundle` wrote. Raises MalformedError."""
    items: list[bytes | None] = []
    start = 0
    while start < len(data) and len(items) < count:
        begin = start + _LENGTH_BYTES
        end = begin + int.from_bytes(data[start:begin], "big")
        items.append(data[begin:end] or None)
        start = end
    if start != len(data) or len(items) != count or not 1 <= count <= TILE_WIDTH:
        raise MalformedError(
            f"a bundle of {len(data)} bytes does not hold exactly {count} entries; the log must serve it again."
        )
    return items


class TileTree:
    """The tree of a log's first `size` entries, read from tiles as they are needed; each is fetched once.

    `fetch(level, index, width)` returns the tile's bytes. Raises MalformedError when it has another size.
    """

    __slots__ = ("_fetch", "_size", "_tiles")

    def __init__(self, size: int, fetch: Callable[[int, int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._tiles: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._size

    def subtree_root(self, begin: int, end: int) -> bytes:
        """See `HashSource`. Raises MalformedError for what the log does not have."""
        if not 0 <= begin < end <= self._size:
            raise MalformedError(
                f"entries {begin} to {end} were asked of a log with {self._size}; ask for what it has."
            )
        return range_root(begin, end, self._complete)

    def _complete(self, level: int, index: int) -> bytes:
        tile_level, height = divmod(level, _TILE_LEVELS)
        first = index << height
        tile = self._tile(tile_level, first // TILE_WIDTH)
        start = first % TILE_WIDTH

        def hash_at(below: int, place: int) -> bytes:
            if below == 0:
                return tile[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
            return node_hash(hash_at(below - 1, 2 * place), hash_at(below - 1, 2 * place + 1))

        return hash_at(height, start >> height)

    def _tile(self, level: int, index: int) -> bytes:
        tile = self._tiles.get((level, index))
        if tile is None:
            width = width_in(self._size, level, index)
            tile = self._fetch(level, index, width)
            if len(tile) != width * DIGEST_BYTES:
                raise MalformedError(
                    f"a log's tile has {len(tile)} bytes; {width * DIGEST_BYTES} are required. "
                    "The registry must serve it again."
                )
            self._tiles[level, index] = tile
        return tile
