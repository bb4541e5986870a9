"""What people and machines see of a running part: logs, metrics, health.

Values of core/ come in; log lines, samples and answers go out. Nothing here decides anything, and
nothing here breaks the work: what cannot be written is dropped.
"""
