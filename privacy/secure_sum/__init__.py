"""Sums of integers modulo 2^64 over data holders, of which a coordinator learns the sum and nothing else.

Double masks with shares (Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", ACM
CCS 2017, figure 4), for a coordinator that may lie (its section 6.2). Set up once for all the releases of a run:

1. Each data holder announces `keys.PublicKeys`, signed elsewhere, and deals shares of the secrets behind them to
   everybody who joined (`secrets.Secrets`): of one X25519 key and one 32-byte seed a release.
2. For each release it adds to its words one mask shared with each other of the cohort, which cancel in the sum, and one
   drawn from its seed (`member.Member.mask`).
3. Told whose words arrived, it reveals of each of these survivors a share of the seed, of every other a share of the
   key (`member.Member.reveal`), and the coordinator takes the masks off (`unmask.Unmasker`).

n joined, any t = n - f take masks off, n > 3f, and c <= f of them work for a lying coordinator. The paper lets holders
sign who survived before they reveal (round 3). Here one message does: what a holder reveals is locked (`locks`) and
opens with the answers of t holders that were told the same story, which is cohort C and survivors S.

Proposition. Of the honest holders' words of a release the coordinator learns at most one sum; it is over all honest
holders of one S, and they are at least t - c. So c colluders can take c parts of the noise away: whoever sizes it for
t parts must add them.

Proof. Honest holders answer one story a release (their caller keeps the first durable).
(a) One story: an honest holder's lock needs t - c honest holders with its story. Two stories would need 2 (t - c) of
    the n - c honest ones, so 2t <= n + c; but 2t = 2n - 2f > n + f >= n + c.
(b) Never both: so of one member's seed and key only one gets more shares than the c < t of the colluders. This holds
    without locks, too: each honest holder reveals one of the two, and both would again need 2 (t - c) <= n - c.
(c) Known are thus the seeds of S and the keys of D = C - S, nothing else of honest holders. Let G be the honest holders
    with this story; at least t - c, all of them in S (nobody helps with a sum that it is told it is not in), and all
    of them masked for C. Take an honest A whose words are part of something that is free of masks, and let A have
    masked for C'. A is in S, or its own mask stays. The stream that A shares with an honest j in C', but not in D, is
    unknown, and is bound to C': it cancels only if j masked for C', too, and is part of it in equal measure. If
    C' = C, this is every honest holder in S. If not, no honest holder in C' is in G: those in D are not in S, the
    others masked for C'. Each of the two has at least t - c of the n - c honest ones: a contradiction as in (a).
Who was introduced to others than A was cannot open what A dealt, and counts as missing.

It assumes that fewer than a third of those who joined lie, that public keys are their owners', and X25519, HKDF-SHA256,
ChaCha20 and Poly1305. It does not hide who took part, and does not make anybody tell the truth about its words.
"""
