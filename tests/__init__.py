"""Tests: unit (mirrors the package), kernel (private network namespaces), cluster (the rig), and the rig itself."""
