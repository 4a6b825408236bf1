"""kubectl's verbs that carry streams: logs, exec, cp, attach, port-forward and the proxies, on a running lab."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import termios
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from netemu.lab.remains import lab_processes
from tests.clients.apiserver import find_kubectl
from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually, netemu, run

TOPOLOGY = Path(__file__).with_name("streams.yaml")

LATE = """
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  containers: [{name: main, image: nginx, envFrom: [{configMapRef: {name: missing}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: homeless}
spec:
  nodeSelector: {there: is-none}
  containers: [{name: main, image: nginx}]
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabKubectl]:
    """kubectl as the administrator of the lab in streams.yaml."""
    ready = LabKubectl("t-streams", find_kubectl(), tmp_path_factory.mktemp("streams") / "cache")
    netemu("up", str(TOPOLOGY))
    ready("apply", "-f", "-", stdin=LATE)
    ready("wait", "--for=jsonpath={.status.containerStatuses[0].state.running}", "pod/talker", "pod/counter",
          "--timeout=60s")  # fmt: skip
    eventually(lambda: len(ready("logs", "talker", "-c", "main").splitlines()) == 4, "all that talker says")
    yield ready
    run("down", "t-streams")


# --- logs


def test_logs_show_both_outputs_of_a_container(kubectl: LabKubectl) -> None:
    assert sorted(kubectl("logs", "talker", "-c", "main").splitlines()) == ["line 1", "line 2", "line 3", "oops"]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("--limit-bytes=6",), "line 1"),
        (("--since-time=2040-01-01T00:00:00Z",), ""),
        (("--tail=0",), ""),
        (("--since=1h", "--tail=-1", "--limit-bytes=14"), "line 1\nline 2\n"),
    ],
)
def test_options_cut_a_log(kubectl: LabKubectl, options: tuple[str, ...], shown: str) -> None:
    assert kubectl("logs", "talker", "-c", "main", *options) == shown


def test_tail_and_timestamps(kubectl: LabKubectl) -> None:
    said = kubectl("logs", "talker", "-c", "first", "--tail=1", "--timestamps").split()

    assert said[1:] == ["prepared"]
    assert said[0].startswith("20")


def test_logs_of_all_containers_by_label(kubectl: LabKubectl) -> None:
    said = kubectl("logs", "-l", "app=talker", "--all-containers", "--prefix", "--tail=1").splitlines()

    assert {line.split()[0] for line in said} == {"[pod/talker/main]", "[pod/talker/first]", "[pod/talker/fails]"}


def test_the_previous_attempt(kubectl: LabKubectl) -> None:
    def ended() -> bool:
        return kubectl.run("logs", "talker", "-c", "fails", "-p").returncode == 0

    eventually(ended, "a previous attempt")
    assert kubectl("logs", "talker", "-c", "fails", "-p") == "attempt\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("talker", "-c", "none"), "container none is not valid for pod talker"),
        (("talker", "-c", "main", "-p"), 'previous terminated container "main" in pod "talker" not found'),
        (("waits",), 'container "main" in pod "waits" is waiting to start: CreateContainerConfigError'),
        (("nobody",), 'pods "nobody" not found'),
    ],
)
def test_a_log_that_is_not_there(kubectl: LabKubectl, arguments: tuple[str, ...], why: str) -> None:
    def refused() -> bool:
        done = kubectl.run("logs", *arguments)
        return done.returncode == 1 and why in done.stderr

    eventually(refused, why)


def test_a_pod_without_a_node_has_an_empty_log(kubectl: LabKubectl) -> None:
    assert kubectl("logs", "homeless") == ""


def test_a_followed_log_grows_and_ends_with_its_container(kubectl: LabKubectl) -> None:
    with kubectl.start("logs", "-f", "counter") as following:
        assert following.stdout is not None
        first = [following.stdout.readline() for _ in range(3)]

        netemu("exec", "--lab", "t-streams", "counter", "--", "touch", "/tmp/enough")
        rest = following.stdout.read()

    assert first == ["1\n", "2\n", "3\n"]
    assert rest.splitlines() == [str(number) for number in range(4, 4 + len(rest.splitlines()))]
    assert following.returncode == 0


