"""Section triplets, against loops over every triplet."""

from collections.abc import Sequence

import numpy as np
import pytest

from cse_bench.data.wikidump import Article, Section
from cse_bench.data.wikipedia import WikipediaSample, split_articles
from cse_bench.errors import DataError
from cse_bench.evaluation import wiki_sections
from cse_bench.evaluation.task import Evaluation, run_tasks
from cse_bench.evaluation.wiki_sections import WikiSections, collect_anchors, same_section_pairs, score_anchors

REAL_ANCHORS = (1491, 3475)  # of dev and test in the real sample

# Three articles with 3 + 5 + 4, 3 + 3 and 6 + 3 + 3 + 7 sentences in their sections.
ARTICLE = np.repeat([0, 1, 2], [12, 6, 19])
SECTION = np.repeat(np.arange(9), [3, 5, 4, 3, 3, 6, 3, 3, 7])


def invented_articles(count: int) -> list[Article]:
    """Articles that can be held out: a lead, four sections of 16 sentences, and one that is too short."""
    return [
        Article(
            title=f"Title {a}",
            sections=(
                Section("", (f"lead {a}",)),
                *(Section(f"part {s}", tuple(f"{a} {s} {k}" for k in range(16))) for s in range(4)),
                Section("short", (f"short {a} 1", f"short {a} 2")),
            ),
        )
        for a in range(count)
    ]


def random_encoder(sentences: Sequence[str]) -> np.ndarray:
    """Vectors that depend on the sentence alone, with a part that is common to its section."""
    rows = []
    for text in sentences:
        article, section, number = (int(part) for part in text.split())
        common = np.random.default_rng([article, section]).normal(size=6)
        rows.append(common + np.random.default_rng([article, section, number]).normal(size=6))
    return np.stack(rows)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / (float(a @ a) ** 0.5 * float(b @ b) ** 0.5)


def slow_scores(embeddings: np.ndarray, article: np.ndarray, section: np.ndarray) -> tuple[list[float], list[float]]:
    """Share and margin of each anchor by a loop over all its triplets."""
    shares, margins = [], []
    for a in range(len(embeddings)):
        points, differences = [], []
        for s in range(len(embeddings)):
            for o in range(len(embeddings)):
                if s != a and section[s] == section[a] and article[o] == article[a] and section[o] != section[a]:
                    difference = cosine(embeddings[a], embeddings[s]) - cosine(embeddings[a], embeddings[o])
                    differences.append(difference)
                    points.append(0.5 if abs(difference) < 1e-9 else float(difference > 0))
        shares.append(sum(points) / len(points))
        margins.append(sum(differences) / len(differences))
    return shares, margins


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> list[Article]:
    """Forty invented articles in the place of the sample."""
    articles = invented_articles(40)
    monkeypatch.setattr(wiki_sections, "load_articles", lambda *, cache: articles)
    return articles


@pytest.mark.parametrize("seed", range(3))
def test_scores_match_a_loop_over_all_triplets(seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(len(ARTICLE), 5)).astype(np.float32)
    shares, margins = score_anchors(embeddings, article=ARTICLE, section=SECTION)
    expected_shares, expected_margins = slow_scores(embeddings.astype(np.float64), ARTICLE, SECTION)
    np.testing.assert_allclose(shares, expected_shares, atol=1e-12)
    np.testing.assert_allclose(margins, expected_margins, atol=1e-9)
    assert len(set(shares)) > 10


def test_ties_count_one_half() -> None:
    embeddings = np.random.default_rng(0).integers(1, 3, size=(len(ARTICLE), 2)).astype(np.float64)
    shares, _ = score_anchors(embeddings, article=ARTICLE, section=SECTION)
    expected, _ = slow_scores(embeddings, ARTICLE, SECTION)
    np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_rows_in_any_order_and_of_any_length_score_the_same() -> None:
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(len(ARTICLE), 5))
    shares, margins = score_anchors(embeddings, article=ARTICLE, section=SECTION)
    order = generator.permutation(len(ARTICLE))
    scaled = (embeddings * generator.uniform(0.1, 9, size=(len(ARTICLE), 1)))[order]
    moved_shares, moved_margins = score_anchors(scaled, article=ARTICLE[order], section=SECTION[order])
    np.testing.assert_allclose(moved_shares, shares[order], atol=1e-12)
    np.testing.assert_allclose(moved_margins, margins[order], atol=1e-9)


