from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.consent.merkle import (
    TreeHead,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from privacy.consent.tiles import (
    Tile,
    TileTree,
    bundle_path,
    parse_tile_path,
    read_bundle,
    tile_of,
    tile_path,
    width_in,
    write_bundle,
)
from privacy.errors import MalformedError
from tests.privacy.consent import reference_merkle

# More than 256^2: three levels of tiles, as in the example of C2SP tlog-tiles.
SIZE = 70_000
LEAVES = [leaf_hash(b"%d" % number) for number in range(SIZE)]
TREE = TreeHead(LEAVES)


def fetch(level: int, index: int, width: int) -> bytes:
    """What a server of files does: answers paths."""
    tile = parse_tile_path(tile_path(level, index, width))
    assert tile.level is not None
    return tile_of(TREE, tile.level, tile.index, tile.width)


def test_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(0, 0) == "tile/0/000"
    assert tile_path(63, 999, 1) == "tile/63/999.p/1"
    assert tile_path(1, 1000, 255) == "tile/1/x001/000.p/255"
    assert bundle_path(273, 112) == "tile/entries/273.p/112"
    assert parse_tile_path("tile/entries/x001/x234/067") == Tile(None, 1234067)


tiles = st.builds(
    Tile, st.none() | st.integers(0, 63), st.integers(0, 2**55 - 1) | st.integers(0, 2000), st.integers(1, 256)
)


@given(tiles)
def test_a_path_leads_back_to_its_tile(tile: Tile) -> None:
    assert parse_tile_path(tile.path) == tile
    if tile.level is None:
        assert tile.path == bundle_path(tile.index, tile.width)
    else:
        assert tile.path == tile_path(tile.level, tile.index, tile.width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/x000/x001/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/x1/000",
        "tile/0/X001/000",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/1000",
        "tile/0/000.p/",
        "tile/0/000.p/1/",
        "tile/0/000.p1",
        "tile/0/000\n",
        "/tile/0/000",
        "tile//000",
        "tile/0/../0/000",
        "tile/0/%30%30%30",
        "tile/0/٠٠٠",
        "tile/٠/000",
        "tile/data/000",
        "tile/Entries/000",
        "tile/0/x036/x028/x797/x018/x963/968",
        "tile/0/x001/x000/x000/x000/x000/x000/000",
        "entries/000",
    ],
)
def test_other_spellings_name_no_tile(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_tile_path(path)


@given(st.text(max_size=30) | st.text("tile/0123x.pentries", max_size=24).map("tile/".__add__))
def test_arbitrary_paths_never_crash_and_have_one_spelling(path: str) -> None:
    with suppress(MalformedError):
        assert parse_tile_path(path).path == path


def test_the_last_index_is_the_last_that_a_log_can_have() -> None:
    assert parse_tile_path("tile/0/x036/x028/x797/x018/x963/967").index == 2**55 - 1
    for wrong in ((0, 2**55, 256), (0, -1, 256), (-1, 0, 256), (64, 0, 256), (0, 0, 0), (0, 0, 257)):
        with pytest.raises(MalformedError):
            tile_path(*wrong)


def test_a_log_of_70000_has_the_tiles_of_the_specification() -> None:
    # C2SP tlog-tiles, "Partial Tiles": 273 full and one of 112, then one full and one of 17, then one of 1.
    widths = {
        level: Counter(width for index in range(400) if (width := width_in(SIZE, level, index))) for level in range(8)
    }
    assert widths[0] == {256: 273, 112: 1}
    assert widths[1] == {256: 1, 17: 1}
    assert widths[2] == {1: 1}
    assert not any(widths[level] for level in range(3, 8))
    assert [width_in(256, level, 0) for level in range(3)] == [256, 1, 0]


def test_a_tiles_hashes_are_subtree_roots() -> None:
    entries = [b"%d" % number for number in range(600)]
    tree = TreeHead(map(leaf_hash, entries))
    assert tile_of(tree, 0, 2, 88) == b"".join(leaf_hash(entry) for entry in entries[512:])
    assert tile_of(tree, 1, 0, 2) == reference_merkle.mth(entries[:256]) + reference_merkle.mth(entries[256:512])
    for level, index, width in ((0, 2, 89), (0, 2, 256), (0, 3, 1), (1, 0, 3), (2, 0, 1), (63, 0, 1)):
        with pytest.raises(MalformedError):
            tile_of(tree, level, index, width)


sizes = st.integers(1, SIZE) | st.integers(1, 600)


@settings(max_examples=60)
@given(size=sizes, data=st.data())
def test_proofs_from_tiles_are_those_of_the_whole_tree_and_verify(size: int, data: st.DataObject) -> None:
    tree = TileTree(size, fetch)
    root = TREE.root_at(size)
    assert tree.size == size
    assert tree.subtree_root(0, size) == root
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(tree, index, size)
    assert proof == inclusion_proof(TREE, index, size)
    verify_inclusion(LEAVES[index], index, size, proof, root)
    old = data.draw(st.integers(1, size))
    grown = consistency_proof(tree, old, size)
    assert grown == consistency_proof(TREE, old, size)
    verify_consistency(old, size, TREE.root_at(old), root, grown)


@settings(max_examples=30)
@given(size=sizes, data=st.data())
def test_only_the_tiles_of_the_log_are_fetched_each_once(size: int, data: st.DataObject) -> None:
    asked: list[tuple[int, int, int]] = []

    def note(level: int, index: int, width: int) -> bytes:
        asked.append((level, index, width))
        return fetch(level, index, width)

    tree = TileTree(size, note)
    for index in data.draw(st.lists(st.integers(0, size - 1), max_size=4)):
        inclusion_proof(tree, index, size)
    tree.subtree_root(0, size)
    assert len(asked) == len(set(asked)) == len({place[:2] for place in asked})
    assert all(width == width_in(size, level, index) >= 1 for level, index, width in asked)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 300])
