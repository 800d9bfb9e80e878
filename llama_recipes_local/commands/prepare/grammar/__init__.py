"""``prepare grammar``: the grammar data set as upstream publishes it, or built from its sources."""