@pytest.mark.parametrize(
    "embeddings, share, margin",
    [
        (np.eye(9)[SECTION], 1.0, 1.0),
        (np.ones((len(SECTION), 4)), 0.5, 0.0),
        (np.full((len(SECTION), 3), 1e-3) * np.arange(1, len(SECTION) + 1)[:, None], 0.5, 0.0),
    ],
    ids=["own direction for each section", "collapsed", "one direction, other lengths"],
)
def test_known_spaces(embeddings: np.ndarray, share: float, margin: float) -> None:
    shares, margins = score_anchors(embeddings, article=ARTICLE, section=SECTION)
    assert shares.tolist() == [share] * len(SECTION)
    np.testing.assert_allclose(margins, margin, atol=1e-12)


def test_anchors_are_the_sentences_of_thematic_sections() -> None:
    articles = invented_articles(3)
    anchors = collect_anchors(articles)
    expected = [(f"{a} {s} {k}", a, 4 * a + s) for a in range(3) for s in range(4) for k in range(16)]
    found = zip(anchors.sentences, anchors.article.tolist(), anchors.section.tolist(), strict=True)
    assert list(found) == expected


def test_pairs_are_all_pairs_of_a_section_once() -> None:
    expected = [[i, j] for i in range(len(SECTION)) for j in range(i + 1, len(SECTION)) if SECTION[i] == SECTION[j]]
    assert same_section_pairs(SECTION).tolist() == expected


def test_dev_yields_accuracy_and_geometry_of_the_same_embeddings(held_out: list[Article]) -> None:
    result = run_tasks([WikiSections(split="dev", cache="unused")], random_encoder)
    anchors = collect_anchors(split_articles(held_out, split="dev"))
    embeddings = random_encoder(anchors.sentences)
    n = len(embeddings)
    assert n == result.num_sentences == 8 * 4 * 16

    expected, _ = slow_scores(embeddings[:64], anchors.article[:64], anchors.section[:64])
    np.testing.assert_allclose(result.arrays["pairs/wiki_sections/dev/accuracy"][:64], 100 * np.array(expected))
    assert result.arrays["pairs/wiki_sections/dev/margin"].shape == (n,)
    accuracy = result.metrics["wiki_sections/dev/accuracy"]
    assert accuracy == pytest.approx(result.arrays["pairs/wiki_sections/dev/accuracy"].mean())
    assert 60 < accuracy < 100

    everything, positives = [], []
    for i in range(n):
        for j in range(i + 1, n):
            squared = 2 - 2 * cosine(embeddings[i], embeddings[j])
            everything.append(squared)
            if anchors.section[i] == anchors.section[j]:
                positives.append(squared)
    alignment, dispersion = float(np.mean(positives)), float(np.mean(everything))
    uniformity = float(np.log(np.mean(np.exp(-2 * np.array(everything)))))
    geometry = {path: value for path, value in result.metrics.items() if path.startswith("geometry/")}
    assert geometry == {
        "geometry/alignment": pytest.approx(alignment),
        "geometry/uniformity": pytest.approx(uniformity),
        "geometry/dispersion": pytest.approx(dispersion),
        "geometry/align_uniform_ratio": pytest.approx(alignment / -uniformity),
        "geometry/align_dispersion_ratio": pytest.approx(alignment / dispersion),
        "geometry/mean_cosine": pytest.approx(1 - dispersion / 2),
        "geometry/effective_rank": result.metrics["geometry/effective_rank"],
        "geometry/largest_variance_share": result.metrics["geometry/largest_variance_share"],
        "geometry/num_positives": len(positives),
        "geometry/num_sentences": n,
    }
    assert "not STS-B" in result.labels["geometry"]


