"""Whether every node of a cluster can do its part: the packages are there, and it sees the files.

Found out before anything is begun, since a node that cannot would fail one parcel after another.
"""

from __future__ import annotations

import pickle
import secrets
import sys
from dataclasses import dataclass
from typing import Any

from ..errors import CorpusError, DistillError
from . import files
from .job import VocodeJob
from .plan import Item

_PATIENCE = 120.0
"""Seconds for all nodes to answer. A task first has to get a Python process there."""

_SHOWN = 5


@dataclass(frozen=True)
class _Question:
    """What a node has to find as the driver does."""

    version: str
    settings: str
    job: VocodeJob
    input: str
    probe: str | None
    token: str


def check_nodes(ray: Any, job: VocodeJob, item: Item) -> None:
    """Ask each node that can be given work.

    Args:
        ray: connected.
        job: what will be done.
        item: one of those it will be done to.

    Raises:
        CorpusError: nodes lack a package, have another version of it, or do not see an input or the output folder;
            each is named, with what to do.
    """
    nodes = [node for node in ray.nodes() if node.get("Alive") and node.get("Resources", {}).get("CPU", 0) > 0]
    token = secrets.token_hex(8)
    probe = None if job.folder is None else files.join(job.folder, files.FOLDER, f"probe-{token}")
    question = _Question(_version(), job.settings, job, item.input, probe, token)
    try:
        if probe is not None:
            files.write_bytes(probe, token.encode())
        problems = _ask(ray, nodes, pickle.dumps(question))
    finally:
        if probe is not None:
            files.remove(probe)
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        listed = "\n  ".join(problems[:_SHOWN])
        raise CorpusError(f"{len(problems)} of the cluster's {len(nodes)} nodes cannot take part:\n  {listed}{more}")


def _ask(ray: Any, nodes: list[dict[str, Any]], question: bytes) -> list[str]:
    """What is wrong, node by node."""
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)  # a node without distill-core has to be able to say so
    try:
        visit = ray.remote(num_cpus=0, max_retries=2)(_visit)
        answers = {
            visit.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                question
            ): f"node {node['NodeManagerAddress']} ({node.get('NodeManagerHostname', '')})"
            for node in nodes
        }
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=_PATIENCE)
    problems = [f"{answers[each]}: did not answer within {_PATIENCE:.0f} s." for each in late]
    for each in ready:
        try:
            problem = ray.get(each)
        except Exception as error:  # the node went away, or cannot start a worker
            problem = f"could not be asked ({' '.join(str(error).split())[:300]})."
        if problem:
            problems.append(f"{answers[each]}: {problem}")
    return sorted(problems)


def _visit(question: bytes) -> str:
    """Runs on the node, and is sent there whole: it may name nothing of this module."""
    try:
        from distill_core.corpus import ray_nodes
    except ImportError as error:
        return f"distill-core cannot be imported there ({error}). Install it: pip install 'distill-core[ray]'"
    return ray_nodes.answer(question)


def answer(question: bytes) -> str:
    """What is wrong on this node; empty if nothing is."""
    asked: _Question = pickle.loads(question)
    if _version() != asked.version:
        return f"has distill-core {_version()}, and the driver {asked.version}. Install the same."
    try:
        settings = asked.job.settings
    except (DistillError, OSError) as error:
        return str(error)
    if settings != asked.settings:
        if asked.job.weights is None:
            return "makes something else of this vocoder and variant. Install the same version of its plug-in."
        return f"{asked.job.weights}: is not the same there: copy it with its files' times (cp -p, rsync -a)."
    try:
        if files.identity(asked.input) is None:
            return f"{asked.input}: is not there. All nodes have to see the inputs under the same name."
        if asked.probe is not None and files.read_bytes(asked.probe) != asked.token.encode():
            return f"{asked.job.folder}: is another folder there."
    except FileNotFoundError:
        return f"{asked.job.folder}: is not the driver's output folder there. All nodes have to share it."
    except (DistillError, OSError) as error:
        return str(error)
    return ""


def _version() -> str:
    from .. import __version__

    return __version__
