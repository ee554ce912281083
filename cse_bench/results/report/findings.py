"""What may be said, in sentences: only what a verdict of the statistics carries."""

from collections.abc import Sequence

from cse_bench.results.collect import Group
from cse_bench.results.report.scores import sources_of_chance, widest
from cse_bench.results.report.tables import shown_p
from cse_bench.results.report.vocabulary import Metric, is_main, metric
from cse_bench.results.statistics.analysis import Analysis, Comparison, RankStability
from cse_bench.results.statistics.power import PAIRS_LEAVE_IT_OPEN


class Evidence(str):
    """The part of a sentence that says how sure it is."""

    __slots__ = ()


Part = str | Group
"""A finding is words and groups in turn, so that every group is shown with its status."""

_NAMED_ONE_BY_ONE = 8  # groups
_AT_MOST = "\N{LESS-THAN OR EQUAL TO}"
_EXPLAINED = {
    "interval": ("Intervals name the chance they cover.", "interval"),
    "corrected p": ("Corrected p", "p_adjusted"),
    "paired seeds": ("Paired seeds needed", "seeds_needed"),
    "Kendall's W": ("Kendall's W", "rank"),
}
_UNTESTED = {"too few seeds": "too few seeds for a test", "no test": "no test is possible"}
"""Verdicts that are none, and why."""


def findings(analyses: Sequence[Analysis]) -> list[list[Part]]:
    """Sentences about the first metric, and whether the other ones lead to the same verdicts.

    Args:
        analyses: of one block; the first one ranks.
    """
    if not analyses:
        return []
    first = analyses[0]
    sentences = [*_against_reference(first), *_about_the_best(first)]
    if first.ranks is not None:
        sentences.append(_about_ranks(first.ranks))
    sentences += _same_verdicts(first, [other for other in analyses[1:] if is_main(other.metric)])
    if not first.comparisons:
        sentences.append(
            [f"Nothing is compared: {'one group' if len(first.scores) == 1 else 'no two groups'} with scores."]
        )
    return sentences


def explained(sentences: Sequence[Sequence[Part]]) -> list[tuple[str, str]]:
    """Words that need an explanation where sentences use them, each with its glossary term."""
    text = " ".join(part for sentence in sentences for part in sentence if isinstance(part, str))
    return [found for word, found in _EXPLAINED.items() if word in text]


def _against_reference(analysis: Analysis) -> list[list[Part]]:
    shown = metric(analysis.metric)
    sentences: list[list[Part]] = []
    for verdict in ("better", "worse"):
        decided = [one for one in analysis.comparisons if one.verdict == verdict]
        decided.sort(key=lambda one: -abs(one.difference))
        if len(analysis.scores) > _NAMED_ONE_BY_ONE and len(decided) > 1:
            sentences.append(_together(decided, shown))
            continue
        for one in decided:
            amount = f" by {_sizes([one], shown)}."
            sentences.append([one.first, f" is {verdict} than ", one.second, amount, _evidence(one, shown)])
    undecided = {"not told apart": "not told apart from", **dict.fromkeys(_UNTESTED, "not compared with")}
    for verdict, words in undecided.items():
        open_ones = [one for one in analysis.comparisons if one.verdict == verdict]
        if open_ones:
            groups = [one.first for one in open_ones]
            verb = " are" if len(open_ones) > 1 else " is"
            why = f": {_UNTESTED[verdict]}" if verdict in _UNTESTED else ""
            needed = _needed(open_ones, groups, shown)
            sentences.append([*_listed(groups), f"{verb} {words} ", open_ones[0].second, f"{why}.", *needed])
    return sentences


def _together(decided: Sequence[Comparison], shown: Metric) -> list[Part]:
    """One sentence for all groups of one verdict, where one each would be a page of them."""
    one = decided[0]
    known = [other.p_adjusted for other in decided if other.p_adjusted is not None]
    evidence = Evidence(f"All corrected p {_with_sign(max(known), _AT_MOST)}." if known else "")
    amount = f" by {_sizes(decided, shown)}."
    return [*_listed([one.first for one in decided]), f" are {one.verdict} than ", one.second, amount, evidence]


def _sizes(comparisons: Sequence[Comparison], shown: Metric) -> str:
    """How large some differences are, without their signs."""
    sizes = sorted(abs(one.difference) for one in comparisons)
    ends = dict.fromkeys(shown.shown(size) for size in (sizes[0], sizes[-1]))
    return f"{' to '.join(ends)}{' points' if shown.points else ''}"


def _with_sign(p: float, sign: str) -> str:
    text = shown_p(p)
    return text if text.startswith("<") else f"{sign} {text}"


def _evidence(one: Comparison, shown: Metric) -> Evidence:
    parts = []
    if interval := widest(one):
        low, high = sorted((abs(interval.low), abs(interval.high)))
        if interval.low <= 0 <= interval.high:
            low, high = interval.low, interval.high
        of = f"{100 * interval.level:g} % interval over {sources_of_chance(one)}"
        parts.append(f"{of} {shown.shown(low)} to {shown.shown(high)}")
    if one.p_adjusted is not None:
        parts.append(f"corrected p {_with_sign(one.p_adjusted, '=')}")
    text = ", ".join(parts)
    return Evidence(f"{text[:1].upper()}{text[1:]}." if text else "")


