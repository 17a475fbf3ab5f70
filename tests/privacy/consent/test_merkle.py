from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.merkle import (
    EMPTY_ROOT,
    Frontier,
    TreeHead,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent import reference_merkle
from tests.privacy.consent.vectors import vectors

ENTRIES = [b"entry %d" % number for number in range(70)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
TREE = TreeHead(LEAVES)


def test_roots_are_those_of_the_published_eight_leaves() -> None:
    published = vectors("rfc6962/roots.json")
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in published["leaf_inputs_hex"]]
    roots = [bytes.fromhex(root) for root in published["root_hex_by_size"]]
    assert len(roots) == 9
    assert roots[0] == EMPTY_ROOT
    tree = TreeHead(leaves)
    for size, root in enumerate(roots):
        assert root_of(leaves[:size]) == tree.root_at(size) == root


def accepted(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except TamperingError:
        return False
    return True


def test_published_inclusion_proofs_get_their_verdicts() -> None:
    cases = vectors("rfc6962/inclusion.json")
    assert sum(not case["wantErr"] for case in cases) >= 6
    for case in cases:
        proof = [b64decode(node) for node in case["proof"] or ()]
        leaf, root = b64decode(case["leafHash"]), b64decode(case["root"])
        verdict = accepted(verify_inclusion, leaf, case["leafIdx"], case["treeSize"], proof, root)
        assert verdict is not case["wantErr"], case["_file"]


def test_published_consistency_proofs_get_their_verdicts() -> None:
    cases = vectors("rfc6962/consistency.json")
    assert sum(not case["wantErr"] for case in cases) >= 6
    for case in cases:
        proof = [b64decode(node) for node in case["proof"] or ()]
        roots = b64decode(case["root1"]), b64decode(case["root2"])
        verdict = accepted(verify_consistency, case["size1"], case["size2"], *roots, proof)
        assert verdict is not case["wantErr"], case["_file"]


@given(st.integers(0, 70))
def test_roots_are_those_of_the_literal_reference(size: int) -> None:
    assert root_of(LEAVES[:size]) == TREE.root_at(size) == reference_merkle.mth(ENTRIES[:size])
    grown = TreeHead(LEAVES[: size // 2])
    grown.extend(LEAVES[size // 2 : size])
    assert (grown.size, grown.root) == (size, TREE.root_at(size))


@given(st.data(), st.integers(1, 70))
def test_inclusion_proofs_are_the_references_and_prove_nothing_else(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(TREE, index, size)
    assert proof == reference_merkle.path(index, ENTRIES[:size])
    root = TREE.root_at(size)
    verify_inclusion(LEAVES[index], index, size, proof, root)
    elsewhere = data.draw(st.integers(0, size + 2))
    if elsewhere != index:
        assert not accepted(verify_inclusion, LEAVES[index], elsewhere, size, proof, root)
    assert not accepted(verify_inclusion, LEAVES[index - 1] if size > 1 else root[::-1], index, size, proof, root)
    assert not accepted(verify_inclusion, LEAVES[index], index, size, [*proof, root], root)
    if proof:
        assert not accepted(verify_inclusion, LEAVES[index], index, size, proof[:-1], root)


@given(st.data(), st.integers(1, 70))
def test_consistency_proofs_are_the_references_and_prove_nothing_else(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size))
    proof = consistency_proof(TREE, old, size)
    assert proof == reference_merkle.proof(old, ENTRIES[:size])
    old_root, root = TREE.root_at(old), TREE.root_at(size)
    verify_consistency(old, size, old_root, root, proof)
    assert not accepted(verify_consistency, old, size, old_root[::-1], root, proof)
    assert not accepted(verify_consistency, old, size, old_root, root[::-1], proof)
    assert not accepted(verify_consistency, old, size, old_root, root, [*proof, root])
    if proof:
        assert not accepted(verify_consistency, old, size, old_root, root, proof[:-1])


def test_what_the_tree_never_had_is_refused() -> None:
    for size in (-1, 71):
        with pytest.raises(MalformedError):
            TREE.root_at(size)
    for index, size in ((-1, 5), (5, 5), (0, 71)):
        with pytest.raises(MalformedError):
            inclusion_proof(TREE, index, size)
    for old, new in ((0, 5), (6, 5), (1, 71)):
        with pytest.raises(MalformedError):
            consistency_proof(TREE, old, new)


def test_a_leaf_is_never_taken_for_a_node() -> None:
    two = root_of(LEAVES[:2])
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != two
    assert root_of([two]) == two  # hence size is always part of a head


def test_every_size_up_to_64_has_the_references_root_however_it_grew() -> None:
    tree, frontier = TreeHead(), Frontier()
    for size in range(65):
        expected = reference_merkle.mth(ENTRIES[:size])
        at_once = Frontier()
        at_once.extend(LEAVES[:size])
        assert {tree.root, frontier.root, at_once.root, TREE.root_at(size)} == {expected}
        assert (tree.size, frontier.size, at_once.size) == (size, size, size)
        tree.append(LEAVES[size])
        frontier.append(LEAVES[size])


@given(st.lists(st.integers(0, 40), max_size=12))
def test_a_tree_and_a_frontier_grown_in_any_steps_are_one_log(steps: list[int]) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(sum(steps))]
    tree, frontier = TreeHead(), Frontier()
    size = 0
    for step in steps:
        if step == 1:
            tree.append(leaves[size])
            frontier.append(leaves[size])
        else:
            tree.extend(iter(leaves[size : size + step]))
            frontier.extend(iter(leaves[size : size + step]))
        size += step
        assert tree.root == frontier.root == root_of(leaves[:size])
        assert (tree.size, frontier.size) == (size, size)
    for count in range(size + 1):
        assert tree.root_at(count) == root_of(leaves[:count])


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_stored_frontier_goes_on_as_if_never_stored(before: int, after: int) -> None:
    frontier = Frontier()
    frontier.extend(LEAVES[: min(before, after)])
    data = frontier.to_bytes()
    assert len(data) == 8 + 32 * frontier.size.bit_count()
    loaded, copied = Frontier.from_bytes(data), frontier.copy()
    assert loaded.to_bytes() == data
    for other in (loaded, copied):
        other.extend(LEAVES[frontier.size : after])
        assert other.root == reference_merkle.mth(ENTRIES[:after])
    assert frontier.to_bytes() == data  # a copy grows alone


def test_a_frontier_holds_the_largest_complete_subtrees_first() -> None:
    frontier = Frontier()
    frontier.extend(LEAVES[:11])
    ranges = ((0, 8), (8, 10), (10, 11))
    roots = [reference_merkle.mth(ENTRIES[begin:end]) for begin, end in ranges]
    assert frontier.to_bytes() == (11).to_bytes(8, "big") + b"".join(roots)


@given(
    st.binary(max_size=120)
    | st.builds(lambda size, rest: size.to_bytes(8, "big") + rest, st.integers(0, 9), st.binary(max_size=70))
)
def test_a_frontier_has_one_encoding(data: bytes) -> None:
    try:
        frontier = Frontier.from_bytes(data)
    except MalformedError:
        size = int.from_bytes(data[:8], "big")
        assert len(data) < 8 or size >= 2**63 or len(data) != 8 + 32 * size.bit_count()
        return
    assert frontier.to_bytes() == data


def test_a_size_beyond_63_bits_is_no_frontiers() -> None:
    assert Frontier.from_bytes((2**62).to_bytes(8, "big") + bytes(32)).size == 2**62
    with pytest.raises(MalformedError):
        Frontier.from_bytes((2**63).to_bytes(8, "big") + bytes(32))


def test_a_leaf_of_another_length_is_refused_and_changes_nothing() -> None:
    for log in (TreeHead(LEAVES[:5]), Frontier.from_bytes((1).to_bytes(8, "big") + LEAVES[0])):
        size, root = log.size, log.root
        with pytest.raises(MalformedError):
            log.append(b"short")
        with pytest.raises(MalformedError):
            log.extend([LEAVES[0], bytes(31), bytes(33)])
        assert (log.size, log.root) == (size, root)


@given(st.data())
def test_a_trees_complete_subtrees_are_the_references(data: st.DataObject) -> None:
    level = data.draw(st.integers(0, 6))
    end = data.draw(st.integers(0, 70 >> level))
    begin = data.draw(st.integers(0, end))
    expected = [reference_merkle.mth(ENTRIES[n << level : (n + 1) << level]) for n in range(begin, end)]
    assert TREE.nodes(level, begin, end) == b"".join(expected)


def test_nodes_and_ranges_beyond_the_tree_are_refused() -> None:
    for level, begin, end in ((0, 0, 71), (0, -1, 1), (0, 2, 1), (6, 0, 2), (7, 0, 1), (63, 0, 1)):
        with pytest.raises(MalformedError):
            TREE.nodes(level, begin, end)
    for begin, end in ((0, 0), (-1, 1), (0, 71), (5, 4)):
        with pytest.raises(MalformedError):
            TREE.subtree_root(begin, end)
