"""Ray: a cluster for the run, engines and learner ranks as actors, and what to do when an engine dies."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.engine_pool import EnginePool, PoolSettings
from rl.errors import RunFailed, UserError, last_line
from rl.guardian import environment, guarded
from rl.recipe import EngineSection, LearnerSection, ModelSection, RaySection

if TYPE_CHECKING:
    from ray.actor import ActorHandle

# Before ray is imported. Ray would start workers at nice 15, behind the learner; and hide GPUs from
# actors that reserve none.
_RAY_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
# Of a cluster of our own: it is for this machine alone, so nothing of it listens to others; and when one of its
# processes is killed, the others give up in seconds.
_OWN_CLUSTER_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_enable_worker_prestart": "0",  # idle workers, which engines with an environment of their own cannot use
    "RAY_prestart_worker_first_driver": "0",
}


@contextlib.contextmanager
def ray_cluster(section: RaySection, *, num_cpus: int) -> Iterator[None]:
    """A local Ray that ends with the block or with this process, or a running cluster that is joined and left alone.

    Raises:
        UserError: Ray is not installed, or there is no cluster at `ray.address`.
    """
    own = section.address is None
    os.environ.update(_RAY_ENVIRONMENT)
    if not own and _has_ray_token():
        # `ray start` asks for a token wherever one exists; ray.init sends it only where it is told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    with guarded() as folder, environment(_OWN_CLUSTER_ENVIRONMENT if own else {}):
        try:
            import ray
        except ImportError as error:
            raise UserError(f"ray cannot be imported ({error}); install it with: pip install ray") from None
        logging.getLogger("ray").setLevel(logging.ERROR)
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if own:
            settings = {
                "address": "local",  # without it Ray joins whatever cluster runs on this machine
                "num_cpus": section.num_cpus or num_cpus,
                "include_dashboard": False,
                "object_store_memory": int(section.object_store_gb * 2**30),
                "_temp_dir": str(folder),
            }
            _start_own(settings | common)
        else:
            _join(section.address, common)
        try:
            yield
        finally:
            ray.shutdown()


def _start_own(settings: Mapping[str, Any]) -> None:
    import ray

    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises bare ones where a process of its own dies while it starts
        raise RunFailed(
            f"Ray did not start: {last_line(error)}. Run the same command to continue from the last checkpoint"
        ) from error


def _join(address: str | None, settings: Mapping[str, Any]) -> None:
    import ray

    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"ray.address: {address!r}: no Ray cluster answers there, or it asks for another token "
            f"(RAY_AUTH_TOKEN, ~/.ray/auth_token): {error}"
        ) from None


def _has_ray_token() -> bool:
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").exists()


class Bundles:
    """Shares of machines, each with room for one engine and one learner rank, which use it in turn."""

    def __init__(self, engine: EngineSection, learner: LearnerSection) -> None:
        """Returns when Ray has reserved them.

        Raises:
            UserError: the cluster has no room.
        """
        import ray
        from ray.util.placement_group import placement_group

        one = {"CPU": engine.cpus + learner.cpus, "GPU": engine.gpus + learner.gpus}
        share = {name: amount for name, amount in one.items() if amount}
        self._group = placement_group([share] * engine.replicas, strategy="PACK")
        if not self._group.wait(timeout_seconds=engine.start_timeout_s):
            raise UserError(
                f"engine.colocate: the cluster has no room for {engine.replicas} times {share}; it has "
                f"{ray.cluster_resources()}"
            )

    def option(self, index: int) -> dict[str, Any]:
        """Option of a Ray actor that is placed in the bundle of an index."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, index)}


# ---------------------------------------------------------------- engines


def make_engine(
    section: EngineSection, model: ModelSection, model_path: str, options: Mapping[str, Any]
) -> ActorHandle:
    """One engine actor; returns at once, `ready` answers when the model is loaded.

    Args:
        options: of the Ray actor: what it reserves, and where it is placed.

    Raises:
        UserError: engine.kind is vllm and vLLM is not installed.
    """
    import ray

    device = "cuda" if section.gpus else "cpu"
    if section.kind == "hf":
        from rollouts.hf_engine import HfEngine

        actor: Any = ray.remote(**options)(HfEngine)
        return actor.remote(
            model_path,
            max_num_seqs=section.max_num_seqs,
            device=device,
            trust_remote_code=model.trust_remote_code,
        )
    from rollouts.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VllmEngine, VllmSettings

    environment = ENVIRONMENT | ({} if section.gpus else CPU_ENVIRONMENT)
    actor = ray.remote(**options, runtime_env={"env_vars": environment})(VllmEngine)
    return actor.remote(
        VllmSettings(
            model=model_path,
            dtype=section.dtype,
            max_model_len=section.max_model_len,
            max_num_seqs=section.max_num_seqs,
            kv_cache_gb=section.kv_cache_gb,
            gpu_memory_utilization=section.gpu_memory_utilization,
            on_gpu=section.gpus > 0,
            trust_remote_code=model.trust_remote_code,
            tensor_parallel=section.tensor_parallel,
            sleeps=section.colocate,
        )
    )


