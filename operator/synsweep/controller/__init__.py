"""The Deployment: sees what leaves its Service and tells the nodes. The only package with kopf.

kopf handlers unpack, fold into the `view` and return; one writer thread (`dispatch`) makes every
write, so nothing ever blocks kopf's loop and there is one place that asks whether we may write.
Decisions live in core/: nothing here judges a backend.
"""
