"""Taking the masks off a sum: survivors reveal shares, and the sum is all that comes out (Bonawitz et al. 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from federated.channel import Act
from federated.messages import Letter, Unmasking
from privacy.errors import FedcreditError, RefusalCode, RefusalError
from privacy.grid import Words
from privacy.secure_sum.keys import PublicKeys
from privacy.secure_sum.unmask import Unmasker
from server.answers import Absence, Answers, code_of, told
from server.cohort import Cohort
from server.exchange import Exchange

WRONG_SHARES = Absence("what it revealed does not fit what the others did", RefusalCode.INTEGRITY)


@dataclass(frozen=True, slots=True)
class MaskedSums:
    """The masked sums of one run, with what is needed to unmask each of them once."""

    cohort: Cohort
    exchange: Exchange
    answers: Answers

    def unmask(self, stage: int, name: str, masked: Mapping[str, Words]) -> tuple[Words, dict[str, Absence]]:
        """The sum of `masked`, without masks, and who of them did not help or lied.

        Only those in the sum can help: nobody helps with a sum that it is told it is not in.
        RefusalError if too few do.
        """
        survivors, members = sorted(masked), self.cohort.members
        letter = Letter(Unmasking(self.cohort.run, stage, survivors))
        read = partial(self.answers.revealed, release=name, survivors=survivors, cohort=members)
        reveals, unhelpful = self.exchange.ask(dict.fromkeys(survivors, letter), act=Act.QUERY, read=read)
        if len(reveals) < self.cohort.threshold:
            raise self._not_unmasked(name, f"{len(reveals)} helped", unhelpful)
        try:
            unmasked = self._unmasker().unmask(stage, members, masked, reveals)
        except RefusalError as error:
            if error.code is RefusalCode.INTEGRITY:
                raise self._wrongly_dealt(name, str(error)) from error
            raise self._not_unmasked(name, str(error), unhelpful) from error
        except FedcreditError as error:
            raise self._not_unmasked(name, str(error), unhelpful) from error
        return unmasked.total, dict(sorted((unhelpful | dict.fromkeys(unmasked.liars, WRONG_SHARES)).items()))

    def _unmasker(self) -> Unmasker:
        keys = {
            holder: PublicKeys(theirs.channel, tuple(theirs.stages), tuple(theirs.seeds))
            for holder, header in self.cohort.joined.items()
            if (theirs := header.keys) is not None
        }
        return Unmasker(keys, self.cohort.members, run=self.cohort.run, threshold=self.cohort.threshold)

    @staticmethod
    def _wrongly_dealt(name: str, why: str) -> RefusalError:
        return RefusalError(
            f"The masks of release {name.partition('/')[2]} cannot be taken off: {why} The run ends here without a "
            "model; what was charged stays charged. The same plan would end here again, so the coordinator should "
            "write another without whoever is named, and ask its operator.",
            RefusalCode.INTEGRITY,
        )

    def _not_unmasked(self, name: str, why: str, unhelpful: Mapping[str, Absence]) -> RefusalError:
        return RefusalError(
            f"The masks of release {name.partition('/')[2]} cannot be taken off: {self.cohort.threshold} data holders "
            f"must help with right shares, and: {why} ({told(unhelpful)}). The run ends here without a model; what was "
            "charged stays charged. The coordinator should ask the operators of those named, then run the same plan "
            "again: what was released is not asked again.",
            code_of(unhelpful),
        )
