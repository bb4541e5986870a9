"""A real three-node Kubernetes on this machine: see tests/rig."""
