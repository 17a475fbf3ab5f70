"""Who is listed in a data holder's two tables, whatever anybody allows: what may be told is told by this alone."""

from pathlib import Path

from clients.holder.gate import Listed, listed_in
from clients.holder.settings import HolderSettings
from federated.schema import Schema
from privacy.errors import RefusalCode, RefusalError

_Stamp = tuple[int, int, int]


class Samples:
    """Two tables by their columns of customers, each read once, and again when it may have changed."""

    def __init__(self, directory: Path, settings: HolderSettings, schema: Schema) -> None:
        self._training, self._held_out = directory / settings.rows, directory / settings.held_out
        self._schema, self._most = schema, settings.policy.most_people
        self._read: dict[Path, tuple[_Stamp, Listed]] = {}

    @property
    def trained_on(self) -> frozenset[str]:
        """Every customer in the training sample: nobody of them is measured, who would pay for both."""
        return self._listed(self._training).customers

    def require_room(self) -> None:
        """RefusalError if a table has more rows than the policy's most people.

        It counts all rows, so that the answer is the same whoever has said yes.
        """
        for path in (self._training, self._held_out):
            if self._listed(path).rows > self._most:
                raise RefusalError(
                    f"{path.name} has more rows than policy.most_people, and a sum over them could run over. Nothing "
                    "was read or charged; the data holder should agree on a larger bound with the others.",
                    RefusalCode.COHORT,
                )

    def _listed(self, path: Path) -> Listed:
        stamp = _stamp(path)
        known = self._read.get(path)
        if known is None or known[0] != stamp or not known[1].lasting:
            known = self._read[path] = stamp, listed_in(path, self._schema, named=path == self._training)
        return known[1]


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)  # reading it says what is wrong
    return found.st_ino, found.st_size, found.st_mtime_ns