# --- proxies


def test_the_proxies_of_pods_and_services(kubectl: LabKubectl) -> None:
    kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    eventually(lambda: kubectl.endpoints("web"), "an endpoint of web")

    for path in ("pods/web/proxy", "pods/web:80/proxy", "services/web:http/proxy", "services/web:8080/proxy"):
        said = json.loads(kubectl("get", "--raw", f"/api/v1/namespaces/default/{path}/a/b/?q=1"))
        assert (said["pod"], said["path"]) == ("web", "/a/b/?q=1")


def test_the_proxy_of_a_node_leads_to_its_kubelet(kubectl: LabKubectl) -> None:
    pods = json.loads(kubectl("get", "--raw", "/api/v1/nodes/east/proxy/pods"))["items"]

    assert "web" in {pod["metadata"]["name"] for pod in pods}


def test_a_service_without_endpoints_cannot_be_proxied(kubectl: LabKubectl) -> None:
    kubectl("create", "service", "clusterip", "empty", "--tcp=80")
    done = kubectl.run("get", "--raw", "/api/v1/namespaces/default/services/empty:80/proxy/")

    assert (done.returncode, "no endpoints available for service" in done.stderr) == (1, True)


# --- exec and cp

EVERY = tuple(range(27, 34))
"""The minor versions of kubectl: up to 1.29 they speak SPDY, from 1.30 on WebSocket."""


def of_version(kubectl: LabKubectl, minor: int) -> LabKubectl:
    return LabKubectl(kubectl.lab, find_kubectl(minor), kubectl.cache.with_name(f"cache{minor}"))


@pytest.mark.parametrize("minor", EVERY)
@pytest.mark.parametrize("pod", ["talker", "web"])
def test_a_command_has_input_outputs_and_an_exit_code(kubectl: LabKubectl, pod: str, minor: int) -> None:
    script = "cat; hostname; echo no >&2; exit 7"
    done = of_version(kubectl, minor).run("exec", "-i", pod, "--", "sh", "-c", script, stdin="given\n")

    assert done.stdout == f"given\n{pod}\n"
    assert {"no", "command terminated with exit code 7"} <= set(done.stderr.splitlines())
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("web", "--", "no-such"), 'exec: "no-such": executable file not found in $PATH'),
        (("web", "--", "/no/such"), 'exec: "/no/such": no such file or directory'),
        (("web", "-c", "none", "--", "true"), "container none is not valid for pod web"),
        (("talker", "-c", "first", "--", "true"), 'container not found ("first")'),
        (("homeless", "--", "true"), "pod homeless does not have a host assigned"),
    ],
)
def test_a_command_that_cannot_run(kubectl: LabKubectl, arguments: tuple[str, ...], why: str) -> None:
    done = kubectl.run("exec", *arguments)

    assert why in done.stderr
    assert (done.returncode, done.stdout) == (1, "")


def test_a_killed_command_has_the_exit_code_of_its_signal(kubectl: LabKubectl) -> None:
    assert kubectl.run("exec", "web", "--", "sh", "-c", "kill -9 $$").returncode == 137


@pytest.mark.parametrize("minor", [29, 32])
def test_what_one_command_leaves_the_next_one_finds(kubectl: LabKubectl, minor: int, tmp_path: Path) -> None:
    mine = of_version(kubectl, minor)
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 20_000)

    mine("cp", str(tmp_path / "sent"), "web:/tmp/kept")
    mine("cp", "web:/tmp/kept", str(tmp_path / "back"))

    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    assert netemu("exec", "--lab", kubectl.lab, "web", "--", "stat", "-c", "%s", "/tmp/kept") == "5120000\n"


