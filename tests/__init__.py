"""Tests: unit (no kernel, no cluster), kernel (private namespaces), cluster (on the rig)."""