@pytest.mark.parametrize("change", [lambda tile: tile[:-1], lambda tile: tile + b"\0", lambda _: b"", lambda t: t + t])
def test_a_tile_of_another_length_is_refused(size: int, change: Callable[[bytes], bytes]) -> None:
    tree = TileTree(size, lambda *place: change(fetch(*place)))
    with pytest.raises(MalformedError):
        tree.subtree_root(0, size)


def test_what_the_log_does_not_have_is_refused_before_anything_is_fetched() -> None:
    def never(_level: int, _index: int, _width: int) -> bytes:
        raise AssertionError

    tree = TileTree(300, never)
    for begin, end in ((0, 0), (-1, 1), (0, 301), (300, 301), (7, 3)):
        with pytest.raises(MalformedError):
            tree.subtree_root(begin, end)
    for index, size in ((0, 301), (300, 300)):
        with pytest.raises(MalformedError):
            inclusion_proof(tree, index, size)


items = st.lists(st.none() | st.binary(min_size=1, max_size=40), min_size=1, max_size=20)


@given(items)
def test_a_bundle_is_read_as_it_was_written(content: list[bytes | None]) -> None:
    data = write_bundle(content)
    assert data == b"".join(len(one or b"").to_bytes(2, "big") + (one or b"") for one in content)
    assert read_bundle(data, len(content)) == content
    for count in (len(content) - 1, len(content) + 1):
        with pytest.raises(MalformedError):
            read_bundle(data, count)
    with pytest.raises(MalformedError):
        read_bundle(data + b"\0", len(content))


@given(items, st.data())
def test_a_bundle_cut_anywhere_is_refused(content: list[bytes | None], data: st.DataObject) -> None:
    bundle = write_bundle(content)
    with pytest.raises(MalformedError):
        read_bundle(bundle[: data.draw(st.integers(0, len(bundle) - 1))], len(content))


@given(st.binary(max_size=60), st.integers(0, 260))
def test_arbitrary_bundles_never_crash_and_have_one_encoding(data: bytes, count: int) -> None:
    try:
        content = read_bundle(data, count)
    except MalformedError:
        return
    assert 1 <= count <= 256
    assert len(content) == count
    assert write_bundle(content) == data


def test_what_no_bundle_can_hold_is_refused() -> None:
    assert len(read_bundle(write_bundle([b"x" * 65535] * 256), 256)) == 256
    for content in ([], [b""], [b"x" * 65536], [b"x"] * 257):
        with pytest.raises(MalformedError):
            write_bundle(content)
