"""Where rollouts are sampled and where gradients are computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.recipe.section import NonNegative, NonNegativeFloat, Positive, PositiveFloat, Section, Share


class ServerSection(Section):
    """An OpenAI-compatible vLLM server, started with the model of this recipe."""

    url: str
    """up to and with /v1"""
    model: str
    """the name under which it serves the model"""
    api_key_env: str | None = None
    """environment variable that holds the key"""
    concurrency: Positive = 64
    """requests under way at the same time"""


class EngineSection(Section):
    """The rollout engines: Ray actors, one engine each."""

    kind: Literal["vllm", "hf", "server"] = "vllm"
    """hf: a transformers model behind the same interface, where vLLM is not installed and for very small models;
    server: a vLLM server that runs already, for pipelines that change no weights (message caches)"""
    server: ServerSection | None = None
    replicas: Positive = 1
    gpus: NonNegativeFloat = 0
    """GPUs that Ray reserves for one replica; 0 runs on the CPU"""
    cpus: NonNegativeFloat = 1
    """CPU cores that Ray reserves for one replica"""
    tensor_parallel: Positive = 1
    """processes that share every layer of one replica; its gpus and cpus are those of all of them"""
    colocate: bool = False
    """engine i and learner rank i share a bundle of Ray's, and with it a machine; the engine sleeps (gives its GPU
    memory back) while the rank learns"""
    max_model_len: Positive
    """tokens of prompt and response together, over all stages"""
    max_num_seqs: Positive = 256
    """responses that one engine decodes at the same time"""
    kv_cache_gb: PositiveFloat | None = None
    """memory of the KV cache; not given: vLLM takes gpu_memory_utilization (GPU) or 1 GB (CPU)"""
    gpu_memory_utilization: Share = 0.9
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_restarts: NonNegative = 3
    """times that an engine is started anew, all engines together, before the run stops"""
    max_failed_requests: NonNegative = 0
    """requests that no engine can answer (each refuses it, or breaks by it) before the run stops; up to so many are
    told and counted, and their prompts are not learned from"""
    start_timeout_s: PositiveFloat = 600
    answer_timeout_s: PositiveFloat = 600
    """an engine that has work and does not answer for so long is killed and started anew; longer than one step of the
    model (hf: than one batch)"""
    deal: Literal["load", "fixed"] = "load"
    """load: the next prompt goes to the engine with the fewest responses under way; fixed: every engine gets its block
    at once, so that a run with several replicas repeats bit for bit, as one with one replica does anyway"""

    @model_validator(mode="after")
    def _parallel(self) -> EngineSection:
        if self.kind != "vllm" and self.tensor_parallel > 1:
            raise ValueError(f"tensor_parallel: {self.tensor_parallel} needs kind vllm")
        if (self.kind == "server") != (self.server is not None):
            raise ValueError("server: kind server needs a section server with url and model, and no other kind has one")
        return self


class AdapterSection(Section):
    """Low-rank adapters of policy and critic on one frozen base, in place of training every weight."""

    rank: Positive = 16
    alpha: Positive = 32
    """the product of the adapters counts alpha / rank times"""
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """every linear layer but the head, or ends of the names of layers, as peft takes them"""
    base: Literal["full", "nf4"] = "full"
    """nf4: the layers under the adapters in four bits (QLoRA; needs bitsandbytes and one rank)"""


class LearnerSection(Section):
    """Where gradients are computed."""

    ranks: Positive = 1
    """1: in the driver's process. More: Ray actors, the models sharded over them with FSDP2"""
    gpus: NonNegativeFloat = 0
    """GPUs per rank; more than 0 puts the learner into Ray actors also when ranks is 1"""
    cpus: NonNegativeFloat = 1
    """CPU cores that Ray reserves for one rank"""
    threads: Positive = 1
    """torch threads of one rank; more than the free cores makes the CPU many times slower"""
    micro_batch_tokens: Positive = 16384
    """tokens of one forward and backward, padding included"""
    packing: bool = False
    """the rows of a micro-batch in one line without padding, attention within each row: for a GPU; on a CPU rows of
    like length, padded, are faster"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of compute; weights and reductions stay in float32. bfloat16 needs ranks in Ray actors"""
    activation_checkpointing: bool = False
    """compute activations again in the backward pass instead of keeping them"""
    compile: bool = False
    """torch.compile each transformer layer; on a CPU it takes the place of this package's own fused layers"""
    reshard: bool = True
    """free the gathered weights of a layer after its forward pass; false keeps them for the backward one, which costs
    memory and saves communication"""
    cpu_offload: bool = False
    """keep weights, gradients and the optimizer in the memory of the CPU, where it steps; needs ranks in Ray actors"""
    lora: AdapterSection | None = None
    """train adapters only; they are merged where weights are published and saved, and when a stage begins"""
    head_chunk_tokens: Positive = 4096
    """tokens whose logits over the vocabulary exist at the same time"""
    async_level: Literal[0, 1] = 0
    """1: the next iteration is sampled while this one learns, with weights that are one update old"""

    @property
    def in_driver(self) -> bool:
        """True when the learner runs in the driver's own process."""
        return self.ranks == 1 and self.gpus == 0

    @model_validator(mode="after")
    def _fits_its_ranks(self) -> LearnerSection:
        if self.dtype == "bfloat16" and self.in_driver:
            raise ValueError("dtype bfloat16 needs ranks > 1 or gpus > 0; in the driver on a CPU use float32")
        if self.in_driver and (self.cpu_offload or not self.reshard):
            raise ValueError("cpu_offload and reshard are of sharded models: they need ranks > 1 or gpus > 0")
        if self.lora is not None and self.lora.base == "nf4" and self.ranks > 1:
            raise ValueError(f"lora.base: nf4 is not sharded; it needs ranks 1, not {self.ranks}")
        return self


class RaySection(Section):
    """The Ray cluster."""

    address: str | None = None
    """address of a running cluster to join ("auto" finds one); not given: a local one, stopped at the end"""
    num_cpus: Positive | None = None
    """cores that a local cluster offers; not given: as many as the actors reserve"""
    object_store_gb: PositiveFloat = 0.5
