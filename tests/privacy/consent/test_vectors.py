import hashlib
import re

from tests.privacy.consent.vectors import FOLDER


def test_every_vector_file_is_the_one_whose_origin_is_written_down() -> None:
    text = (FOLDER / "PROVENANCE.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]{64})` \|", text, re.MULTILINE))
    found = {
        path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name != "PROVENANCE.md"
    }
    assert len(found) >= 30
    consent = ("rfc6962/", "checkpoint/", "hpke/", "cctv/", "wycheproof/", "jcs/", "jsontestsuite/")
    assert {name: value for name, value in found.items() if name.startswith(consent)} == written
