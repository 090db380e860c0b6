"""Floor 10: fakes and contract suites for authors of tests, shipped so that drivers outside the tree can use them."""
