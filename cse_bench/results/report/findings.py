"""What may be said, in sentences: only what a verdict of the statistics carries."""

from collections.abc import Sequence

from cse_bench.results.collect import Group
from cse_bench.results.report.scores import widest
from cse_bench.results.report.tables import shown_p
from cse_bench.results.report.vocabulary import Metric, is_main, metric
from cse_bench.results.statistics.analysis import Analysis, Comparison, RankStability
from cse_bench.results.statistics.power import PAIRS_LEAVE_IT_OPEN


class Evidence(str):
    """The part of a sentence that says how sure it is."""

    __slots__ = ()


Part = str | Group
"""A finding is words and groups in turn, so that every group is shown with its status."""

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


def _against_reference(analysis: Analysis) -> list[list[Part]]:
    shown = metric(analysis.metric)
    sentences: list[list[Part]] = []
    decided = [one for one in analysis.comparisons if one.verdict in ("better", "worse")]
    for one in sorted(decided, key=lambda one: (one.verdict, -abs(one.difference))):
        amount = f" by {shown.shown(abs(one.difference))}{' points' if shown.points else ''}"
        sentences.append([one.first, f" is {one.verdict} than ", one.second, f"{amount}.", _evidence(one, shown)])
    undecided = {"not told apart": "not told apart from", **dict.fromkeys(_UNTESTED, "not compared with")}
    for verdict, words in undecided.items():
        open_ones = [one for one in analysis.comparisons if one.verdict == verdict]
        if open_ones:
            groups = [one.first for one in open_ones]
            verb = " are" if len(open_ones) > 1 else " is"
            why = f": {_UNTESTED[verdict]}" if verdict in _UNTESTED else ""
            needed = _needed(open_ones, groups)
            sentences.append([*_listed(groups), f"{verb} {words} ", open_ones[0].second, f"{why}.", *needed])
    return sentences


def _evidence(one: Comparison, shown: Metric) -> Evidence:
    parts = []
    if interval := widest(one):
        chance = "seeds and test pairs" if one.over_both else "seeds" if one.over_seeds else "test pairs"
        low, high = sorted((abs(interval.low), abs(interval.high)))
        if interval.low <= 0 <= interval.high:
            low, high = interval.low, interval.high
        parts.append(f"{100 * interval.level:g} % interval over {chance} {shown.shown(low)} to {shown.shown(high)}")
    if one.p_adjusted is not None:
        p = shown_p(one.p_adjusted)
        parts.append(f"corrected p {p if p.startswith('<') else f'= {p}'}")
    text = ", ".join(parts)
    return Evidence(f"{text[:1].upper()}{text[1:]}." if text else "")


def _needed(comparisons: Sequence[Comparison], groups: Sequence[Group]) -> list[Part]:
    """How many seeds would tell, where that is more than there are, and where no number would.

    Args:
        comparisons: not told apart.
        groups: one of each comparison, to name it by.
    """
    known = [one.seeds_needed for one in comparisons if one.seeds_needed and one.seeds_needed > _seeds_at_hand(one)]
    sentences: list[Part] = []
    if len(comparisons) == 1 and known:
        sentences.append(f" About {known[0]:,} seeds would tell a difference of this size.")
    elif known:
        span = f"{min(known):,} to {max(known):,}" if len(set(known)) > 1 else f"{known[0]:,}"
        sentences.append(f" Differences of these sizes would need about {span} seeds.")
    blocked = [
        group for one, group in zip(comparisons, groups, strict=True) if one.seeds_needed_reason == PAIRS_LEAVE_IT_OPEN
    ]
    if blocked:
        which: list[Part] = [" More"] if len(blocked) == len(groups) else [" For ", *_listed(blocked), ", more"]
        sentences += [*which, f" seeds alone would not: {PAIRS_LEAVE_IT_OPEN}."]
    return sentences


def _seeds_at_hand(one: Comparison) -> int:
    """Runs of the group that has fewer, or pairs of them; a baseline has no seed to be short of."""
    if one.paired_seeds > 1:
        return one.paired_seeds
    return min(len(group.runs) for group in (one.first, one.second) if group.runs[0].seed is not None)


def _about_the_best(analysis: Analysis) -> list[list[Part]]:
    """Who has the highest mean, and who cannot be told apart from it."""
    ranked = [score for score in analysis.scores if score.mean == score.mean]
    if len(ranked) < 2:
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
        sentences.append([*start, ", but is not told apart from ", *_listed(others), ".", *_needed(tied, others)])
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
