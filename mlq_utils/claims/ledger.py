"""The paper's claims as data, and what each kind of evidence says of them.

    table()     # a row a claim and kind of evidence, with the verdict and its numbers

A verdict is never typed: each test names a function of `evidence` that measures, and a rule that
draws the verdict from the numbers. A claim without a test of a kind is not testable here by it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import pandas as pd

from mlq_utils.claims import evidence
from mlq_utils.claims.evidence import Numbers

EVIDENCE = ("published", "tokenizer", "trained")
VERDICTS = ("holds", "holds in part", "does not hold", "not testable here")
Rule = Callable[[Numbers], bool]


def _never(numbers: Numbers) -> bool:
    return False


@dataclass(frozen=True)
class Test:
    """One kind of evidence on a claim.

    Attributes:
        evidence: One of `EVIDENCE`.
        measure: Returns the numbers.
        numbers: How they are told: a format string over their names.
        holds: Whether the numbers are for the claim.
        in_part: Whether they are for a part of it, where they are not for the whole.
    """

    evidence: str
    measure: Callable[[], Numbers]
    numbers: str
    holds: Rule
    in_part: Rule = _never

    __test__ = False  # pytest: this is no test of its kind

    def verdict(self, numbers: Numbers) -> str:
        """Return the verdict that these numbers give."""
        if self.holds(numbers):
            return "holds"
        return "holds in part" if self.in_part(numbers) else "does not hold"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        key: A short name, for links.
        section: Where the paper makes it.
        claim: What it says, in our words.
        supports: What counts for it, and what in part; against it counts what remains.
        chapter: The notebook that looks into it.
        tests: What has been measured; none: not testable here.
    """

    key: str
    section: str
    claim: str
    supports: str
    chapter: str
    tests: tuple[Test, ...] = ()