def test_collapsed_encoder_gets_fifty_and_a_reason(held_out: list[Article]) -> None:
    task = WikiSections(split="dev", cache="unused")
    result = run_tasks([task], lambda sentences: np.ones((len(sentences), 3)))
    assert result.metrics["wiki_sections/dev/accuracy"] == 50
    undefined = ("align_uniform_ratio", "align_dispersion_ratio", "effective_rank", "largest_variance_share")
    assert result.notes == {f"geometry/{name}": "collapsed" for name in undefined}


def test_dev_and_test_run_together_on_different_articles(held_out: list[Article]) -> None:
    dev, test = WikiSections(split="dev", cache="unused"), WikiSections(split="test", cache="unused")
    result = run_tasks([dev, test], random_encoder)
    assert not set(dev.sentences()) & set(test.sentences())
    assert result.num_sentences == (8 + 22) * 64
    assert {"wiki_sections/dev/accuracy", "wiki_sections/test/accuracy"} <= result.metrics.keys()
    alone = run_tasks([test], random_encoder)
    assert alone.metrics == {"wiki_sections/test/accuracy": result.metrics["wiki_sections/test/accuracy"]}
    assert alone.arrays.keys() == {"pairs/wiki_sections/test/accuracy", "pairs/wiki_sections/test/margin"}
    assert all(any(path.startswith(label) for label in result.labels) for path in result.metrics)


def test_sources_change_when_a_sentence_changes_its_section(
    held_out: list[Article], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = WikiSections(split="test", cache="unused")
    sentences, before = task.sentences(), task.sources()
    assert before == WikiSections(split="test", cache="unused").sources()
    moved = []
    for article in held_out:
        lead, first, second, *rest = article.sections
        first = Section(first.heading, first.sentences[:-1])
        second = Section(second.heading, (article.sections[1].sentences[-1], *second.sentences))
        moved.append(Article(article.title, (lead, first, second, *rest)))
    monkeypatch.setattr(wiki_sections, "load_articles", lambda *, cache: moved)
    after = WikiSections(split="test", cache="unused")
    assert after.sentences() == sentences
    assert after.sources().keys() == before.keys()
    assert after.sources()["anchors of wiki_sections/test"] != before["anchors of wiki_sections/test"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_other_splits_are_refused(split: str) -> None:
    with pytest.raises(DataError, match=f"'{split}'.*dev and test"):
        WikiSections(split=split, cache="unused")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[WikiSections, WikiSections, Evaluation, set[str]]:
    """Dev and test task on the real sample, their result for random vectors, and the training sentences."""
    pytest.importorskip("gensim", reason="the real articles are inside gensim: pip install gensim==4.4.0")
    cache = str(tmp_path_factory.mktemp("wikipedia"))
    dev, test = WikiSections(split="dev", cache=cache), WikiSections(split="test", cache=cache)
    result = run_tasks([dev, test], lambda s: np.random.default_rng(0).normal(size=(len(s), 32)))
    return dev, test, result, set(WikipediaSample(cache=cache).lines())


def test_real_splits_have_the_documented_size(
    real: tuple[WikiSections, WikiSections, Evaluation, set[str]],
) -> None:
    dev, test, result, training = real
    assert (len(dev.sentences()), len(test.sentences())) == REAL_ANCHORS
    assert not training & (set(dev.sentences()) | set(test.sentences()))
    assert len({*dev.sentences(), *test.sentences()}) == result.num_sentences == sum(REAL_ANCHORS)


def test_real_questions_cannot_be_guessed(real: tuple[WikiSections, WikiSections, Evaluation, set[str]]) -> None:
    metrics = real[2].metrics
    assert metrics["wiki_sections/dev/accuracy"] == pytest.approx(50, abs=1)
    assert metrics["wiki_sections/test/accuracy"] == pytest.approx(50, abs=1)
    assert metrics["geometry/align_dispersion_ratio"] == pytest.approx(1, abs=0.02)
