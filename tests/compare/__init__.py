"""The public comparison: the same faults and the same books for this package and its peers; docs/comparison.md."""
