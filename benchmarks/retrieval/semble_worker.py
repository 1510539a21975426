"""Run in an environment that has semble: read a request as JSON from stdin, write the rankings to stdout."""

import json
import os
import sys
import time
from pathlib import Path

request = json.load(sys.stdin)
os.environ["XDG_CACHE_HOME"] = request["cache"]  # so that indexing is measured, not a cache

from semble import SembleIndex  # noqa: E402
from semble.index.dense import load_model  # noqa: E402

MODEL = sys.argv[1] if len(sys.argv) > 1 else None
load_model(MODEL)
started = time.perf_counter()
index = SembleIndex.from_path(Path(request["root"]), model_path=MODEL)
told = {"index_s": time.perf_counter() - started, "query_s": [], "hits": []}
for query in request["queries"]:
    started = time.perf_counter()
    results = index.search(query, top_k=request["top"])
    told["query_s"].append(time.perf_counter() - started)
    told["hits"].append([(r.chunk.file_path, r.chunk.start_line, r.chunk.end_line, r.score) for r in results])
json.dump(told, sys.stdout)
