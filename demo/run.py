#!/usr/bin/env python3
"""One manifest to one answer: the whole product on a real cluster, with progress, in one command.

make demo                      a cluster of its own on this machine
make demo CLUSTER=current      the cluster of KUBECONFIG; needs IMAGE_PREFIX, where the images are pushed
YES=1 asks nothing; DEMO_IMAGE and DEMO_QUESTION replace the picture and the question.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

import kubernetes as k8s
import load
import report
from kubernetes import Failed, kubectl

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(k8s.environment("XDG_CACHE_HOME", str(pathlib.Path.home() / ".cache"))) / "vlm-operator"
TOOLS = CACHE / "kube/bin"
MODEL, NAMESPACE = "tiny-llava", "vlm-system"
LOCAL = k8s.environment("CLUSTER", "local") != "current"
PREFIX = k8s.environment("IMAGE_PREFIX", "localhost")
TAG = k8s.environment("IMAGE_TAG", "0.1.0")
IN_FLIGHT = 18
LONG = "Describe the picture."
QUERY = ('sum(vlm_requests_running{namespace="$namespace",model="$name"}) + '
         'sum(vlm_requests_waiting{namespace="$namespace",model="$name"})')
STARTED = time.monotonic()


def say(text):
    """A step, with the minutes and seconds since the start."""
    seconds = int(time.monotonic() - STARTED)
    print(f"[{seconds // 60:02d}:{seconds % 60:02d}] {text}", flush=True)


def make(*targets):
    """Runs make in the project's root, its output shown."""
    done = subprocess.run(["make", "--no-print-directory", *targets], cwd=ROOT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Failed(f"make {' '.join(targets)} ended with status {done.returncode}")


def announce():
    """Says what will be installed and how long it may take; asks on a terminal unless YES=1."""
    if LOCAL:
        print("""This demo will, on this machine, as root:
  - install Debian packages that are missing: containerd, runc, CNI plugins, iptables, nftables, conntrack,
    buildah and what they need; unpack busybox and Prometheus; no service runs     about 1 minute
  - build Kubernetes 1.34 and Helm from their Go modules, and the operator and the
    model server, once                                   15 to 30 minutes on 2 cores (25 of processor time)
  - start a one-node cluster in namespaces of its own; it stays up until `make demo-down`
  - install the operator, serve a 16 MB model, ask it, put load on it              about 2 minutes
Everything built is kept in the user's cache folders (6 GB with those of Go and Cargo).""")
    else:
        if "IMAGE_PREFIX" not in os.environ:
            raise Failed("CLUSTER=current needs IMAGE_PREFIX, the registry folder that the cluster pulls from")
        context = kubectl("config", "current-context").strip()
        print(f"""This demo will, in the cluster of context {context}:
  - push five images to {PREFIX}
  - install the chart into namespace {NAMESPACE}, and a model, a Job, a volume claim
    and a Prometheus into namespace default                                        about 2 minutes
`make demo-down CLUSTER=current` removes them.""")
    if sys.stdin.isatty() and os.environ.get("YES") != "1":
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise Failed("stopped at your wish; nothing was changed")


def bring_up():
    """A cluster that kubectl reaches, with the images where its nodes find them."""
    if LOCAL:
        say("building what is not built yet, and starting the cluster")
        make("cluster-up")
        os.environ["KUBECONFIG"] = str(CACHE / "cluster/admin.kubeconfig")
        os.environ["PATH"] = f"{TOOLS}:{os.environ['PATH']}"
    else:
        say(f"building the images and pushing them to {PREFIX}")
        make("images", "PUSH=1")
    node = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["nodeInfo"]
    say(f"Kubernetes {node['kubeletVersion']} on {node['containerRuntimeVersion']} answers")


def manifest(name):
    """A file of examples/, with this demo's images, and an address in place of a DNS name: not every cluster has DNS."""
    text = (ROOT / "examples" / name).read_text()
    text = text.replace("localhost/vlm-", f"{PREFIX}/vlm-").replace(":0.1.0", f":{TAG}")
    if "vlm-operator.vlm-system.svc" in text:
        service = k8s.get("service", "vlm-operator", NAMESPACE)
        address = service["spec"]["clusterIP"] if service else "127.0.0.1"
        text = text.replace("vlm-operator.vlm-system.svc", address)
    return text


def install():
    """The chart, then a Prometheus that scrapes what the operator lists."""
    k8s.apply(manifest("prometheus.yaml"))
    address = k8s.get("service", "prometheus")["spec"]["clusterIP"]
    say("installing the operator with helm")
    done = subprocess.run(
        ["helm", "upgrade", "--install", "vlm-operator", str(ROOT / "charts/vlm-operator"), "--namespace", NAMESPACE,
         "--create-namespace", "--set", f"image.prefix={PREFIX},image.tag={TAG}",
         "--set", f"prometheus.url=http://{address}:9090", "--wait", "--timeout", "3m"],
        text=True, capture_output=True)
    if done.returncode != 0:
        raise Failed(f"helm: {done.stderr.strip()}")
    k8s.apply(manifest("prometheus.yaml"))
    kubectl("rollout", "restart", "deployment/prometheus")
    kubectl("rollout", "status", "deployment/prometheus", "--timeout=180s")


def fill_volume():
    """The claim, and the Job that copies the weights into it."""
    say("creating the volume and copying the weights into it")
    if LOCAL:
        make("demo-volume")
    k8s.apply(manifest("tiny-llava-weights.yaml"))
    kubectl("wait", "job/tiny-llava-weights", "--for=condition=complete", "--timeout=180s")


def serve():
    """kubectl apply to Ready; returns the seconds between them."""
    say("kubectl apply -f examples/tiny-llava.yaml")
    started = time.monotonic()
    kubectl("apply", "-f", str(ROOT / "examples/tiny-llava.yaml"))
    # Watching an object that does not exist yet ends at once: begin when it does.
    watch = k8s.Watch("visionmodel", MODEL, lambda thing: (
        k8s.condition(thing, "Ready").get("status"), k8s.condition(thing, "Ready").get("reason")))
    ready = watch.await_value("the VisionModel is Ready", lambda value: value[0] == "True", 180)
    watch.stop()
    say(f"Ready {ready - started:.1f} seconds after kubectl apply")
    print(kubectl("get", "visionmodels"), end="")
    return round(ready - started, 2)


def ask(base):
    """One picture, one question, the answer as it streams."""
    picture = k8s.environment("DEMO_IMAGE", str(ROOT / "examples/tiny-llava/demo.png"))
    text = k8s.environment("DEMO_QUESTION", "How many circles are there?")
    say(f"asking about {picture}")
    print(f"  Q: {text}\n  A: ", end="", flush=True)
    answer = load.stream(base, load.question(MODEL, picture, text, max_tokens=128),
                         lambda piece: print(piece, end="", flush=True))
    print()
    return answer


def rounds(base, prometheus):
    """Load and quiet, once by the pods' own metrics and once by a PromQL; returns figures and traces."""
    picture = str(ROOT / "examples/tiny-llava/demo.png")
    body = load.question(MODEL, picture, LONG, max_tokens=256, ignore_eos=True)
    watch = k8s.Watch("deployment", MODEL, lambda thing: (
        thing["spec"]["replicas"], thing.get("status", {}).get("readyReplicas", 0)))
    begun, scale_up, marks, answered = time.monotonic(), {}, [], 0
    for path in ("pods", "prometheus"):
        if path == "prometheus":
            patch = {"spec": {"scaling": {"prometheus": {"query": QUERY}}}}
            kubectl("patch", "visionmodel", MODEL, "--type=merge", "-p", json.dumps(patch))
        say(f"{IN_FLIGHT} requests in flight; the autoscaler reads " +
            ("the pods' /metrics" if path == "pods" else f"Prometheus: {QUERY}"))
        work = load.Load(base, body, IN_FLIGHT)
        marks.append((work.started - begun, f"load on ({path})"))
        up = watch.await_value("a scale-up", lambda value: value[0] > 1, 120, since=work.started)
        scale_up[path] = round(up - work.started, 2)
        say(f"scale-up written after {scale_up[path]} seconds")
        watch.await_value("the new replicas are Ready", lambda value: value[1] >= 2, 120, since=work.started)
        time.sleep(5)  # a person wants to see the load shared out for a moment
        work.stop()
        if work.failed:
            raise Failed(f"{len(work.failed)} requests failed, the first with: {work.failed[0]}")
        answered += work.answered
        quiet = time.monotonic()
        marks.append((quiet - begun, "load off"))
        say(f"load off after {work.answered} answers ({work.refused} times told to wait); waiting for the scale-down")
        watch.await_value("the scale-down", lambda value: value[0] == 1, 300, since=quiet)
    end = time.monotonic()
    watch.stop()
    shift = lambda index: [(when - begun, value[index]) for when, value in watch.changes]
    return scale_up, answered, shift(0), shift(1), marks, depth_of(prometheus, end - begun)


def depth_of(prometheus, seconds):
    """Running + waiting over the last `seconds`, from Prometheus, as (seconds since the start, value)."""
    now = time.time()
    query = QUERY.replace("$namespace", "default").replace("$name", MODEL)
    url = f"{prometheus}/api/v1/query_range?" + load.urllib.parse.urlencode(
        {"query": query, "start": now - seconds, "end": now, "step": 2})
    found = k8s.fetch_json(url)["data"]["result"]
    return [(when - (now - seconds), float(value)) for when, value in found[0]["values"]] if found else []


def goodbye(base):
    """How to go on by hand."""
    if LOCAL:
        print(f"\nThe cluster stays up. By hand:\n  export KUBECONFIG={os.environ['KUBECONFIG']}")
        print(f"  export PATH={TOOLS}:$PATH      # kubectl and helm")
    else:
        base = "http://127.0.0.1:8000"
        print("\nBy hand:\n  kubectl port-forward service/tiny-llava 8000:80 &")
    print(f"""  kubectl get visionmodels
  kubectl describe visionmodel {MODEL}
  curl -F prompt='{LONG}' -F image=@examples/tiny-llava/demo.png -F model={MODEL} {base}/v1/chat/completions
  make demo-down{'' if LOCAL else ' CLUSTER=current'}     # removes everything""")


def main():
    announce()
    bring_up()
    install()
    fill_volume()
    seconds = serve()
    reach = k8s.Reach(LOCAL)
    try:
        base, prometheus = reach.service(MODEL, 80), reach.service("prometheus", 9090)
        answer = ask(base)
        scale_up, answered, desired, ready, marks, depth = rounds(base, prometheus)
    finally:
        reach.stop()
    result = {"apply_to_ready_seconds": seconds, "answer": answer, "scale_up_seconds": scale_up,
              "peak_replicas": max(value for _, value in desired), "final_replicas": desired[-1][1]}
    (ROOT / "demo.json").write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    print("\n" + report.timeline(depth, desired, ready, marks) + "\n")
    print(report.table([
        ("kubectl apply to Ready", f"{seconds} s"), ("answer", answer),
        ("load to scale-up, pods' metrics", f"{scale_up['pods']} s"),
        ("load to scale-up, Prometheus", f"{scale_up['prometheus']} s"),
        ("answers under load", answered), ("peak replicas", result["peak_replicas"]),
        ("final replicas", result["final_replicas"])]))
    goodbye(base)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"demo: {failure}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; `make demo-down` removes what was made")
