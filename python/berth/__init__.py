"""Berth from Python: tasks, packaged functions and Dask clusters on Kubernetes namespaces that you were given.

Data goes to a berth server (BERTH_SERVER, BERTH_TOKEN, BERTH_CA_FILE), or to the store of
this machine through the berth program (BERTH_BINARY, or berth on PATH).
"""

from ._cluster import Cluster, clusters
from ._errors import ClusterError, ClusterTimeout, Diagnosis, Error, Evidence, TaskError, VersionError
from ._info import ClusterInfo, GroupInfo
from ._service import configure, disconnect
from ._spec import WorkerGroup
from ._task import Task, call, run, submit

__version__ = "0.1"

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterInfo",
    "ClusterTimeout",
    "Diagnosis",
    "Error",
    "Evidence",
    "GroupInfo",
    "Task",
    "TaskError",
    "VersionError",
    "WorkerGroup",
    "call",
    "clusters",
    "configure",
    "disconnect",
    "run",
    "submit",
]