@pytest.mark.parametrize("minor", EVERY)
def test_a_terminal_has_a_size_and_interrupts_what_runs(kubectl: LabKubectl, minor: int) -> None:
    with Terminal(of_version(kubectl, minor), "exec", "-it", "web", "--", "sh") as terminal:
        terminal.resize(101, 33)
        terminal.type("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.05; done; echo sized; tty\n")
        assert "/dev/pts/" in terminal.until("sized\r\n/dev/pts/")

        terminal.type(f"sleep {minor}000\n")
        eventually(lambda: processes("sleep", f"{minor}000"), "a sleep to interrupt")
        terminal.type("\x03echo was $?; exit 5\n")
        terminal.until("was 130")
        assert terminal.exit_code() == 5


@pytest.mark.parametrize("minor", [29, 32])
@pytest.mark.parametrize("pod", ["talker", "web"])
def test_a_command_ends_with_its_client(kubectl: LabKubectl, pod: str, minor: int) -> None:
    script = "echo started; sleep 54321 & sleep 54321; true"
    with of_version(kubectl, minor).start("exec", pod, "--", "sh", "-c", script) as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.kill()

    eventually(lambda: not processes("sleep", "54321"), "no sleep left")


def test_a_deleted_pod_takes_its_commands_along(kubectl: LabKubectl) -> None:
    kubectl("run", "short", "--image=nginx")
    kubectl("wait", "--for=condition=Ready", "pod/short", "--timeout=20s")
    kubectl("exec", "short", "--", "sh", "-c", "setsid sleep 65432 > /dev/null 2>&1 &")
    eventually(lambda: processes("sleep", "65432"), "a sleep that its command left")

    kubectl("delete", "pod", "short", "--now")

    eventually(lambda: not processes("sleep", "65432"), "no sleep left")


def test_a_restarted_node_agent_leaves_what_commands_left(kubectl: LabKubectl) -> None:
    kubectl("exec", "web", "--", "touch", "/tmp/stays")
    os.kill(lab_processes(kubectl.lab)["node-agent"], signal.SIGKILL)

    def there() -> bool:
        return kubectl.run("exec", "web", "--", "ls", "/tmp/stays").stdout == "/tmp/stays\n"

    eventually(there, "/tmp/stays")


def processes(*argv: str) -> list[int]:
    """The processes with exactly that command line."""
    wanted = "".join(f"{word}\0" for word in argv).encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted:
                found.append(int(entry.name))
    return found


class Terminal:
    """A kubectl with a terminal, and somebody who types."""

    def __init__(self, kubectl: LabKubectl, *arguments: str) -> None:
        self._fd, inside = pty.openpty()
        self._inside = inside
        self._process = kubectl.start(*arguments, tty=inside)
        self._said = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._inside)
        os.close(self._fd)

    def resize(self, columns: int, rows: int) -> None:
        """As a window does it."""
        fcntl.ioctl(self._inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def until(self, text: str, within: float = 20.0) -> str:
        """What has been shown since the last time, once it holds `text`."""
        deadline = time.monotonic() + within
        while text not in self._said:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} not shown within {within:.0f} s: {self._said!r}"
            if select.select([self._fd], [], [], left)[0]:
                self._said += os.read(self._fd, 65536).decode(errors="replace")
        shown, self._said = self._said, ""
        return shown

    def exit_code(self) -> int:
        """When it has ended."""
        return self._process.wait(timeout=20)


# --- port-forward


@contextlib.contextmanager
def forwarded(kubectl: LabKubectl, *arguments: str) -> Iterator[list[str]]:
    """The local addresses, HOST:PORT, while `kubectl port-forward ARGUMENTS` runs."""
    with kubectl.start("port-forward", *arguments) as client:
        try:
            assert client.stdout is not None
            lines = [client.stdout.readline() for _ in range(2 * (len(arguments) - 1))]
            yield [line.split()[2] for line in lines]
        finally:
            client.kill()


