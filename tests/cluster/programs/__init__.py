"""Programs that run in the rig's pods and namespaces: standard library, JSON lines out."""
