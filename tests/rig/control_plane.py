"""etcd, kube-apiserver, and for clusters with nodes the controller manager and the scheduler.

`with ControlPlane.up() as api:` is an API server without nodes in 2 to 3 seconds: enough for tests
of schemas, admission rules and permissions.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.rig import binaries, needs
from tests.rig.addresses import API_SERVICE, SERVICES
from tests.rig.claims import claim, release
from tests.rig.commands import run
from tests.rig.errors import RigError
from tests.rig.network import Namespace, Network
from tests.rig.pki import Authority
from tests.rig.processes import Process, end, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from tests.rig.claims import Claim
    from tests.rig.pki import Identity

ETCD = "http://127.0.0.1:12379"  # inside the control plane's own namespace
ETCD_PEERS = "http://127.0.0.1:12380"
READY_WITHIN = 60.0  # seconds
APISERVER, MANAGER, SCHEDULER = "kube-apiserver", "kube-controller-manager", "kube-scheduler"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane(Namespace):
    """A running control plane; also the network namespace that it runs in.

    `kubeconfig` is that of an administrator. It works from a shell of this machine, from this
    namespace, and from the nodes.
    """

    def __init__(
        self,
        owner: Claim,
        *,
        ipv6: bool = True,
        flags: Mapping[str, Sequence[str]] | None = None,
        audit: bool = False,
    ) -> None:
        super().__init__(owner.netns("cp"), owner.plan.control_plane().address[0])
        self.claim = owner
        self.network = Network(owner)
        self.server = f"https://{self.ip}:6443"
        self.audit_log: Path | None = owner.folder / "audit.jsonl" if audit else None
        self._ipv6 = ipv6
        self._flags = dict(flags or {})
        self._processes: dict[str, Process] = {}
        self.pki: Authority
        self.kubeconfig: Path
        self._admin: Identity
        self._signing_key: tuple[Path, Path]

    @classmethod
    @contextmanager
    def up(
        cls,
        *,
        name: str | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
        audit: bool = False,
    ) -> Iterator[ControlPlane]:
        """Bring up etcd and kube-apiserver alone, and take them down at the end.

        Args:
            name: the cluster's name; by default one of this process' own, so that many can be up.
            flags: more flags by program, e.g. {"kube-apiserver": ["--v=4"]}.
            audit: write each request to `.audit_log`, one JSON object a line.

        Raises:
            NeedsMissing: what this machine lacks.
            RigError: it does not start; the message ends with the end of the log.
        """
        needs.check_control_plane()
        binaries.ensure(binaries.API_SERVER)
        chosen = name or f"api-{os.getpid() % 100_000}"
        owner = claim(chosen, with_nodes=False)
        try:
            plane = cls(owner, flags=flags, audit=audit)
            plane.prepare()
            plane.start("etcd")
            plane.start(APISERVER)
            yield plane
        finally:
            release(chosen)

    def prepare(self) -> None:
        """Make the network and the certificates."""
        self.network.up(ipv6=self._ipv6)
        self.pki = Authority(self.claim.folder / "pki")
        self._signing_key = self.pki.signing_key()
        self.pki.issue(
            "apiserver",
            user="kube-apiserver",
            addresses=(self.ip, "127.0.0.1", API_SERVICE),
            hosts=("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"),
        )
        self.pki.issue("kubelet-client", user="apiserver-kubelet", group="system:masters")
        self._admin = self.pki.issue("admin", user="admin", group="system:masters")
        self.kubeconfig = self.pki.kubeconfig("admin", self._admin, self.server)
        for program in (MANAGER, SCHEDULER):
            identity = self.pki.issue(program, user=f"system:{program}")
            self.pki.kubeconfig(program, identity, self.server)

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 -- subprocess.run's own word
        check: bool = True,
        timeout: float = 180.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; see tests.rig.commands.run for errors."""
        program = str(binaries.path("kubectl"))
        argv = (program, "--kubeconfig", str(self.kubeconfig), *args)
        return run(*argv, input=input, check=check, timeout=timeout)

    def apply(self, manifest: str | Path) -> None:
        """Apply a file or folder, or YAML text."""
        if isinstance(manifest, Path):
            self.kubectl("apply", "-f", str(manifest))
        else:
            self.kubectl("apply", "-f", "-", input=manifest)

    def get_json(self, *args: str) -> Any:
        """Return what `kubectl get ARGS -o json` says."""
        return json.loads(self.kubectl("get", *args, "-o", "json").stdout)

    def process(self, program: str) -> Process:
        """Return the process of one of the programs.

        Raises:
            RigError: it was never started.
        """
        try:
            return self._processes[program]
        except KeyError:
            raise RigError(f"{program} has not been started") from None

    def start(self, program: str) -> None:
        """Start one of the programs, and wait until it is ready.

        Raises:
            RigError: it is running, or does not become ready.
        """
        known = self._processes.get(program)
        if known and known.is_alive():
            raise RigError(f"{program} is running already")
        argv = self._argv(program) + list(self._flags.get(program, ()))
        log = self.claim.log(program)
        self._processes[program] = spawn(
            program, self.argv(*argv), log=log, journal=self.claim.journal
        )
        if program == APISERVER:
            self.wait_ready()

    def kill(self, program: str) -> None:
        """End one of the programs with SIGKILL."""
        end([self.process(program)])

    def freeze(self, program: str) -> None:
        """Stop one of the programs with SIGSTOP: its connections stay open and silent."""
        self.process(program).signal(signal.SIGSTOP)

    def thaw(self, program: str) -> None:
        """Let a frozen program go on."""
        self.process(program).signal(signal.SIGCONT)

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Wait until the API server says that it is ready.

        Raises:
            RigError: it ended, or was not ready within that many seconds.
        """
        context = ssl.create_default_context(cafile=str(self.pki.certificate))
        context.load_cert_chain(str(self._admin.certificate), str(self._admin.key))
        deadline = time.monotonic() + within
        while not self._is_ready(context):
            alive = self.process(APISERVER).is_alive()
            if not alive or time.monotonic() > deadline:
                how = "is not ready" if alive else "ended"
                raise RigError(f"{APISERVER} {how}: {tail(self.claim.log(APISERVER))}")
            time.sleep(0.1)

    def _is_ready(self, context: ssl.SSLContext) -> bool:
        connection = http.client.HTTPSConnection(self.ip, 6443, timeout=2, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _argv(self, program: str) -> list[str]:
        if program == "etcd":
            return self._etcd()
        if program == APISERVER:
            return self._apiserver()
        config = f"{self.pki.folder}/{program}.kubeconfig"
        shared = [
            str(binaries.path(program)),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--leader-elect=false",
        ]
        if program == SCHEDULER:
            return shared
        if program == MANAGER:
            return [
                *shared,
                f"--service-account-private-key-file={self._signing_key[0]}",
                f"--root-ca-file={self.pki.certificate}",
                "--use-service-account-credentials=true",
            ]
        raise RigError(f"{program}: the control plane has {', '.join(binaries.CONTROL_PLANE)}")

    def _etcd(self) -> list[str]:
        return [
            str(binaries.path("etcd")),
            f"--data-dir={self.claim.folder / 'etcd'}",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={ETCD_PEERS}",
            f"--initial-advertise-peer-urls={ETCD_PEERS}",
            f"--initial-cluster=default={ETCD_PEERS}",
            "--unsafe-no-fsync",
        ]

    def _apiserver(self) -> list[str]:
        pki = self.pki.folder
        private, public = self._signing_key
        services = SERVICES if self._ipv6 else SERVICES[:1]
        argv = [
            str(binaries.path(APISERVER)),
            f"--etcd-servers={ETCD}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={self.ip}",
            f"--service-cluster-ip-range={','.join(services)}",
            f"--client-ca-file={self.pki.certificate}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        if self.audit_log:
            policy = self.claim.folder / "audit-policy.json"
            policy.write_text(json.dumps(AUDIT_POLICY), encoding="utf-8")
            argv += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        return argv


def tail(log: Path, characters: int = 1500) -> str:
    """Return the end of a log, for an error message."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-characters:].strip()
    except FileNotFoundError:
        return "(no log)"