def _half(n: Mapping[str, float], part: str, whole: str) -> bool:
    return n[part] > n[whole] / 2


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "more-languages",
        "3.1, Appendix C",
        "Tuned in English only, the model supports languages that its pretraining text does not "
        "name.",
        "A language outside the text gains more than 5 spBLEU.",
        "phenomena",
        (
            Test(
                "published",
                evidence.supported_published,
                "{risen} of {targets} languages rise, {unnamed} of them not named",
                lambda n: n["unnamed"] > 0,
            ),
            Test(
                "trained",
                evidence.supported_trained,
                "{risen} of {targets} languages rise, {unnamed} of them not named",
                lambda n: n["unnamed"] > 0,
            ),
        ),
    ),
    Claim(
        "afrikaans",
        "3.1",
        "Models tuned on ro, ms and no improve en→af, which neither text nor tuning contains.",
        "Each raises it by more than 5 spBLEU; in part: one does.",
        "phenomena",
        (
            Test(
                "trained",
                evidence.afrikaans_trained,
                "af changes by {ro:+.1f} (ro), {ms:+.1f} (ms), {no:+.1f} (no)",
                lambda n: min(n.values()) > evidence.RISEN,
                lambda n: max(n.values()) > evidence.RISEN,
            ),
        ),
    ),
    Claim(
        "others-rise",
        "3.1",
        "Tuned on en→ro, the model improves on other languages too.",
        "More than half of the other languages rise; in part: some do, or of the languages that "
        "the base has, more than half.",
        "phenomena",
        (
            Test(
                "published",
                evidence.others_published,
                "of {of} other targets {up} are above the untuned score, {risen} by more than 5",
                lambda n: _half(n, "risen", "of"),
                lambda n: n["risen"] > 0,
            ),
            Test(
                "trained",
                evidence.others_trained,
                "{named} of {of_named} other pretraining languages rise, {risen} of all {of}",
                lambda n: _half(n, "risen", "of"),
                lambda n: _half(n, "named", "of_named"),
            ),
        ),
    ),
    Claim(
        "consistency",
        "3.1",
        "Models tuned on different languages distribute their scores over targets alike.",
        "Rank correlations of 0.7 or more, among the languages that the base has too; in part: "
        "over all targets only.",
        "phenomena",
        (
            Test(
                "published",
                evidence.consistency_published,
                "median {rho:.2f} over {pairs} pairs of reciprocal models, {targets} targets",
                lambda n: n["rho"] >= 0.7,
            ),
            Test(
                "trained",
                evidence.consistency_trained,
                "at least {all:.2f} over all targets, at most {named:.2f} over the pretraining "
                "languages",
                lambda n: min(n["all"], n["named"]) >= 0.7,
                lambda n: n["all"] >= 0.7,
            ),
        ),
    ),
    Claim(
        "not-instruction",
        "3.1",
        "It is not an effect of instruction tuning as such: the model tuned on luo does not share "
        "it.",
        "Tuning on luo raises less than half as many targets as tuning on ro.",
        "phenomena",
        (
            Test(
                "trained",
                evidence.luo_trained,
                "tuned on luo {luo} targets rise, on ro {ro}",
                lambda n: n["luo"] < n["ro"] / 2,
            ),
        ),
    ),
    Claim(
        "selfless",
        "3.2",
        "Some models improve others while their own language does not improve.",
        "More than half of the models of Table 1; trained: any whose own score falls.",
        "quadrants",
        (
            Test(
                "published",
                evidence.selfless_published,
                "{selfless} of {models} models of Table 1",
                lambda n: _half(n, "selfless", "models"),
                lambda n: n["selfless"] > 0,
            ),
            Test(
                "trained",
                evidence.selfless_trained,
                "{selfless} of {models} models that help others",
                lambda n: n["selfless"] > 0,
            ),
        ),
    ),
    Claim(
        "quadrants",
        "3.2",
        "By Equation 1 languages fall into four quadrants.",
        "Table 2's Ted row comes back whole; trained: all four are populated. In part: three of "
        "them, or nine tenths of the row.",
        "quadrants",
        (
            Test(
                "published",
                evidence.equation_published,
                "{agree} of {languages} languages as printed",
                lambda n: n["agree"] == n["languages"],
                lambda n: n["agree"] >= 0.9 * n["languages"],
            ),
            Test(
                "trained",
                evidence.equation_trained,
                "{reciprocal} reciprocal, {altruistic} altruistic, {selfish} selfish, {stagnant} "
                "stagnant",
                lambda n: n["populated"] == 4,
                lambda n: n["populated"] == 3,
            ),
        ),
    ),
    Claim(
        "factor",
        "Appendix D",
        "With a significance factor of 20 all languages are stagnant.",
        "All of them are.",
        "quadrants",
        (
            Test(
                "published",
                evidence.factor_published,
                "{stagnant} of {languages}",
                lambda n: n["stagnant"] == n["languages"],
            ),
            Test(
                "trained",
                evidence.factor_trained,
                "{stagnant} of {languages}",
                lambda n: n["stagnant"] == n["languages"],
            ),
        ),
    ),
    Claim(
        "mirror",
        "3.2, Appendix E",
        "Changes on other languages are mirrored in en→af and en→ro.",
        "Models are ordered alike (rank correlation of 0.7 or more) and the two rise where the "
        "others do, in nine of ten models; in part: one of the two.",
        "quadrants",
        tuple(
            Test(
                kind,
                measure,
                "rank correlation {rho:.2f} ({low:.2f} to {high:.2f}); the two rise or fall with "
                "the others in {same} of {models} models",
                lambda n: n["rho"] >= 0.7 and n["same"] >= 0.9 * n["models"],
                lambda n: n["rho"] >= 0.7 or n["same"] >= 0.9 * n["models"],
            )
            for kind, measure in (
                ("published", evidence.mirror_published),
                ("trained", evidence.mirror_trained),
            )
        ),
    ),
    Claim(
        "stable",
        "3.2",
        "A language's quadrant is stable.",
        "Nine of ten languages have the same in all datasets (published) or with all tuning seeds "
        "(trained); in part: half of them.",
        "quadrants",
        (
            Test(
                "published",
                evidence.stable_published,
                "{same} of {languages} languages the same in three datasets",
                lambda n: n["same"] >= 0.9 * n["languages"],
                lambda n: n["same"] >= 0.5 * n["languages"],
            ),
            Test(
                "trained",
                evidence.stable_trained,
                "{same} of {languages} languages the same with three seeds",
                lambda n: n["same"] >= 0.9 * n["languages"],
                lambda n: n["same"] >= 0.5 * n["languages"],
            ),
        ),
    ),
    Claim(
        "relatives",
        "4.1",
        "Reciprocal languages are mostly Indo-European.",
        "More than half of them, and a larger share than of the others.",
        "reciprocal",
        tuple(
            Test(
                kind,
                measure,
                "{inside:.0%} of the reciprocal, {outside:.0%} of the others",
                lambda n: n["inside"] > max(0.5, n["outside"]),
            )
            for kind, measure in (
                ("published", evidence.relatives_published),
                ("trained", evidence.relatives_trained),
            )
        ),
    ),
    Claim(
        "exposed",
        "4.1",
        "They benefit from the pretraining text.",
        "A larger share of them is named in it than of the others.",
        "reciprocal",
        tuple(
            Test(
                kind,
                measure,
                "{inside:.0%} of the reciprocal are named, {outside:.0%} of the others",
                lambda n: n["inside"] > n["outside"],
            )
            for kind, measure in (
                ("published", evidence.exposed_published),
                ("trained", evidence.exposed_trained),
            )
        ),
    ),
    Claim(
        "embed-bilingual",
        "4.1",
        "Embed FT is as good bilingually as full FT, slightly behind on little data.",
        "On the least data at most 2 spBLEU behind, on more at most half a point; in part: so from "
        "the second size on.",
        "reciprocal",
        tuple(
            Test(
                kind,
                measure,
                "Embed FT minus full FT: {least:+.1f} on the least data, at worst "
                "{worst_after:+.1f} on more, {most:+.1f} on the most",
                lambda n: n["least"] >= -2 and n["worst_after"] >= -0.5,
                lambda n: n["worst_after"] >= -0.5,
            )
            for kind, measure in (
                ("published", evidence.embed_bilingual_published),
                ("trained", evidence.embed_bilingual_trained),
            )
        ),
    ),
    Claim(
        "embed-multilingual",
        "4.1",
        "Full FT on a reciprocal language over-specialises; Embed FT keeps the others.",
        "On the most data the others are at least 5 spBLEU higher by Embed FT, and full FT loses "
        "them as data grows; in part: the former.",
        "reciprocal",
        (
            Test(
                "trained",
                evidence.embed_multilingual_trained,
                "others on the most data: {embed:.1f} by Embed FT, {full:.1f} by full FT, which "
                "had {full_least:.1f} on the least",
                lambda n: n["gap"] >= 5 and n["full"] < n["full_least"],
                lambda n: n["gap"] >= 5,
            ),
        ),
    ),
    Claim(
        "number-of-languages",
        "4.1",
        "Full FT improves with the number of languages tuned on; Embed FT does not depend on it.",
        "Full FT rises by more than 1 spBLEU at one budget of pairs, and by more than Embed FT "
        "varies; in part: it rises, while the pairs rise too or Embed FT varies as much.",
        "reciprocal",
        tuple(
            Test(
                kind,
                measure,
                "full FT rises by {rise:.1f} while pairs grow {pairs_times:.0f}-fold; Embed FT "
                "varies by {embed_range:.1f}",
                lambda n: n["rise"] > max(1, n["embed_range"]) and n["pairs_times"] == 1,
                lambda n: n["rise"] > 1,
            )
            for kind, measure in (
                ("published", evidence.languages_full_published),
                ("trained", evidence.languages_full_trained),
            )
        ),
    ),
    Claim(
        "bilingual-better",
        "4.1",
        "Multilingual models are slightly behind bilingual ones.",
        "Sixteen languages by full FT score between 0 and 5 spBLEU less, at the same pairs; in "
        "part: they score less.",
        "reciprocal",
        tuple(
            Test(
                kind,
                measure,
                "multilingual minus bilingual: {difference:+.1f}",
                lambda n: -5 <= n["difference"] < 0,
                lambda n: n["difference"] < 0,
            )
            for kind, measure in (
                ("published", evidence.bilingual_better_published),
                ("trained", evidence.bilingual_better_trained),
            )
        ),
    ),
    Claim(
        "lower-layers",
        "Appendix G",
        "Tuning one lower layer is as good as Embed FT, a higher one is worse.",
        "Low layers are at most 1 spBLEU behind and high ones are further behind; in part: the "
        "latter.",
        "reciprocal",
        tuple(
            Test(
                kind,
                measure,
                "against Embed FT: {low:+.1f} (low), {high:+.1f} (high)",
                lambda n: n["low"] >= -1 > n["high"],
                lambda n: n["high"] < n["low"],
            )
            for kind, measure in (
                ("published", evidence.layers_published),
                ("trained", evidence.layers_trained),
            )
        ),
    ),
    Claim(
        "lower-together",
        "Appendix G",
        "Tuning all lower layers together gains nothing more.",
        "It gains at most 1 spBLEU over Embed FT on any size of data; in part: on the most.",
        "reciprocal",
        (
            Test(
                "published",
                evidence.lower_layers_published,
                "against Embed FT: {least:+.1f} on the least data, {most:+.1f} on the most",
                lambda n: max(n.values()) <= 1,
                lambda n: n["most"] <= 1,
            ),
            Test(
                "trained",
                evidence.lower_layers_trained,
                "ranges of layers against Embed FT: {least:+.1f} to {most:+.1f}",
                lambda n: max(n.values()) <= 1,
            ),
        ),
    ),
    Claim(
        "understanding",
        "Appendix H",
        "Embed FT is competitive on understanding tasks.",
        "At most 2 points behind the better of full FT and LoRA, whatever the training data.",
        "reciprocal",
        (
            Test(
                "published",
                evidence.understanding_published,
                "{worst:+.1f} to {best:+.1f} against the better of the two",
                lambda n: n["worst"] >= -2,
                lambda n: n["best"] >= -2,
            ),
        ),
    ),
    Claim(
        "error-types",
        "4.2",
        "An altruistic language's own score falls since source copies become oscillatory "
        "hallucinations.",
        "Copies fall by half and oscillation is then the commonest error; in part: copies fall by "
        "a quarter.",
        "altruistic",
        (
            Test(
                "trained",
                evidence.errors_trained,
                "source copies {source_copy_before:.0%} → {source_copy_after:.0%}, oscillation "
                "{oscillation_before:.0%} → {oscillation_after:.0%}, another language "
                "{off_target_before:.0%} → {off_target_after:.0%}",
                lambda n: (
                    n["source_copy_after"] <= n["source_copy_before"] / 2
                    and n["oscillation_after"] > n["off_target_after"]
                ),
                lambda n: n["source_copy_after"] <= 0.75 * n["source_copy_before"],
            ),
        ),
    ),
    Claim(
        "overlap",
        "4.2",
        "Altruistic languages help others since they share tokens with English.",
        "Overlap with English goes with the multilingual change: a rank correlation whose interval "
        "lies above 0.",
        "altruistic",
        tuple(
            Test(
                kind,
                measure,
                "rank correlation {rho:.2f} ({low:.2f} to {high:.2f}), {n:.0f} languages",
                lambda n: n["low"] > 0,
            )
            for kind, measure in (
                ("tokenizer", evidence.overlap_tokenizer),
                ("trained", evidence.overlap_trained),
            )
        ),
    ),
    Claim(
        "little-data",
        "4.2, 4.4",
        "For an altruistic language, full FT on little data lifts it and keeps the others.",
        "It lifts the language further than Embed FT does at any size, and keeps four fifths of "
        "the best gain of the others; in part: the former.",
        "altruistic",
        tuple(
            Test(
                kind,
                measure,
                "full FT on the least data: own {own:+.1f}, others {others:+.1f}; on the most: "
                "{own_much:+.1f}, {others_much:+.1f}. Best of Embed FT, own {own_embed:+.1f}; best "
                "of all, others {others_best:+.1f}",
                lambda n: n["own"] > n["own_embed"] and n["others"] >= 0.8 * n["others_best"],
                lambda n: n["own"] > n["own_embed"],
            )
            for kind, measure in (
                ("published", evidence.little_data_published),
                ("trained", evidence.little_data_trained),
            )
        ),
    ),
    Claim(
        "over-tokenised",
        "4.3",
        "Most stagnant languages are over-tokenised.",
        "More than half are, and a larger share than of the altruistic.",
        "stagnant",
        tuple(
            Test(
                kind,
                measure,
                "{over} of {stagnant} stagnant ones; {altruistic:.0%} of the altruistic",
                lambda n: (
                    _half(n, "over", "stagnant") and n["over"] / n["stagnant"] > n["altruistic"]
                ),
                lambda n: _half(n, "over", "stagnant"),
            )
            for kind, measure in (
                ("tokenizer", evidence.overtokenised_tokenizer),
                ("trained", evidence.overtokenised_trained),
            )
        ),
    ),
    Claim(
        "more-data",
        "4.3",
        "Full FT on over-tokenised languages needs more data, and gains modestly from it.",
        "On the least data they are below the others, and gain less from more than those; in part: "
        "the former.",
        "stagnant",
        tuple(
            Test(
                kind,
                measure,
                "on the least data {least:.1f} against {rest_least:.1f} of the others; with the "
                "most {full:+.1f} against {rest:+.1f}",
                lambda n: n["least"] < n["rest_least"] and n["full"] < n["rest"],
                lambda n: n["least"] < n["rest_least"],
            )
            for kind, measure in (
                ("published", evidence.more_data_published),
                ("trained", evidence.more_data_trained),
            )
        ),
    ),
    Claim(
        "lora-stagnant",
        "4.3",
        "LoRA does not move over-tokenised languages.",
        "At most 5 spBLEU on the most data.",
        "stagnant",
        tuple(
            Test(
                kind,
                measure,
                "{lora:.1f} spBLEU by LoRA on the most data",
                lambda n: n["lora"] <= evidence.RISEN,
            )
            for kind, measure in (
                ("published", evidence.more_data_published),
                ("trained", evidence.more_data_trained),
            )
        ),
    ),
    Claim(
        "vocabulary",
        "4.3",
        "Extending the vocabulary does not help stagnant languages.",
        "Fewer than a tenth of the settings gain; in part: fewer than half.",
        "stagnant",
        tuple(
            Test(
                kind,
                measure,
                "{better} of {settings} settings gain; median change {change:+.1f}",
                lambda n: n["better"] < 0.1 * n["settings"],
                lambda n: n["better"] < 0.5 * n["settings"],
            )
            for kind, measure in (
                ("published", evidence.vocabulary_published),
                ("trained", evidence.vocabulary_trained),
            )
        ),
    ),
    Claim(
        "vocabulary-sp",
        "4.3",
        "Of the ways to extend it, SentencePiece tends to be best.",
        "It is best in more than half of the comparisons.",
        "stagnant",
        tuple(
            Test(
                kind,
                measure,
                "best in {sp_best} of {groups}",
                lambda n: _half(n, "sp_best", "groups"),
            )
            for kind, measure in (
                ("published", evidence.vocabulary_published),
                ("trained", evidence.vocabulary_trained),
            )
        ),
    ),
    Claim(
        "one-prefix",
        "4.3",
        "All over-tokenised characters begin with the same token.",
        "One first byte for all languages; in part: one byte for more than half of them.",
        "stagnant",
        (
            Test(
                "tokenizer",
                evidence.same_prefix_tokenizer,
                "{e0} of {languages} languages begin with E0; {bytes} bytes in all",
                lambda n: n["bytes"] == 1,
                lambda n: _half(n, "e0", "languages"),
            ),
        ),
    ),
    Claim(
        "lossless",
        "4.3",
        "Dropping that token is lossless.",
        "Every sentence is restored.",
        "stagnant",
        (
            Test(
                "tokenizer",
                evidence.lossless_tokenizer,
                "{restored:.0%} of sentences restored in each of {languages} languages, "
                "{saving:.0%} of tokens saved",
                lambda n: n["restored"] == 1,
            ),
        ),
    ),
    Claim(
        "shortening",
        "4.3, 4.4",
        "Shortened sequences improve the translation of stagnant languages.",
        "The printed gain exceeds what the evaluation's limit on length predicts by itself; "
        "trained: the interval of the gain under a scaled limit lies above 0. In part: it gains.",
        "stagnant",
        (
            Test(
                "published",
                evidence.shortening_published,
                "{gain:+.1f} printed, {predicted:+.1f} predicted by the limit alone",
                lambda n: n["gain"] > n["predicted"],
                lambda n: n["gain"] > 0,
            ),
            Test(
                "trained",
                evidence.shortening_trained,
                "{gain:+.1f} ({low:+.1f} to {high:+.1f}) under a scaled limit, {settings} settings "
                "of {seeds} seeds",
                lambda n: n["low"] > 0,
                lambda n: n["gain"] > 0,
            ),
        ),
    ),
    Claim(
        "web-text",
        "Appendix F",
        "Over-tokenisation is stronger on FLORES than on mC4.",
        "The same tokens-per-word on both; mC4 is not at hand.",
        "stagnant",
    ),
)


