"""What every column, figure and word of the report means, in a few plain sentences, with a formula where it helps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """An explanation.

    Attributes:
        title: what is explained.
        text: in one to three sentences.
        formula: in plain characters, or empty.
    """

    title: str
    text: str
    formula: str = ""


TERMS: dict[str, Term] = {
    # what is compared
    "method": Term(
        "Method",
        "The training objective, under the name it has on the command line (method=...). Where one method "
        "was run with several settings, the settings that differ stand in brackets. The badge says where "
        "its definition comes from.",
    ),
    "status": Term(
        "Status of a method",
        "official code: written after the authors' published code. paper: written after the paper's "
        "equations. own reading: the details are not public, so this is one possible reading, and its "
        "score need not be the score of the authors' method. baseline: nothing was trained.",
    ),
    "group": Term(
        "Group, run, seed",
        "A run is one training with one seed, the number that decides initial weights, order of the "
        "sentences and dropout. Runs that differ by their seed alone form a group; a group is one row of "
        "the tables.",
    ),
    "block": Term(
        "Comparable runs",
        "Runs are set side by side only when they share backbone, training text, numerical precision, "
        "test data and the version of the tests. Whatever differs in one of these stands in a section of "
        "its own.",
    ),
    "backbone": Term(
        "Backbone",
        "The pretrained network that every method of this section starts from.",
    ),
    "evaluation_data": Term(
        "Evaluation data",
        "A short name (checksum) for the exact files that were tested on. Equal names mean equal data.",
    ),
    "task_versions": Term(
        "Task versions",
        "The version of each test. It is raised whenever a change of the test changes its numbers.",
    ),
    "precision": Term(
        "Precision",
        "How numbers are stored while training or embedding: 32-true is 32-bit floating point throughout, "
        "bf16-mixed computes most products in 16 bits.",
    ),
    "training_text": Term(
        "Training text",
        "The sentences trained on, without any labels: name, start of the checksum, and their number.",
    ),
    "fact": Term(
        "Shared setting",
        "A setting that all runs of this section have in common.",
    ),
    "versions": Term(
        "Software versions",
        "Versions of the programs that made the runs, as each run recorded them.",
    ),
    "left_out": Term(
        "Left out",
        "Directories that were found but not counted, with the reason: unfinished, failed, damaged, or "
        "the same run as another one.",
    ),
    "setup": Term(
        "Setup",
        "What each group was trained with: pooling (how token vectors become one sentence vector), steps, "
        "sentences per step, learning rate, and the source of the method.",
    ),
    "pooling": Term(
        "Pooling",
        "How the vectors of the tokens become one vector for the sentence; cls: the first one.",
    ),
    "steps": Term(
        "Steps",
        "Number of updates of the weights in one run.",
    ),
    "batch": Term(
        "Sentences per step",
        "The global batch size: sentences that one update of the weights is made of.",
    ),
    "lr": Term(
        "Learning rate",
        "The largest step size of the optimiser.",
    ),
    "source": Term(
        "Source",
        "The publication that the method or the number comes from.",
    ),
    # scores
    "score": Term(
        "Score",
        "The metric that this section is ranked by; its name stands in the heading.",
    ),
    "n": Term(
        "n",
        "Number of runs, each with another seed. A baseline is not trained, so it has one run and no seed.",
    ),
    "mean": Term(
        "Mean \N{PLUS-MINUS SIGN} standard deviation",
        "Mean over the runs, and how much single runs scatter around it. The standard deviation describes "
        "one run; it is not an interval of the mean.",
        "sd = square root of ( sum of (x - mean)\N{SUPERSCRIPT TWO} / (n - 1) )",
    ),
    "min_max": Term(
        "Range",
        "Smallest and largest score of a single run.",
    ),
    "interval": Term(
        "95 % interval",
        "A range made so that it covers the true value in 95 of 100 studies like this one. Each interval "
        "covers only the source of chance that it names: seeds, test pairs, or both. It is not corrected for the "
        "number of comparisons, as a verdict is, so one that just misses 0 can stand beside 'not told apart'.",
    ),
    "over_seeds": Term(
        "95 % over seeds",
        "Interval of the mean if other seeds had been drawn, with the same test pairs.",
        "mean \N{PLUS-MINUS SIGN} t(n - 1) \N{MULTIPLICATION SIGN} sd / square root of n",
    ),
    "over_pairs": Term(
        "95 % over test pairs",
        "Interval of the score if other test pairs had been drawn, with the runs as they are. Made by "
        "drawing test pairs with replacement many times (bootstrap).",
    ),
    "over_both": Term(
        "95 % over both",
        "Interval of the score if other seeds and other test pairs had been drawn; never narrower than over seeds "
        "alone. The one to quote. Not corrected for the number of comparisons, as a verdict is: one that just misses 0 "
        "can stand beside 'not told apart'.",
    ),
    "p_best": Term(
        "P(best)",
        "How often this group came out first when seeds and test pairs were drawn again many times. It is "
        "about this set of groups: adding one changes it for all. It is no test: drawn from few seeds it is too sure, "
        "and it uses all seeds of a group where a comparison uses those that both have, so 0.99 can stand beside "
        "'not told apart'.",
    ),
    "forest": Term(
        "Scores at a glance",
        "One row per group: each small dot is one run, the large marker their mean, the bar the widest 95 "
        "% interval that there is (over seeds and test pairs where both are known). Bars of two groups "
        "may overlap although the paired comparison tells them apart, because it cancels what both share.",
    ),
    "rank": Term(
        "Rank stability",
        "Kendall's coefficient of concordance W says how far the seeds agree about the order of the "
        "groups: 1 when every seed gives the same order, 0 when there is no agreement. The p-value is "
        "Friedman's test that there is no order.",
    ),
    # comparisons
    "reference": Term(
        "Reference",
        "The group that the others are compared with here.",
    ),
    "difference": Term(
        "Difference",
        "Mean of the group in the row less the mean of the other one; over the seeds that both have, when "
        "these are two or more. Points are points of 100.",
    ),
    "paired": Term(
        "Paired seeds",
        "Seeds that both groups have. Below two, the comparison cannot be paired.",
    ),
    "p": Term(
        "p",
        "How often a difference at least this large would come up by chance if the two groups were equally good.",
    ),
    "p_adjusted": Term(
        "Corrected p",
        "p after correction for the number of comparisons in the table: among many comparisons some look "
        "large by chance. The verdict uses this one, at 0.05.",
    ),
    "effect": Term(
        "Effect size",
        "Difference in units of the scatter between seeds, corrected for few seeds. Above about 0.8 is "
        "called large; with few seeds it is itself uncertain.",
        "difference / standard deviation over seeds (of the differences, when paired)",
    ),
    "seeds_needed": Term(
        "Seeds needed",
        "Paired seeds in all with which the test of p would tell a difference of this size from none four times out "
        "of five (power 0.8, at 0.05, before correction), on as many test pairs as here. Empty where no number of "
        "seeds would: the test pairs alone leave such a difference open.",
        "power of the test with variance sd\N{SUPERSCRIPT TWO} / n + v; v: over test pairs",
    ),
    "verdict": Term(
        "Verdict",
        "better or worse: the corrected p is below 0.05; it is over seeds and test pairs, without per-pair scores over "
        "seeds alone. Intervals are not corrected. not told apart: it is not below; the groups may still differ. "
        "too few seeds: a single run does not say how much its seed matters. no test: there is nothing to "
        "make a test of; all runs give the same difference, or no seed is involved and the metric has no per-pair "
        "scores, or resampled test pairs have no score.",
    ),
    "all_pairs": Term(
        "Every two groups",
        "Each cell compares the group of its row with the group of its column: a symbol for the verdict "
        "and the difference, row less column. Select a cell for intervals and p-values. Corrected for the "
        "number of all pairs, so a verdict can be weaker than in the table above.",
    ),
    "all_metrics": Term(
        "Every metric",
        "The same statistics for each metric by itself. p-values are corrected within a metric, not over all of them: "
        "among very many rows some are small by chance.",
    ),
    # tasks
    "sts": Term(
        "STS12 to STS16, STS-B, SICK-R",
        "Sentence pairs that people graded for similarity. Score: Spearman's rank correlation between the "
        "grades and the cosines of the embeddings, times 100, over all pairs of a task at once. Average: "
        "unrounded mean of the seven.",
        "Spearman = correlation of the ranks, -100 to 100",
    ),
    "leak_free": Term(
        "Leak-free average",
        "The same scores without the test pairs that also occur in STS-B dev, on which checkpoints are "
        "selected; a pair that occurs in several tasks counts once, in the smallest of them.",
    ),
    "sts_mean": Term(
        "STS, mean over sub-sets",
        "Spearman's correlation in each sub-set of a task, then their mean. Not comparable with the score "
        "over all pairs.",
    ),
    "sts_wmean": Term(
        "STS, weighted mean over sub-sets",
        "Spearman's correlation in each sub-set of a task, then their mean weighted by pairs. Not "
        "comparable with the score over all pairs.",
    ),
    "dev": Term(
        "Dev score",
        "The score on development data, which decides the step whose weights are kept. It was optimised "
        "over the steps, so it is not a test score.",
    ),
    "transfer": Term(
        "Transfer tasks",
        "Accuracy in per cent of a logistic regression on frozen sentence embeddings, after SentEval's protocol.",
    ),
    "sample": Term(
        "Tests of the quickstart",
        "Wikipedia sections: is a sentence closer to its own section than to another section of the same "
        "article, in per cent of triplets. Lee documents: Spearman's correlation, times 100, between "
        "people's grades of document pairs and cosines.",
    ),
    "other_metric": Term(
        "Metric",
        "A metric of the runs, under its path in their results.",
    ),
    "task_table": Term(
        "Scores by task",
        "Mean \N{PLUS-MINUS SIGN} standard deviation over the runs of each group, task by task.",
    ),
    "heat": Term(
        "Difference by task",
        "Mean of a group less the mean of the reference, task by task. Blue: higher than the reference, "
        "orange: lower; the stronger, the larger. No test is made in this figure: single tasks scatter "
        "more than the average.",
    ),
    "overlap": Term(
        "Overlap of the STS tasks",
        "Which rows of the tests make the leak-free score. Two pairs are the same when their letters and "
        "digits agree, in either order of the sentences.",
    ),
    "overlap_scored": Term(
        "Scored rows",
        "Graded pairs of the test as everyone uses it.",
    ),
    "overlap_dev": Term(
        "Also in STS-B dev",
        "Pairs that also occur in STS-B dev, which selects checkpoints. Left out.",
    ),
    "overlap_repeated": Term(
        "Repeated",
        "Rows that repeat an earlier row of the same task. Counted once.",
    ),
    "overlap_elsewhere": Term(
        "Counted elsewhere",
        "Pairs that also occur in a smaller task and are counted there.",
    ),
    "overlap_kept": Term(
        "Kept",
        "Rows that the leak-free score of this task is made of.",
    ),
    # published numbers
    "published": Term(
        "Published numbers",
        "What the authors, or others, report for the same method and backbone, beside the mean found "
        "here. Training text, steps and other settings may differ.",
    ),
    "published_value": Term(
        "Published",
        "The reported number, with its standard deviation and number of seeds where these are reported.",
    ),
    "published_by": Term(
        "By",
        "Who reports the number: the authors of the method, others who ran it again (reproduction), or an earlier "
        "study of this repository.",
    ),
    "published_certain": Term(
        "Certainty",
        "uncertain: the number could not be checked against its source when it was entered.",
    ),
    "ours": Term(
        "Here",
        "Mean of the runs of this report, and their number.",
    ),
    "expected": Term(
        "Is it expected?",
        "Compares the published number with what the runs here would lead one to expect of it, or the "
        "other way round; the sentence says which interval was used.",
    ),
    # geometry
    "alignment": Term(
        "Alignment (lower is better)",
        "Mean squared distance between the embeddings of sentences that mean the same, scaled to length 1 "
        "(Wang and Isola 2020).",
        "A = mean over positive pairs of |f(u) - f(v)|\N{SUPERSCRIPT TWO}, 0 to 4",
    ),
    "uniformity": Term(
        "Uniformity (lower is better)",
        "How evenly the embeddings are spread over the sphere (Wang and Isola 2020).",
        "U = log of the mean over all pairs of exp(-2 |f(i) - f(j)|\N{SUPERSCRIPT TWO}), -8 to 0",
    ),
    "dispersion": Term(
        "Dispersion",
        "Mean squared distance of all pairs of embeddings: 0 when all are equal, 2 when they are spread out.",
    ),
    "ratios": Term(
        "Ratio metrics (cse_bench definition)",
        "Alignment in proportion to how far apart embeddings are at all, so that squeezing everything "
        "into a narrow cone is not rewarded. Lower is better. They inform; they never select.",
        "align/uniform = A / -U,   align/dispersion = A / D",
    ),
    "mean_cosine": Term(
        "Mean cosine",
        "Mean cosine of two random sentences: near 1 when all embeddings lie in a narrow cone, near 0 "
        "when they are spread.",
    ),
    "effective_rank": Term(
        "Effective rank",
        "How many directions the embeddings really use, between 1 and their width.",
        "exp(-sum q log q), q: share of each singular value",
    ),
    "variance_share": Term(
        "Largest variance share",
        "Share of the variance that a single coordinate has; near 1, one coordinate decides every cosine.",
    ),
    "geometry": Term(
        "Geometry of the embeddings",
        "Numbers that describe the cloud of sentence embeddings of the selected encoder. They do not rank "
        "methods: a good value of one alone can come with a bad score.",
    ),
    "plane": Term(
        "Alignment and uniformity over training",
        "Each path follows one method through training, the mean over its seeds at each evaluation; it "
        "starts at the untrained backbone where that is pooled in the same way. The large marker is the "
        "mean of the selected encoders, small dots are those of single seeds. Lower left is better on "
        "both axes.",
    ),
    "spectrum": Term(
        "Singular values",
        "Singular values of the centred embeddings, largest first, in proportion to the largest one; mean "
        "over seeds. A line that falls fast means that few directions carry everything.",
    ),
    "density": Term(
        "Cosines by grade",
        "How the cosines of graded pairs are distributed, for pairs with grades 0 to 1 at the bottom up "
        "to 4 to 5 at the top; the seeds are pooled. The further the hills move to the right with the "
        "grade and the less they overlap, the better the cosine tells grades apart. Curves are kernel "
        "density estimates, each scaled to its own peak.",
    ),
    # training and cost
    "curves": Term(
        "Dev score over training",
        "Line: mean over seeds at each evaluation. Band: smallest to largest seed. Dots: the step that "
        "was kept in each run. Grey lines: the means of the other groups. Dashed: the untrained backbone.",
    ),
    "cost": Term(
        "Cost",
        "What a method costs beside what it scores. Times depend on the machine and on what else it did; "
        "parameters and operations do not.",
    ),
    "cost_plot": Term(
        "Score against cost",
        "Each marker is one group: mean cost to the right, mean score up, bar: the widest 95 % interval "
        "of the score that there is. Up and left is better. Dashed: a baseline without training.",
    ),
    "train_time": Term(
        "Training time",
        "Seconds in training steps, without evaluation.",
    ),
    "preparation_time": Term(
        "Preparation time",
        "Seconds for what a method computes before its first step, e.g. mining. 0: nothing.",
    ),
    "prerequisites_time": Term(
        "Prerequisites",
        "Seconds of training the other models that a method builds on, such as a teacher.",
    ),
    "total_time": Term(
        "Total training time",
        "Training, preparation and prerequisites together.",
    ),
    "sentences_per_s": Term(
        "Sentences per second",
        "Training sentences per second, each counted once.",
    ),
    "eval_time": Term(
        "Evaluation time",
        "Seconds for all evaluations of a run together.",
    ),
    "peak_memory": Term(
        "Peak memory",
        "Largest memory of the process (on a GPU: of the device), in MiB.",
    ),
    "inference_parameters": Term(
        "Parameters",
        "Parameters of the encoder that is used after training, in millions.",
    ),
    "inference_flops": Term(
        "Inference operations",
        "Floating-point operations of the matrix products that embed one sentence of 24 words, in "
        "millions. Counted, not timed.",
    ),
    # runs
    "runs": Term(
        "All runs",
        "Every run that the numbers above are made of.",
    ),
    "seed": Term(
        "Seed",
        "Decides initial weights, order of sentences and dropout. Empty: not trained, so no seed.",
    ),
    "selected_step": Term(
        "Selected step",
        "The step whose weights were kept: the strictly best dev score.",
    ),
    "revision": Term(
        "Revision",
        "Git commit of the code; + means that the working tree had changes on top of it.",
    ),
    "finished": Term(
        "Finished",
        "When the run ended (UTC).",
    ),
    "directory": Term(
        "Directory",
        "The run's directory.",
    ),
}
