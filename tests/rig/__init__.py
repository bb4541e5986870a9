"""A real Kubernetes cluster on one machine, without Docker, registry or virtual machine.

Each node has its own net, mount, uts, ipc and pid namespaces: its own conntrack table, sysctls and
kube-proxy rules. Whatever is made is written down first (see journal), so that it can be removed by
another process, however this one ended. README.md has the facts behind the choices.
"""