def get(address: str, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
        said: str = answer.read().decode()
    return said


@pytest.mark.parametrize("minor", EVERY)
def test_forwarded_ports_carry_many_connections(kubectl: LabKubectl, minor: int) -> None:
    with forwarded(of_version(kubectl, minor), "pod/web", ":80", ":80") as addresses:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(get, addresses * 5))

        assert len(addresses) == 4
        assert {json.loads(answer)["pod"] for answer in answers} == {"web"}


@pytest.mark.parametrize("target", ["service/web", "deployment/shop"])
def test_services_and_deployments_lead_to_one_of_their_pods(kubectl: LabKubectl, target: str) -> None:
    port = ":8080" if target == "service/web" else ":80"
    kubectl("rollout", "status", "deployment/shop", "--timeout=20s")
    with forwarded(kubectl, target, port) as addresses:
        assert json.loads(get(addresses[0]))["pod"].startswith(target.partition("/")[2])


def test_a_server_on_the_loopback_of_ipv6_is_reached(kubectl: LabKubectl) -> None:
    listens = ("exec", "six", "--", "sh", "-c", "until curl -so /dev/null http://[::1]:8000/; do sleep 0.1; done")
    kubectl(*listens)
    with forwarded(kubectl, "pod/six", ":8000") as addresses:
        assert get(addresses[0], "/hostname") == "six\n"


@pytest.mark.parametrize("minor", [29, 32])
def test_a_port_where_nobody_listens_is_told(kubectl: LabKubectl, minor: int) -> None:
    with of_version(kubectl, minor).start("port-forward", "pod/web", ":81") as client:
        assert client.stdout is not None
        assert client.stderr is not None
        address = client.stdout.readline().split()[2]
        with pytest.raises(OSError):
            get(address)
        assert "connect: connection refused" in client.stderr.readline()
        client.kill()


# --- attach


@pytest.mark.parametrize("minor", [29, 32])
def test_attach_shows_what_comes_from_now_on(kubectl: LabKubectl, minor: int) -> None:
    name = f"attached-{minor}"
    script = "echo before; until [ -e /tmp/go ]; do echo tick; sleep 0.05; done; echo after; echo bad >&2"
    main = {"name": name, "image": "x", "command": ["sh", "-c", script]}
    spec = {"spec": {"runtimeClassName": "process", "containers": [main]}}
    kubectl("run", name, "--image=x", "--restart=Never", f"--overrides={json.dumps(spec)}")
    eventually(lambda: "before" in kubectl.run("logs", name).stdout, "the first line")

    with of_version(kubectl, minor).start("attach", name) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == "tick\n"
        kubectl("exec", name, "--", "touch", "/tmp/go")
        said, told = client.stdout.read().split(), client.stderr.read()

    assert (set(said) - {"tick"}, said[-1], client.returncode) == ({"after"}, "after", 0)
    assert "bad" in told
    kubectl("delete", "pod", name, "--now")
    eventually(lambda: not any(name in one for one in kubectl.pod_networks()), "no network of it")


@pytest.mark.parametrize(("minor", "kind"), [(29, "emulated"), (32, "emulated"), (29, "process")])
def test_run_with_input_runs_the_command_for_whoever_attaches(kubectl: LabKubectl, minor: int, kind: str) -> None:
    overrides = json.dumps({"spec": {"runtimeClassName": kind}})
    run_it = ("run", "-i", "--image=busybox", "--restart=Never", f"--overrides={overrides}", f"once-{minor}", "--")
    done = of_version(kubectl, minor).run(*run_it, "sh", "-c", "cat; hostname; exit 3", stdin="given\n")
    kubectl("wait", "--for=jsonpath={.status.phase}=Failed", f"pod/once-{minor}", "--timeout=20s")

    assert done.stdout == f"given\nonce-{minor}\n" == kubectl("logs", f"once-{minor}")
    ended = kubectl.get("pod", f"once-{minor}")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], done.returncode) == (3, 3)
    kubectl("delete", "pod", f"once-{minor}", "--now")


