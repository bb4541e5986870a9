"""A real conntrack table, in private network namespaces that each test makes and removes."""
