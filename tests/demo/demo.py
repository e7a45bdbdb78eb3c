"""The demonstration behind `make demo`: a cluster on this machine, a badly placed program, and what Partita does about it.

Runs a coordinator and three agents (two with a processor's share each, one standby), submits the heat equation in four
partitions with the heavy ranks on one host, twice: once nailed down, once free to move. Shows events as they happen and
ends with a table. In the emulated machine, where one thread serves all processors and nothing can be gained by a move,
only the second run is made. The exit status is 1 when a result differs from the native one or nothing moved.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

EMULATED = bool(os.environ.get("PARTITA_EMULATED"))


class Cluster:
    """A coordinator and its agents as real processes."""

    def __init__(self, binaries, directory):
        self.binaries = binaries
        self.directory = directory
        self.processes = []
        self.address = None

    def program(self, name):
        return os.path.join(self.binaries, name)

    def start(self):
        command = [self.program("coordinator"), "serve", "--listen", "tcp:127.0.0.1:0",
                   "--state", os.path.join(self.directory, "state.redb"), "--imbalance-threshold", "0.15",
                   "--sustain-s", "3", "--cooldown-s", "10", "--period-ms", "500"]
        if EMULATED:
            command += ["--host-timeout-s", "60"]
        log = open(os.path.join(self.directory, "coordinator.log"), "w")
        serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.processes.append(serve)
        line = serve.stdout.readline()
        if "listening on" not in line:
            sys.exit(f"demo: the coordinator did not start: {line!r}; see {log.name}")
        self.address = line.split()[-1]
        for name, cpus, extra in [("a", "0", []), ("b", "1", []), ("spare", "0-1", ["--standby"])]:
            agent = [self.program("agent"), "--name", name, "--coordinator", self.address, "--cpus", cpus,
                     "--memory", "2G", "--vmm", self.program("vmm"),
                     "--state-dir", os.path.join(self.directory, name), "--migrate-address", "127.0.0.1", *extra]
            log = open(os.path.join(self.directory, f"{name}.log"), "w")
            self.processes.append(subprocess.Popen(agent, stdout=log, stderr=log))
        deadline = time.monotonic() + (120 if EMULATED else 20)
        while len([h for h in self.ask("hosts") if h["state"] != "lost"]) < 3:
            if time.monotonic() > deadline:
                sys.exit("demo: not all agents came up; see the logs in " + self.directory)
            time.sleep(0.2)

    def command(self, *arguments):
        return [self.program("coordinator"), *arguments, "--coordinator", self.address]

    def ask(self, *arguments):
        result = subprocess.run(self.command(*arguments, "--json"), capture_output=True, text=True, check=False)
        if result.returncode != 0:
            sys.exit(f"demo: coordinator {' '.join(arguments)}: {result.stderr.strip()}")
        return json.loads(result.stdout)

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def manifest(directory, out, movable, arguments):
    path = os.path.join(directory, "balanced.toml" if movable else "nailed.toml")
    with open(path, "w") as file:
        file.write(f"""name = "{'heat' if movable else 'heat-nailed'}"
ranks = 4
executable = "{out}/apps/partita/heat"
args = {json.dumps(arguments)}
memory = "32M"
strategy = "pinned"   # badly on purpose: both heavy ranks on host a
migrate = {'true' if movable else 'false'}
[pinned]
0 = "a"
1 = "a"
2 = "b"
3 = "b"
""")
    return path


def follow(cluster, stop):
    """Prints events while the program runs."""
    events = subprocess.Popen(cluster.command("events", "--follow"), stdout=subprocess.PIPE, text=True)

    def pump():
        for line in events.stdout:
            if not stop.is_set():
                print("  | " + line.rstrip(), flush=True)

    threading.Thread(target=pump, daemon=True).start()
    return events


def run(cluster, path):
    """Submits, waits, and gives (application as the coordinator knows it, its output, seconds)."""
    started = time.monotonic()
    result = subprocess.run(cluster.command("submit", "--wait", path), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    application = cluster.ask("apps")[-1]
    if result.returncode != 0:
        sys.exit(f"demo: the program ended with {result.returncode}: {result.stderr.strip()[-2000:]}")
    return application, result.stdout, seconds


def table(application, seconds_nailed, seconds_free, same):
    """The moves and what they gave; `seconds_nailed` is nothing where the nailed run says nothing."""
    print("\n  move                    blackout   total    why")
    for move in application["moves"]:
        blackout = "in doubt" if move["blackout_ms"] is None else f"{move['blackout_ms']:7.1f} ms"
        total = "" if move["total_s"] is None else f"{move['total_s']:6.2f} s"
        print(f"  rank {move['rank']}: {move['from']:>5} -> {move['to']:<6} {blackout}  {total}   {move['reason']}")
    if seconds_nailed is None:
        print(f"\n  time to solution   {seconds_free:7.1f} s, emulated; nailed down: not run, it could not be slower here")
    else:
        print(f"\n  time to solution   nailed down {seconds_nailed:7.1f} s")
        print(f"                     coordinated {seconds_free:7.1f} s   ({seconds_nailed / seconds_free:.2f} times as fast)")
    print(f"  result             {'equal to the native run, bit for bit' if same else 'DIFFERS from the native run'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the cluster up and print how to look around")
    parser.add_argument("--out", required=True)
    parser.add_argument("--native", required=True)
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    if options.keep and EMULATED:
        sys.exit("demo: --keep needs /dev/kvm: the emulated machine ends with the demo")
    directory = tempfile.mkdtemp(prefix="partita-demo-")
    cluster = Cluster(os.path.join(options.out, "release"), directory)
    stop = threading.Event()
    failed = True
    try:
        cluster.start()
        print("\ndemo: a coordinator and three agents: a (processor 0), b (processor 1), spare (standby)")
        print("demo: heat in four partitions, heavy ranks 0 and 1 both on host a", flush=True)
        outputs, nailed, nailed_seconds = [], None, None
        if not EMULATED:
            print("demo: nailed down:", flush=True)
            nailed, output, nailed_seconds = run(cluster, manifest(directory, options.out, False, options.arguments))
            outputs.append(output)
            print(f"demo: {nailed_seconds:.1f} s\n")
        print("demo: free to move; what happens:", flush=True)
        events = follow(cluster, stop)
        free, free_output, free_seconds = run(cluster, manifest(directory, options.out, True, options.arguments))
        time.sleep(0.5)
        stop.set()
        events.kill()
        native = open(options.native).read()
        same = all(output == native for output in [*outputs, free_output])
        print("\n" + free_output.rstrip())
        table(free, nailed_seconds, free_seconds, same)
        failed = not same or not free["moves"] or bool(nailed and nailed["moves"])
        if not free["moves"]:
            print("demo: FAILED: nothing was moved")
        if options.keep and not failed:
            failed = False
            print(f"\ndemo: the cluster stays up. Look around with\n  export PARTITA_COORDINATOR={cluster.address}")
            for words in ["hosts", "apps", "events", "plan --explain", f"submit --wait {directory}/balanced.toml"]:
                print(f"  {cluster.program('coordinator')} {words}")
            print(f"demo: end it with: kill {' '.join(str(p.pid) for p in reversed(cluster.processes))}; rm -r {directory}")
            return 0
    finally:
        stop.set()
        if failed or not options.keep:
            cluster.stop()
            if failed:
                for name in ["coordinator", "a", "b", "spare"]:
                    path = os.path.join(directory, name + ".log")
                    if os.path.exists(path) and os.path.getsize(path):
                        print(f"--- {name}.log\n" + open(path).read()[-3000:], file=sys.stderr)
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
