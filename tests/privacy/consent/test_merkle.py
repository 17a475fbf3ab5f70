from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.merkle import (
    EMPTY_ROOT,
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
