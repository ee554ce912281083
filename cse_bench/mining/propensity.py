"""Inverse propensity weights: which candidates a sentence should be paired with.

Pairs built by simple rules are seen in proportion to how alike they are worded: a sentence and itself always, a
paraphrase in other words never. Dividing what a pair is worth by how likely such a rule shows it favours the others.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Propensity:
    r"""Weights of candidates from teacher cosine s and surface similarity u. The formulas are ours, see the source.

    .. math::
        w^+ = [s \ge \tau_+] \, e^{(s - 1) / T} / \max(u^\gamma, \epsilon) \qquad
        w^- = [s \le \tau_-] / \max((1 - u)^\gamma, \epsilon)

    A candidate between the thresholds is neither: the teacher is not trusted there. :math:`\epsilon` bounds what the
    surface can add: without it a pair with no word in common would have infinite weight.

    Attributes:
        positive_threshold: :math:`\tau_+`.
        negative_threshold: :math:`\tau_-`.
        temperature: T, how fast the worth of a positive falls with its cosine.
        gamma: :math:`\gamma`, strength of the correction; 0: none.
        epsilon: :math:`\epsilon`.
        semantic_filter: false: every candidate is worth 1 on both sides, whatever the teacher says.

    Source:
        Miao, Du and Zhang 2023 (arXiv 2309.07396) say that positives and negatives are sampled with inverse propensity
        weights from surface and semantic similarity. How is not public; the estimator is our reading.
    """

    positive_threshold: float
    negative_threshold: float
    temperature: float
    gamma: float
    epsilon: float
    semantic_filter: bool

    def log_positive_weights(self, similarity: np.ndarray, surface: np.ndarray) -> np.ndarray:
        """Log w+, -inf where the weight is 0; the sentence itself (s = u = 1) has 0."""
        s, u = similarity.astype(np.float64), surface.astype(np.float64)
        log_propensity = np.log(np.maximum(u**self.gamma, self.epsilon))
        if not self.semantic_filter:
            return np.asarray(-log_propensity)
        return np.where(s >= self.positive_threshold, (s - 1) / self.temperature - log_propensity, -np.inf)

    def log_negative_weights(self, similarity: np.ndarray, surface: np.ndarray) -> np.ndarray:
        """Log w-, -inf where the weight is 0."""
        s, u = similarity.astype(np.float64), surface.astype(np.float64)
        log_propensity = np.log(np.maximum((1 - u) ** self.gamma, self.epsilon))
        if not self.semantic_filter:
            return np.asarray(-log_propensity)
        return np.where(s <= self.negative_threshold, -log_propensity, -np.inf)


def probabilities(log_weights: np.ndarray) -> np.ndarray:
    """Weights over their sum, per row: (b, c) -> (b, c); zeros where a row has no weight at all."""
    largest = log_weights.max(axis=-1, keepdims=True)
    weights = np.exp(log_weights - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))