@cache
def _measured(test: Test) -> Numbers:
    return test.measure()


def table(verbose: bool = False) -> pd.DataFrame:
    """Return what the evidence says of every claim.

    Args:
        verbose: Whether to add `key`, `chapter` and `supports`.

    Returns:
        A row a claim and kind of evidence that was measured, or a single row where there is none:
        `claim`, `section`, `evidence`, `verdict` (one of `VERDICTS`), `numbers`.
    """
    rows = []
    for claim in CLAIMS:
        shared = {"claim": claim.claim, "section": claim.section}
        more = {name: getattr(claim, name) for name in ("key", "chapter", "supports")}
        for test in claim.tests:
            numbers = _measured(test)
            found = {
                "evidence": test.evidence,
                "verdict": test.verdict(numbers),
                "numbers": test.numbers.format(**numbers),
            }
            rows.append(shared | found | more)
        if not claim.tests:
            found = {"evidence": "", "verdict": VERDICTS[-1], "numbers": ""}
            rows.append(shared | found | more)
    frame = pd.DataFrame(rows)
    return frame if verbose else frame.drop(columns=list(more))


def verdict(key: str, evidence: str) -> str:
    """Return one verdict.

    Raises:
        KeyError: There is no such claim, or no such evidence on it.
    """
    for claim in CLAIMS:
        if claim.key == key:
            for test in claim.tests:
                if test.evidence == evidence:
                    return test.verdict(_measured(test))
    raise KeyError(f"no {evidence} evidence on a claim {key!r}")
