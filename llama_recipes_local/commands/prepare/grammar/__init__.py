"""``prepare grammar``: the grammar data set as upstream carries it, or made from its sources."""