@pytest.mark.parametrize("minor", [29, 32])
def test_run_with_a_terminal_is_a_shell_in_a_new_pod(kubectl: LabKubectl, minor: int) -> None:
    command = ("run", "-it", "--rm", "--image=busybox", "--restart=Never", f"shell-{minor}")
    with Terminal(of_version(kubectl, minor), *command) as terminal:
        terminal.resize(101, 33)
        terminal.type("echo in $(hostname) $(stty size) $TERM; exit\n")
        terminal.until(f"in shell-{minor} 33 101 xterm")
        assert terminal.exit_code() == 0

    assert kubectl("get", "pod", f"shell-{minor}", "--ignore-not-found") == ""


# --- debug


@pytest.mark.parametrize("minor", EVERY)
def test_debug_is_a_shell_in_the_pod(kubectl: LabKubectl, minor: int) -> None:
    name = f"debug-{minor}"
    with Terminal(
        of_version(kubectl, minor), "debug", "-it", "web", "--image=busybox", "-c", name, "--", "sh"
    ) as terminal:
        terminal.until("try pressing enter")
        terminal.type("curl -s http://localhost | head -c 12; exit 5\n")
        terminal.until('{"pod":"web"')
        terminal.exit_code()

    assert eventually(lambda: exit_codes(kubectl, "web", name), f"the end of {name}") == [5]
    assert '{"pod":"web"' in kubectl("logs", "web", "-c", name)


@pytest.mark.parametrize("minor", [27, 33])
@pytest.mark.parametrize("command", [(), ("--", "sh", "-s")])
def test_debug_of_a_process_reads_its_input(kubectl: LabKubectl, minor: int, command: tuple[str, ...]) -> None:
    name = f"piped-{minor}-{len(command)}"
    script = "echo $(hostname) in $(readlink /proc/self/ns/net); exit 6\n"
    of_version(kubectl, minor).run(
        "debug", "talker", "-i", "--image=busybox", "--target=main", "-c", name, *command, stdin=script
    )

    assert eventually(lambda: exit_codes(kubectl, "talker", name), f"the end of {name}") == [6]
    network = kubectl("exec", "talker", "-c", "main", "--", "readlink", "/proc/self/ns/net")
    assert kubectl("logs", "talker", "-c", name) == f"talker in {network}"


def test_debug_without_input_is_over_at_once(kubectl: LabKubectl) -> None:
    kubectl("debug", "talker", "--image=busybox", "-c", "brief")

    assert eventually(lambda: exit_codes(kubectl, "talker", "brief"), "its end") == [0]