def start_engines(
    section: EngineSection,
    model: ModelSection,
    model_path: str,
    *,
    on_event: Callable[[str], None],
    bundles: Bundles | None = None,
) -> EnginePool:
    """The engines of a recipe, which load their models in the background; see `EnginePool.wait_ready`.

    Args:
        bundles: engine i is placed in bundle i; None leaves it to Ray.
    """
    reserved = {"num_cpus": section.cpus, "num_gpus": section.gpus}
    settings = PoolSettings(
        replicas=section.replicas,
        capacity=section.max_num_seqs,
        deal=section.deal,
        max_restarts=section.max_restarts,
        start_timeout_s=section.start_timeout_s,
        answer_timeout_s=section.answer_timeout_s,
        one_machine=_on_one_machine(),
        max_failed_requests=section.max_failed_requests,
    )

    def make(index: int) -> ActorHandle:
        placed = {} if bundles is None else bundles.option(index)
        return make_engine(section, model, model_path, {**reserved, **placed})

    return EnginePool(make, settings, on_event=on_event)


# ---------------------------------------------------------------- learner ranks


class LearnerActor:
    """One rank of the learner in its own process, part of a torch process group."""

    def address(self) -> str:
        """Where the other ranks meet this one: a file where all are on one machine, else a port of this one."""
        import ray

        if _on_one_machine():
            return f"file://{tempfile.gettempdir()}/ranks-{uuid.uuid4().hex}"
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return f"tcp://{ray.util.get_node_ip_address()}:{port}"

    def join(
        self, rank: int, world: int, address: str, section: LearnerSection, model_path: str, trust_remote_code: bool
    ) -> None:
        """Joins the process group and loads the model."""
        import torch
        import torch.distributed as dist

        from rl.learner import Learner

        device = "cuda" if section.gpus else "cpu"
        if section.gpus:
            torch.cuda.set_device(0)
        backend = "cpu:gloo,cuda:nccl" if section.gpus else "gloo"  # offloaded shards are reduced on the CPU
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=world)
        self._learner = Learner(section, model_path, trust_remote_code=trust_remote_code, device=device)

    def call(self, method: str, arguments: tuple[Any, ...], common: Mapping[str, object]) -> Any:
        """Any method of `Learner`."""
        return getattr(self._learner, method)(*arguments, **common)


def _on_one_machine() -> bool:
    """True in a cluster of our own, whose address is that of the loopback device."""
    import ray

    return ray.util.get_node_ip_address() in ("127.0.0.1", "::1")


class RayRanks:
    """Implements `rl.group.Ranks` over Ray actors."""

    def __init__(
        self, section: LearnerSection, model: ModelSection, model_path: str, bundles: Bundles | None = None
    ) -> None:
        """`bundles`: rank i is placed in bundle i; None leaves it to Ray."""
        import ray

        self.count = section.ranks
        environment = {"OMP_NUM_THREADS": str(section.threads), "TOKENIZERS_PARALLELISM": "false"}
        if _on_one_machine() and sys.platform.startswith("linux"):
            environment["GLOO_SOCKET_IFNAME"] = "lo"
        actor: Any = ray.remote(
            num_cpus=section.cpus, num_gpus=section.gpus, runtime_env={"env_vars": environment}
        )(LearnerActor)
        placed = [{} if bundles is None else bundles.option(rank) for rank in range(section.ranks)]
        self._actors = [actor.options(**option).remote() for option in placed]
        (address,) = self._results([self._actors[0].address.remote()], "the start")
        self._results(
            [
                actor.join.remote(rank, self.count, address, section, model_path, model.trust_remote_code)
                for rank, actor in enumerate(self._actors)
            ],
            "the start",
        )

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]], **common: object) -> list[Any]:
        """See `Ranks`.

        Raises:
            RunFailed: a rank died. The run continues from its last checkpoint when it is started again.
        """
        futures = [actor.call.remote(method, args, common) for actor, args in zip(self._actors, arguments)]
        return self._results(futures, method)

    @staticmethod
    def _results(futures: Sequence[Any], during: str) -> list[Any]:
        import ray

        try:
            return ray.get(list(futures))
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:  # the latter: killed by Ray
            raise RunFailed(f"a learner rank died during {during}: {last_line(error)}") from error
