"""What is Dask's own, imported only where a cluster is used."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Mapping, Optional, Union

from ._errors import ClusterError, VersionError
from ._info import ClusterInfo

CheckVersions = Union[bool, str]
"""True: an error where versions can't work together; "warn": a warning; False: nothing."""


def distributed(versions: Optional[Mapping[str, str]] = None) -> Any:
    """Returns the module distributed. ClusterError, with the version to install, where there is none."""
    try:
        import distributed as module
    except ImportError as error:
        if error.name not in ("distributed", "dask"):
            raise
        wanted = (versions or {}).get("distributed")
        package = f"distributed=={_public(wanted)}" if wanted else "distributed"
        raise ClusterError(f"dask.distributed is not installed for this Python: pip install '{package}'", "unsupported") from None
    return module


def security(ca: str, certificate: str, key: str) -> Any:
    """Returns a distributed Security of PEM texts. They stay in memory: Dask writes them to files
    of a private directory only for as long as it makes a TLS context of them."""
    return distributed().Security(
        require_encryption=True,
        tls_ca_file=_pem(ca),
        tls_client_cert=_pem(certificate),
        tls_client_key=_pem(key),
    )


def _pem(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"  # Dask takes what has no line break for a path


def local_versions() -> dict[str, str]:
    """Returns the versions here of python, dask and distributed."""
    import dask

    own: Any = dask
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "dask": own.__version__,
        "distributed": distributed().__version__,
    }


def status(closed: bool, closing: bool, started: bool) -> Any:
    """Returns the Status that Dask's Client looks at."""
    module = sys.modules.get("distributed.core")
    if module is None:
        return "closed" if closed else "closing" if closing else "running" if started else "starting"
    kind: Any = module.Status
    return kind.closed if closed else kind.closing if closing else kind.running if started else kind.starting


def check(info: ClusterInfo, how: CheckVersions) -> None:
    """Compares the versions here with those of the head and of the workers.

    What is computed is sent as pickled programs, which another minor version of
    Python, or another version of distributed, may not read. Another version of dask
    alone is a warning.
    """
    if how is False:
        return
    here = local_versions()
    bad, doubtful = differences(here, "the head", info.head_versions)
    for group in info.groups:
        more_bad, more_doubtful = differences(here, f"the workers of group {group.name}", group.versions)
        bad += more_bad
        doubtful += more_doubtful
    if bad and how != "warn":
        there = info.head_versions
        raise VersionError(
            f"cluster {info.name} does not fit this Python: {'; '.join(bad)}. Use an image with these versions, or here "
            f"Python {_minor(there.get('python', ''))} with: pip install 'dask=={_public(there.get('dask'))}' "
            f"'distributed=={_public(there.get('distributed'))}' (check_versions=False lets it through)",
            "conflict",
        )
    if bad or doubtful:
        warnings.warn(f"cluster {info.name}: versions differ, which may break what is computed: {'; '.join(bad + doubtful)}", stacklevel=4)


def differences(here: Mapping[str, str], whose: str, there: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Returns what can't work together, and what may not; what is not known counts as good."""
    bad: list[str] = []
    doubtful: list[str] = []
    a, b = here.get("python", ""), there.get("python", "")
    if a and b and _minor(a) != _minor(b):
        bad.append(f"Python is {a} here and {b} on {whose}")
    for package, found in (("distributed", bad), ("dask", doubtful)):
        a, b = here.get(package, ""), there.get(package, "")
        if a and b and _public(a) != _public(b):
            found.append(f"{package} is {a} here and {b} on {whose}")
    return bad, doubtful


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _public(version: Optional[str]) -> str:
    """Returns a version without what a distributor added: 2022.12.1 of 2022.12.1+ds.1."""
    return (version or "").split("+")[0]
