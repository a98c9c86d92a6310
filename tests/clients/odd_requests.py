#!/usr/bin/env python3
"""Sends requests that schemathesis makes up from the server's own description, right and wrong ones.

odd_requests.py --examples N --seed N [--result FILE]
Fails when an answer is the server's fault, of a kind that is not described, or of another form. The result counts the
requests by path and status.
"""
import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.parse

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--result", type=pathlib.Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        har = pathlib.Path(folder) / "requests.har"
        code = subprocess.run([
            pathlib.Path(sys.executable).with_name("schemathesis"), "run", os.environ["LLAVA"] + "/openapi.json",
            "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", asked.examples,
            "--seed", asked.seed, "--request-timeout", "60", "--no-shrink", "--warnings", "off", "--suppress-health-check",
            "all", "--exclude-path", "/metrics", "--report", "har", "--report-har-path", har], cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(pathlib.Path(__file__).parent.resolve())}).returncode
        entries = json.loads(har.read_text())["log"]["entries"]
    counts = collections.defaultdict(collections.Counter)
    for entry in entries:
        path = urllib.parse.urlsplit(entry["request"]["url"]).path
        path = "/v1/models/{id}" if path.startswith("/v1/models/") else path
        counts[path][str(entry["response"]["status"])] += 1
    server_errors = sum(n for statuses in counts.values() for status, n in statuses.items() if status[0] not in "234")
    result = {"requests": len(entries), "server_errors": server_errors, "seed": int(asked.seed),
              "failed_checks": code != 0, "statuses": {path: dict(sorted(c.items())) for path, c in sorted(counts.items())}}
    print(json.dumps(result, indent=1))
    if asked.result:
        asked.result.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(code or bool(server_errors))


if __name__ == "__main__":
    main()
