#!/bin/bash
# The official clients, LangChain's and requests made up from the description
# against servers that serve.py has started. $1: the Python to use.
set -euo pipefail
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=1
"$1" -m unittest discover --start-directory python
node --test node/
./browser.py "$RUNTIME" "$NODE_PACKAGES"
"$1" odd_requests.py --examples 15 --seed 1
