"""What runs say, with its uncertainty: intervals, comparisons, ranks, and how many seeds a claim needs."""
