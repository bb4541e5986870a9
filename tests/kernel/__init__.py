"""Tests on a real conntrack table, with real packets and real DNAT, in private namespaces.

They need root. All namespaces are named `ssk-<pid>-...` and removed at the end, also after a
failure. `nf_conntrack_max` and `nf_conntrack_buckets` are global over network namespaces: where a
test needs another value, it sets it and puts it back; runs beside each other wait for each other
there.

Sizes are parameters. The defaults finish within a minute; SYNSWEEP_LONG=1 (`make test-long`) takes
the second value of each; a variable of its own overrides both:

| variable | default | long | what |
|---|---|---|---|
| SYNSWEEP_E2_ROUNDS | 12 | 60 | flows replaced by a successor on the same original tuple |
| SYNSWEEP_LIVE_ENTRIES | 20000 | 1000000 | live entries of which none may be deleted |
| SYNSWEEP_TABLE_SIZES | 100000 | 100000,500000,1000000 | sizes of big tables |
| SYNSWEEP_CHURN_SECONDS | 2 | 20 | how long the table churns under the dumps |
| SYNSWEEP_RIVAL_ROUNDS | 40 | 1000 | entries deleted by us and by conntrack(8) at once |
| SYNSWEEP_ANSWERED_ROUNDS | 20 | 300 | flows answered between list and delete |
"""
