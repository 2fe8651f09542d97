"""The benchmark, `python -m ops.bench`: the chunk path against its peers and its limit."""
