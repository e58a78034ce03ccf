"""From finished runs to estimates, comparisons and verdicts."""