@pytest.mark.parametrize("minor", [29, 33])
def test_a_process_reads_what_whoever_attaches_types(kubectl: LabKubectl, minor: int) -> None:
    name, script = f"reader-{minor}", "while read line; do echo got $line; [ $line = end ] && exit; done"
    reader = {"name": "c", "image": "x", "command": ["sh", "-c", script], "stdin": True}
    spec = {"spec": {"runtimeClassName": "process", "restartPolicy": "Never", "containers": [reader]}}
    kubectl("run", name, "--image=x", "--restart=Never", f"--overrides={json.dumps(spec)}")
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=20s")
    with of_version(kubectl, minor).start("attach", "-i", name, piped=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write("one\n")
        first.stdin.flush()
        assert first.stdout.readline() == "got one\n"
        kubectl("attach", "-i", name, stdin="two\nend\n")  # a second one, beside it
        assert first.stdout.read() == "got two\ngot end\n"

    assert kubectl("logs", name) == "got one\ngot two\ngot end\n"
    kubectl("delete", "pod", name, "--now")


def test_debug_with_a_terminal_is_a_shell_in_the_pod_of_a_process(kubectl: LabKubectl) -> None:
    dns = kubectl.within("kube-system")
    pod = dns.field("pods", "-l", "k8s-app=kube-dns", path=".items[0].metadata.name")
    with Terminal(dns, "debug", "-it", pod, "--image=busybox", "-c", "shell") as terminal:
        terminal.until("try pressing enter")
        terminal.type("echo in $(hostname) $(tty); exit 5\n")
        terminal.until(f"in {pod} /dev/pts/")
        terminal.exit_code()

    assert eventually(lambda: exit_codes(dns, pod, "shell"), "the end of the shell") == [5]


def test_a_deleted_pod_takes_a_debugger_along(kubectl: LabKubectl) -> None:
    main = {"name": "main", "image": "x", "command": ["sleep", "1000"]}
    spec = {"spec": {"runtimeClassName": "process", "terminationGracePeriodSeconds": 0, "containers": [main]}}
    kubectl("run", "brief", "--image=x", f"--overrides={json.dumps(spec)}")
    with kubectl.start("debug", "brief", "-i", "--image=busybox", "--", "sleep", "76543"):
        eventually(lambda: processes("sleep", "76543"), "the debugger's sleep")
        kubectl("delete", "pod", "brief")

    eventually(lambda: not processes("sleep", "76543"), "no sleep left")
    eventually(lambda: not any("brief" in one for one in kubectl.pod_networks()), "no network of it")


def exit_codes(kubectl: LabKubectl, pod: str, name: str) -> list[int]:
    """That of an ephemeral container, if it has ended."""
    told = kubectl.get("pod", pod)["status"].get("ephemeralContainerStatuses", [])
    mine = [one["state"] for one in told if one["name"] == name]
    return [state["terminated"]["exitCode"] for state in mine if "terminated" in state]


# --- other clients


@pytest.fixture(scope="module")
def proxy(kubectl: LabKubectl) -> Iterator[str]:
    """The API as `kubectl proxy` serves it: HOST:PORT."""
    with kubectl.start("proxy", "--port=0", "--reject-paths=") as client:
        assert client.stdout is not None
        yield client.stdout.readline().split()[-1]
        client.kill()


def test_kubectl_proxy_passes_requests_on(proxy: str) -> None:
    assert "web" in {pod["metadata"]["name"] for pod in json.loads(get(proxy, "/api/v1/pods"))["items"]}


@pytest.mark.parametrize("protocols", [(), ("v4.channel.k8s.io",), ("v5.channel.k8s.io", "v4.channel.k8s.io")])
async def test_a_websocket_of_channels_carries_a_connection(proxy: str, protocols: tuple[str, ...]) -> None:
    url = f"http://{proxy}/api/v1/namespaces/default/pods/web/portforward?ports=80,81&name=web&namespace=default"
    said = dict.fromkeys(range(4), b"")
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=protocols) as ws:
        await ws.send_bytes(b"\0GET /there HTTP/1.0\r\n\r\n")
        async for message in ws:
            said[message.data[0]] += message.data[1:]

    assert [said[channel][:2] for channel in range(4)] == [b"P\0", b"P\0", b"Q\0", b"Q\0"]
    assert b'"path":"/there"' in said[0]
    assert b"connection refused" in said[3]


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
async def test_a_websocket_with_text_runs_a_command(proxy: str, protocol: str) -> None:
    command = "&".join(f"command={word}" for word in ("sh", "-c", "read+line;echo+$line;exit+4"))
    url = f"http://{proxy}/api/v1/namespaces/default/pods/web/exec?stdin=true&stdout=true&tty=false&{command}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=(protocol,)) as ws:
        await ws.send_str("\0hello\n")
        frames = [message.data async for message in ws]

    assert b"".join(frame[1:] for frame in frames if frame[0] == 1) == b"hello\n"
    assert json.loads(frames[-1][1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "4"}]
    assert (frames[-1][0], ws.close_code) == (3, 1000)
