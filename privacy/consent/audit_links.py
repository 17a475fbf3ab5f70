"""Whose records count in a run's pinned prefix, by the links that a data holder shows an auditor.

No data holder can show that a person did link another wallet. So an ended link is believed unless a receipt opens a
record under it, which the person then wants to count, and none opens one by the same subject that does count.
"""

from collections.abc import Iterable, Iterator

from privacy.consent.view import Link, Unsealed, is_from, linked_twice, links_in_force


class ShownLinks:
    """All links, ended ones too, as they stand in a prefix of `size` entries.

    `in_force` is keyed by handle. The subjects `twice` have two links for the same entries; none of theirs counts.
    """

    def __init__(self, links: Iterable[Link], size: int) -> None:
        links = list(links)
        self.twice = linked_twice(links)
        once = (link for link in links if link.handle not in self.twice)
        self.in_force = links_in_force(once, size)
        self._ended: dict[bytes, list[Link]] = {}
        for link in links:
            if link.ended_at_size is not None and link.ended_at_size < size:
                self._ended.setdefault(link.handle, []).append(link)
        self._heard: set[bytes] = set()
        self._unheard: list[tuple[int, bytes]] = []

    def __contains__(self, handle: bytes) -> bool:
        """Whether the subject is linked, or was: whoever is erased has no link at all."""
        return handle in self.in_force or handle in self._ended or handle in self.twice

    def counts(self, unsealed: Unsealed, position: int) -> bool:
        """Whether the record of that entry is by the key in force."""
        link = self.in_force.get(unsealed.record.handle)
        return link is not None and is_from(unsealed, link, position)

    def counted(self, unsealed: Unsealed, position: int) -> bool:
        """Whether the record of that entry is by a key whose link lasted then, and had ended by the prefix's end."""
        return any(is_from(unsealed, link, position) for link in self._ended.get(unsealed.record.handle, ()))

    def hear(self, handle: bytes, position: int, *, counts: bool) -> None:
        """A receipt opens the subject's record there, which counts, or did until its link ended."""
        if counts:
            self._heard.add(handle)
        else:
            self._unheard.append((position, handle))

    def unheard(self) -> Iterator[int]:
        """Where receipts open records under links that are said to have ended, and no receipt bears that out."""
        return (position for position, handle in self._unheard if handle not in self._heard)
