"""Uses the package for real, and prints what came of it as one line of JSON.

Where Berth is says the environment, as for any program (BERTH_SERVER, BERTH_TOKEN,
BERTH_CA_FILE; or BERTH_BINARY, BERTH_INFRA, BERTH_DATA). The Python needs the image's
versions of dask and distributed, and numpy.

    python3 tests/e2e_cluster.py --image registry/dask:1 --on site-a
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.request
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import berth  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default=os.environ.get("BERTH_DASK_IMAGE"), help="default: BERTH_DASK_IMAGE")
    parser.add_argument("--on", help="the infrastructure")
    parser.add_argument("--name", default="python-e2e")
    parser.add_argument("--pull", default="")
    parser.add_argument("--worker-cpu", default="200m")
    parser.add_argument("--worker-memory", default="300Mi")
    parser.add_argument("--head-cpu", default="500m")
    parser.add_argument("--head-memory", default="500Mi")
    parser.add_argument("--megabytes", type=int, default=800, help="of the array; more than one worker has")
    parser.add_argument("--timeout", default="4m")
    return parser.parse_args()


def reduce_array(megabytes: int) -> dict[str, Any]:
    """Sums an array in pieces of 8 MB. Its sum is known."""
    import dask.array as da

    n = megabytes * 1_000_000 // 8
    array = da.arange(n, chunks=1_000_000, dtype="int64")
    total = int((array % 1000).sum().compute())
    want = (n // 1000) * sum(range(1000)) + sum(range(n % 1000))
    return {"bytes": int(array.nbytes), "sum": total, "right": total == want}


def reduce_dataframe() -> dict[str, Any]:
    """Groups a dataframe of many partitions. Its sums are known."""
    try:
        import dask.dataframe as dd
        import pandas as pd
    except ImportError as error:
        return {"skipped": str(error)}
    frame = dd.from_pandas(pd.DataFrame({"key": [n % 4 for n in range(40_000)], "value": list(range(40_000))}), npartitions=20)
    sums = frame.groupby("key").value.sum().compute()
    want = {key: sum(range(key, 40_000, 4)) for key in range(4)}
    return {"sums": {int(key): int(value) for key, value in sums.items()}, "right": {int(k): int(v) for k, v in sums.items()} == want}


def main() -> int:
    a = arguments()
    out: dict[str, Any] = {"python": sys.version.split()[0]}
    began = time.monotonic()

    def lap(name: str) -> None:
        out.setdefault("seconds", {})[name] = round(time.monotonic() - began, 1)

    with berth.Cluster(
        a.name, n_workers=2, image=a.image, on=a.on, worker_cpu=a.worker_cpu, worker_memory=a.worker_memory, head_cpu=a.head_cpu,
        head_memory=a.head_memory, pull=a.pull, timeout=a.timeout, idle_timeout="10m",
    ) as cluster:  # fmt: skip
        lap("started")
        out.update(id=cluster.id, repr=repr(cluster), versions=cluster.info.head_versions, workers=cluster.info.ready)
        with cluster.get_client() as client:
            lap("connected")
            out["array"] = reduce_array(a.megabytes)
            lap("array")
            out["dataframe"] = reduce_dataframe()
            lap("dataframe")
            cluster.scale(3)
            cluster.wait_for_workers(3, timeout=a.timeout)
            lap("scaled")
            client.wait_for_workers(3)
            out["hosts"] = len(set(client.run(os.uname).values()))
            cluster.adapt(minimum=1, maximum=2)
            deadline = time.monotonic() + 120
            while sum(g.wanted + g.draining for g in cluster.refresh().groups) > 2 and time.monotonic() < deadline:
                time.sleep(1)
            out["adapted"] = cluster.info.wanted
            lap("adapted")
            out["after"] = reduce_array(100)
        if cluster.dashboard_link:
            health = cluster.dashboard_link.replace("/status", "/health")
            with urllib.request.urlopen(health, timeout=20) as answer:
                out["dashboard"] = answer.status
        with berth.Cluster.connect(a.name) as again, again.get_client() as client:
            out["again"] = client.submit(sum, [1, 2, 3]).result(timeout=60)
        out["listed"] = a.name in [c.name for c in berth.clusters()]
        out["html"] = len(cluster._repr_html_())
    lap("closed")
    out["state"] = cluster.state
    deadline = time.monotonic() + 60
    while a.name in [c.name for c in berth.clusters()] and time.monotonic() < deadline:
        time.sleep(0.5)
    out["left"] = a.name in [c.name for c in berth.clusters()]
    lap("gone")
    out["ok"] = bool(out["array"]["right"] and out["after"]["right"] and out["dataframe"].get("right", True) and out["again"] == 6 and not out["left"])
    print(json.dumps(out))
    return 0 if out["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
