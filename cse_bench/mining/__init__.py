"""Mining: which other sentences of the corpus may stand as positives and as hard negatives of a sentence."""
