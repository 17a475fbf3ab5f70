"""One question to several data holders over a channel, by their ids rather than by nodes."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from federated.channel import Act, Channel
from federated.messages import Letter
from server.answers import SILENT, Absence, sort_out

Answer = TypeVar("Answer")


class Exchange:
    """The way to the data holders of a run. It knows which node is whose, and who was silent when last asked."""

    def __init__(
        self, channel: Channel, nodes: Mapping[str, int], *, deadline_s: float, away: Mapping[str, Absence]
    ) -> None:
        """`away` are data holders of the run whose nodes are not known, and why."""
        self._channel, self._nodes, self._deadline_s = channel, dict(nodes), deadline_s
        self._strangers = set(channel.nodes()) - set(nodes.values())
        self._away = dict(away)
        self._silent: set[str] = set(away)
        self._before: dict[str, int] = {}  # the node of whoever is now answered for by another

    def ask(
        self, letters: Mapping[str, Letter], *, act: Act, read: Callable[[Letter, str], Answer]
    ) -> tuple[dict[str, Answer], dict[str, Absence]]:
        """The answers that came before the deadline and that `read` takes, and why the others asked are left out.

        Both are sorted by data holder. A node that is offline is not asked: waiting for it would cost the deadline.
        """
        online = set(self._channel.nodes())
        asked = {holder: self._nodes[holder] for holder in letters if holder in self._nodes}
        answers = self._channel.ask(
            {node: letters[holder] for holder, node in asked.items() if node in online},
            act=act,
            deadline_s=self._deadline_s,
        )
        valid, absent = sort_out(answers, asked, read)
        self._silent -= valid.keys()
        self._silent |= {holder for holder, absence in absent.items() if absence is SILENT}
        for holder in absent:
            # Joining can be repeated by whoever has heard it. What follows cannot: the node before has another chance.
            if (before := self._before.pop(holder, None)) is not None:
                self._nodes[holder] = before
        for holder in valid:
            self._before.pop(holder, None)
        absent |= {holder: self._away[holder] for holder in letters if holder not in asked}
        return valid, dict(sorted(absent.items()))

    def look_for_silent(self, opening: Letter, owner_of: Callable[[Letter], str | None]) -> None:
        """Ask nodes that have appeared since whose they are; the node of who was silent may have been restarted.

        `owner_of` gives the data holder that an answer to `opening` is signed by. Whoever still answers keeps its
        node, so nobody can take its place.
        """
        if not self._silent:
            return
        appeared = set(self._channel.nodes()) - set(self._nodes.values()) - self._strangers
        if not appeared:
            return
        letters = dict.fromkeys(sorted(appeared), opening)
        answers = self._channel.ask(letters, act=Act.QUERY, deadline_s=self._deadline_s)
        self._strangers |= answers.keys()
        for node, answer in sorted(answers.items()):
            holder = owner_of(answer)
            if holder is not None and holder in self._silent:
                self._silent.discard(holder)
                if holder in self._nodes:
                    self._before[holder] = self._nodes[holder]
                self._nodes[holder] = node
