"""An opening that changes between two readings of it."""

import gzip

import pytest

from clients.audit.opening import write_line
from clients.audit.reader import OpeningFile
from privacy.errors import TamperingError
from tests.clients.audit.case import usual


@pytest.mark.parametrize("change", ["other lines", "another header", "fewer lines"])
def test_a_file_that_changes_after_it_was_checked_is_noticed_at_its_end(change: str) -> None:
    case = usual()
    path = case.forged()
    opening = OpeningFile.check(path, case.keys.holder)
    assert [write_line(line) for line in opening.lines()] == case.raw[1:]
    first, *body = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    match change:
        case "other lines":
            body[0], body[1] = body[1], body[0]
        case "another header":
            first = first[:-1] + b" \n"
        case _:
            body.pop()
    path.write_bytes(gzip.compress(first + b"".join(body)))
    with pytest.raises(TamperingError, match="while it was read"):
        list(opening.lines())
