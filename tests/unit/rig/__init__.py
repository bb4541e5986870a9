"""What the rig decides without touching the machine."""