def _needed(comparisons: Sequence[Comparison], groups: Sequence[Group], shown: Metric) -> list[Part]:
    """How many seeds would tell, where that is more than there are, and where no number would.

    Args:
        comparisons: not told apart.
        groups: one of each comparison, to name it by.
        shown: the metric.
    """
    possible = [one for one in comparisons if one.seeds_needed and one.seeds_needed > _seeds_at_hand(one)]
    known = sorted({one.seeds_needed or 0 for one in possible})
    sentences: list[Part] = []
    if possible:
        span = f"{known[0]:,} to {known[-1]:,}" if len(known) > 1 else f"{known[0]:,}"
        sizes = _sizes(possible, shown)
        which = f"a difference of {sizes}" if len(possible) == 1 else f"differences of {sizes}"
        sentences.append(f" About {span} paired seeds would tell {which}.")
    blocked = [
        group for one, group in zip(comparisons, groups, strict=True) if one.seeds_needed_reason == PAIRS_LEAVE_IT_OPEN
    ]
    if blocked:
        start: list[Part] = [" More"] if len(blocked) == len(groups) else [" For ", *_listed(blocked), ", more"]
        sentences += [*start, f" seeds alone would not: {PAIRS_LEAVE_IT_OPEN}."]
    return sentences


def _seeds_at_hand(one: Comparison) -> int:
    """Runs of the group that has fewer, or pairs of them; a baseline has no seed to be short of."""
    if one.paired_seeds > 1:
        return one.paired_seeds
    return min(len(group.runs) for group in (one.first, one.second) if group.runs[0].seed is not None)


def _about_the_best(analysis: Analysis) -> list[list[Part]]:
    """Who has the highest mean, and who cannot be told apart from it."""
    ranked = [score for score in analysis.scores if score.mean == score.mean]
    if len(ranked) < 2 or (len(ranked) == 2 and analysis.comparisons):  # the same two, said already
        return []
    best = ranked[0].group
    shown = metric(analysis.metric)
    close = [one for one in analysis.all_pairs if best.key in (one.first.key, one.second.key)]
    behind = [one for one in close if _verdict_of(one, best) == "better"]
    tied = [one for one in close if one.verdict == "not told apart"]
    untested = [one for one in close if one.verdict in _UNTESTED]
    start: list[Part] = [best, f" has the best mean ({shown.shown(ranked[0].mean)})"]
    if not tied and not untested and len(behind) == len(ranked) - 1 > 0:
        return [[*start, " and is better than every other group, all pairs of groups considered."]]
    sentences: list[list[Part]] = []
    if tied:
        others = [_other(one, best) for one in tied]
        sentences.append(
            [*start, ", but is not told apart from ", *_listed(others), ".", *_needed(tied, others, shown)]
        )
    for verdict, why in _UNTESTED.items():
        if others := [_other(one, best) for one in untested if one.verdict == verdict]:
            beginning = [best] if sentences else [*start, ", but"]
            sentences.append([*beginning, " is not compared with ", *_listed(others), f": {why}."])
    return sentences


def _verdict_of(one: Comparison, group: Group) -> str:
    """The verdict as seen from one of the two groups."""
    if one.verdict not in ("better", "worse") or one.first.key == group.key:
        return one.verdict
    return "worse" if one.verdict == "better" else "better"


def _other(one: Comparison, group: Group) -> Group:
    return one.second if one.first.key == group.key else one.first


def _about_ranks(ranks: RankStability) -> list[Part]:
    p = shown_p(ranks.p)
    words = f"p {p if p.startswith('<') else f'= {p}'}"
    return [
        f"Kendall's W over the {len(ranks.seeds)} seeds that {len(ranks.groups)} groups share is {ranks.kendall_w:.2f} "
        f"(1: every seed ranks the groups alike, 0: no agreement; Friedman's test that there is no order: {words})."
    ]


def _same_verdicts(first: Analysis, others: Sequence[Analysis]) -> list[list[Part]]:
    """Do other metrics lead to the same verdicts against the same reference?"""
    known = {one.first.key: one.verdict for one in first.comparisons}
    alike: list[str] = []
    sentences: list[list[Part]] = []
    for other in others:
        if first.reference is None or other.reference is None or first.reference.key != other.reference.key:
            continue
        both = [one for one in other.comparisons if one.first.key in known]
        changed = [one for one in both if one.verdict != known[one.first.key]]
        title = metric(other.metric).title
        alike += [title] if both and not changed else []
        for one in changed:
            words: str = _UNTESTED.get(one.verdict, one.verdict)
            before = known[one.first.key]
            sentences.append([f"By {title}, ", one.first, " against ", one.second, f": {words}, not {before}."])
    if alike and first.reference is not None:
        words = f"{', '.join(alike[:-1])} and {alike[-1]}" if len(alike) > 1 else alike[0]
        sentences.insert(0, [f"By {words}, every verdict against ", first.reference, " is the same."])
    return sentences


def _listed(groups: Sequence[Group]) -> list[Part]:
    """a, b and c."""
    parts: list[Part] = []
    for index, group in enumerate(groups):
        if index:
            parts.append(" and " if index == len(groups) - 1 else ", ")
        parts.append(group)
    return parts
