"""The schema of a recipe. Frozen, complete, and light: imports no torch, ray or vllm.

One file is one pipeline. `read_recipe` (file.py) reads it; this file says what it may contain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from rl.recipe.sources import DatasetSource, MessageCacheSource, TaskSource, source_kind
from rollouts.pacore import SYNTHESIS_TEMPLATE

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Source = Annotated[
    Annotated[TaskSource, Tag("task")]
    | Annotated[DatasetSource, Tag("dataset")]
    | Annotated[MessageCacheSource, Tag("message_cache")],
    Discriminator(
        source_kind,
        custom_error_type="source_kind",
        custom_error_message="a source needs exactly one of the keys: task, dataset, message_cache",
    ),
]


class Section(BaseModel):
    """A mapping of the recipe: unknown keys are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# ---------------------------------------------------------------- model


class TokenizerSection(Section):
    """A tokenizer of single characters and whole pieces, made from the recipe."""

    characters: str
    """every character that may occur; anything else becomes <unk>"""
    pieces: list[str] = []
    """strings that are one token each, the longest match first"""


class VisionSection(Section):
    """Eyes of a created model: a SigLIP vision tower; merge x merge of its patches become one token of the decoder."""

    image_size: Positive
    """pixels of a side; every image is scaled to this square"""
    patch_size: Positive
    merge: Positive = 1
    hidden_size: Positive
    num_layers: Positive
    num_heads: Positive
    intermediate_size: Positive

    @property
    def tokens_per_image(self) -> int:
        """Tokens of the decoder that one image becomes, without those around it."""
        return (self.image_size // self.patch_size // self.merge) ** 2

    @model_validator(mode="after")
    def _divides(self) -> VisionSection:
        if self.image_size % (self.patch_size * self.merge):
            raise ValueError(f"patch_size * merge: {self.patch_size} * {self.merge} does not divide {self.image_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}")
        return self


class CreateModel(Section):
    """A model with random weights, for runs that start from nothing: Qwen3, or Idefics3 where it has `vision`."""

    tokenizer: TokenizerSection
    hidden_size: Positive
    num_layers: Positive
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    """vLLM's CPU attention takes 32, 64, 80, 96, 112, 128, 160, 192, 224, 256 or 512"""
    intermediate_size: Positive
    max_position_embeddings: Positive = 1024
    rope_theta: PositiveFloat = 10000.0
    initializer_range: PositiveFloat = 0.02
    """standard deviation of the random weights"""
    vision: VisionSection | None = None
    """with it the model takes images, and the prompts of conversations"""


class ModelSection(Section):
    """The policy that the pipeline starts from: exactly one of `path` and `create`."""

    path: str | None = None
    """a local folder or a hub name `organisation/name`"""
    create: CreateModel | None = None
    trust_remote_code: bool = False
    """run Python code that comes with the model"""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.path is None) == (self.create is None):
            raise ValueError("needs exactly one of the keys: path (a model to load), create (a model to make)")
        return self


# ---------------------------------------------------------------- machines


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
        return self


class RaySection(Section):
    """The Ray cluster."""

    address: str | None = None
    """address of a running cluster to join ("auto" finds one); not given: a local one, stopped at the end"""
    num_cpus: Positive | None = None
    """cores that a local cluster offers; not given: as many as the actors reserve"""
    object_store_gb: PositiveFloat = 0.5


class SavingSection(Section):
    """What is left in the run directory."""

    checkpoint_every: Positive = 50
    """iterations (steps of an sft stage) between checkpoints"""
    keep_checkpoints: Positive = 2
    """newest checkpoints of a stage that are kept"""
    rollouts_per_iteration: NonNegative = 8
    """trajectories that are written with their rewards in every iteration"""
    trace_iterations: NonNegative = 0
    """first iterations of each rl stage whose time line is written to traces/<stage>.json in Chrome's trace format"""


class NonFiniteSection(Section):
    """Optimizer steps whose loss or gradient is not finite: each is skipped, its batch kept in the run directory."""

    max_in_a_row: NonNegative = 3
    """skipped steps of one model in a row that are borne"""
    then: Literal["stop", "roll_back"] = "stop"
    """roll_back: go back to the newest checkpoint of the stage and continue with other prompts and seeds"""
    max_rollbacks: NonNegative = 3
    """per stage; the run stops at the next one"""


# ---------------------------------------------------------------- parts of stages


class SamplingSection(Section):
    """How responses are sampled."""

    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegative = 0
    """0 keeps every token"""
    max_tokens: Positive
    """upper bound of sampled tokens per response"""
    stop: list[str] = []


class OptimizerSection(Section):
    """AdamW and its schedule. `warmup` and the schedule count iterations of an rl stage, steps of an sft stage."""

    learning_rate: PositiveFloat
    vision_learning_rate: NonNegativeFloat | None = None
    """of the vision tower of a model that takes images, under the same schedule; 0 freezes it, null: learning_rate"""
    projector_learning_rate: NonNegativeFloat | None = None
    """of what stands between vision tower and decoder"""
    decoder_learning_rate: NonNegativeFloat | None = None
    """of the decoder, its embeddings and the head"""
    warmup: NonNegative = 0
    """linear, from 0"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_share: Share = 0.0
    """learning rate at the end of a linear or cosine schedule, as a share of learning_rate"""
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """keep an exponential moving average of the policy's weights, which becomes the policy at the end of the stage;
    null for none"""


    @model_validator(mode="after")
    def _something_learns(self) -> OptimizerSection:
        if (self.vision_learning_rate, self.projector_learning_rate, self.decoder_learning_rate) == (0, 0, 0):
            raise ValueError("vision_learning_rate, projector_learning_rate, decoder_learning_rate: all three are 0")
        return self


class RewardActorSection(Section):
    """Ray actors that compute a reward, in place of processes beside the driver."""

    gpus: NonNegativeFloat = 0
    """GPUs that Ray reserves for one actor"""
    cpus: NonNegativeFloat = 1
    """CPU cores that Ray reserves for one actor"""


class RunningNormalisation(Section):
    """A reward minus its mean, over its standard deviation, of all responses of the stage so far."""

    clip: PositiveFloat | None = None
    """bound of the normalised reward; not given: none"""


class RewardSection(Section):
    """One reward function of a stage."""

    fn: str
    """built-in name, package.module:function or path/to/file.py:function"""
    name: str | None = None
    """label in metrics; not given: the part of fn after the colon"""
    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    args: dict[str, Any] = {}
    from_stage: str | None = None
    """an earlier preference_model stage whose model is passed as the argument `model`"""
    timeout_s: PositiveFloat = 10.0
    """per row; the worker of a row that takes longer is killed"""
    on_error: Literal["drop", "zero", "abort"] = "drop"
    """of a row whose reward failed: drop the trajectory, count 0, or stop the run"""
    max_failure_rate: Share = 0.1
    """share of failed rows of one iteration above which the run stops"""
    range: tuple[float, float] | None = None
    """values outside are failures"""
    workers: Positive = 1
    """processes, or actors, that compute this reward"""
    actor: RewardActorSection | None = None
    """compute in Ray actors; not given: in processes beside the driver"""
    normalise: RunningNormalisation | None = None
    """what is learned from; metrics, and everything that is logged, show the reward as it is. Not given: as it is"""
    gold: str | None = None
    """an evaluation, measured every so many iterations, of what this reward stands for: a warning tells when the
    reward rises while it falls"""

    @property
    def label(self) -> str:
        """The name under which metrics show this reward."""
        return self.name or self.fn.rpartition(":")[2]

    @model_validator(mode="after")
    def _no_scale_that_is_lost(self) -> RewardSection:
        if self.fn == "preference" and self.args.get("running"):
            raise ValueError("args.running: its scale is lost with the process; in a recipe, use normalise: {}")
        return self


class WeightedSource(Section):
    """A source of prompts and its share in a mixture."""

    source: Source
    weight: PositiveFloat = 1.0
    name: str | None = None
    """label in metrics; not given: the name of the task, dataset or cache"""
    rewards: list[str] = []
    """labels of the rewards that apply to these prompts; empty: all rewards of the stage"""

    @property
    def label(self) -> str:
        """The name under which metrics show this source."""
        return self.name or self.source.label


class AlgorithmSection(Section):
    """PPO. gamma and gae_lambda are those of the GAE paper, clip_ratio that of the PPO paper."""

    advantage: Literal["gae", "grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"] = "gae"
    """gae needs a critic; grpo, rloo and reinforce_pp_baseline (REINFORCE++ with the mean of the group taken off)
    compare the samples of a prompt; reinforce_pp, rewards to go whitened over the batch, needs neither"""
    group_std: bool = True
    """grpo divides by the standard deviation of the group; false is Dr. GRPO"""
    gamma: Share = 1.0
    gae_lambda: Share = 1.0
    critic_lambda: Share | None = None
    """lambda of the critic's targets (VAPO's decoupled GAE takes 1); not given: gae_lambda"""
    lambda_alpha: PositiveFloat | None = None
    """VAPO's length-adaptive lambda of the policy, 1 - 1 / (alpha * tokens), in place of gae_lambda; paper: 0.05"""
    whiten_advantages: bool = True
    """mean 0 and variance 1 over the sampled tokens of the batch"""
    minibatches: Positive = 1
    """policy updates per epoch; 1 is strictly on-policy"""
    epochs: Positive = 1
    clip_ratio: PositiveFloat = 0.2
    clip_ratio_high: PositiveFloat | None = None
    """width above 1 (DAPO's clip-higher); not given: clip_ratio"""
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """bound of the loss of a token with negative advantage, as a multiple of it; null for none"""
    loss_average: Literal["token", "response"] = "token"
    """token: every token counts alike (DAPO); response: every response does, whatever its length (GRPO)"""
    value_clip: PositiveFloat | None = 0.2
    """in units of the return; null for none"""
    kl_reward_coef: NonNegativeFloat = 0.0
    """times an estimate of KL to the start of the stage, taken from the reward of each token"""
    kl_reward_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_loss_coef: NonNegativeFloat = 0.0
    """times an estimate of KL to the start of the stage, added to the loss"""
    kl_loss_estimator: Literal["k2", "k3"] = "k3"
    """k1 is not offered: its gradient is 0 on average"""
    kl_target: PositiveFloat | None = None
    """nats per response: the KL coefficient, kl_reward_coef or kl_loss_coef at first, is adapted to it"""
    kl_horizon: Positive = 10000
    """responses over which the adapted coefficient can change by about a fifth"""
    measure_kl: bool = False
    """keep the reference and log KL to it also where no coefficient needs it"""
    reference_reset_every: NonNegative = 0
    """iterations after which the policy as it is becomes the reference; 0: the reference stays the stage's start"""
    entropy_coef: NonNegativeFloat = 0.0
    """times the entropy, taken from the loss"""
    importance_cap: PositiveFloat | None = None
    """C of truncated importance sampling between engine and trainer; null for none"""
    gap_limit: PositiveFloat | None = None
    """nats per token: responses whose mean log-ratio between trainer and engine is larger are left out"""
    refill_rounds: NonNegative = 0
    """DAPO's dynamic sampling: prompts whose samples all earn the same reward are replaced by new ones, up to so many
    times; 0 keeps them"""
    old_logprobs: Literal["trainer", "rollout"] = "trainer"
    """rollout: trust the engine's log-probs and save a forward pass (float32 engines)"""
    truncated: Literal["terminal", "bootstrap", "masked"] = "terminal"
    """value after the last token of a response that max_tokens cut: 0, or the critic's estimate; masked leaves such
    responses out of the update (DAPO's overlong filtering)"""
    truncated_reward: float | None = None
    """reward of a cut response in place of the sum of its rewards; null keeps the sum"""

    @property
    def compares_samples(self) -> bool:
        """True where the other samples of a prompt are the baseline."""
        return self.advantage in ("grpo", "rloo", "reinforce_pp_baseline")

    @property
    def kl_coef(self) -> float:
        """The one coefficient that kl_target adapts, as it is at first."""
        return max(self.kl_reward_coef, self.kl_loss_coef)

    @property
    def needs_reference(self) -> bool:
        """True when the frozen start of the stage is compared with the policy."""
        return self.kl_reward_coef > 0 or self.kl_loss_coef > 0 or self.measure_kl


class CriticSection(Section):
    """The value model: its own backbone, started from the policy of the stage, and a value head that starts at 0."""

    optimizer: OptimizerSection
    minibatches: Positive = 1
    """critic updates per epoch and iteration"""
    epochs: Positive = 1
    warmup_iterations: NonNegative = 0
    """first iterations in which only the critic learns"""


# ---------------------------------------------------------------- stages


class SftPhase(Section):
    """A part of an sft stage with its own mixture of sources."""

    steps: Positive
    sources: Annotated[list[WeightedSource], Field(min_length=1)]


class SftStage(Section):
    """Supervised fine-tuning on `prompt` and `completion`: the loss counts the completion's tokens."""

    kind: Literal["sft"]
    phases: Annotated[list[SftPhase], Field(min_length=1)]
    batch_size: Positive
    """rows per optimizer step"""
    max_length: Positive
    """longer rows are an error that names the row"""
    optimizer: OptimizerSection

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


class OnlineMessagesSection(Section):
    """Problems become synthesis prompts with answers that the policy writes in the same iteration, without a cache."""

    sources: list[str] = []
    """labels of the sources whose problems get messages; empty: all"""
    samples_per_prompt: Positive
    """answers per problem"""
    messages: tuple[Positive, Positive]
    """lowest and highest number of messages in a prompt, both included; drawn uniformly for each prompt"""
    sampling: SamplingSection
    template: str = SYNTHESIS_TEMPLATE
    """jinja2; sees `problem` and `messages`"""
    conclusion: str | None = None
    """regular expression; see the message_cache stage"""
    overflow: Literal["drop", "shorten"] = "drop"
    """what becomes of messages that leave no room for the response; see a message_cache source"""

    @model_validator(mode="after")
    def _enough(self) -> OnlineMessagesSection:
        low, high = self.messages
        if not low <= high <= self.samples_per_prompt:
            most = self.samples_per_prompt
            raise ValueError(f"messages: {[low, high]}: lowest <= highest <= samples_per_prompt {most}")
        return self


class EpisodeSection(Section):
    """Prompts are first screens of tasks: the policy acts on what it sees until it is done, and one trajectory holds
    all its turns, with the screens between them masked from the loss."""

    max_steps: Positive = 20
    coordinate_space: Literal["pixels", "unit", "percent", "grid1000"]
    """what the numbers of a click mean"""


class LongTailSection(Section):
    """More prompts are under way than an iteration learns from: it takes those that are complete first, and the last
    responses are not waited for. Which are first depends on the time, so such a stage does not repeat bit for bit."""

    extra_prompts: Positive
    """prompts under way beyond prompts_per_iteration"""
    rest: Literal["continue", "drop"] = "continue"
    """continue: the others go on in the next iteration, under its weights; drop: they are given up, which favours
    prompts with short responses"""
    max_staleness: Positive = 4
    """updates; a response with an older token begins anew"""


class RlStage(Section):
    """PPO on prompts that rewards can score."""

    kind: Literal["rl"]
    iterations: Positive
    prompts: Annotated[list[WeightedSource], Field(min_length=1)]
    prompts_per_iteration: Positive
    samples_per_prompt: Positive
    sampling: SamplingSection
    rewards: Annotated[list[RewardSection], Field(min_length=1)]
    algorithm: AlgorithmSection = AlgorithmSection()
    policy: OptimizerSection
    critic: CriticSection | None = None
    success: float = 1.0
    """the metric accuracy counts rewards of at least this"""
    online_messages: OnlineMessagesSection | None = None
    """train synthesis on messages of the current policy"""
    episodes: EpisodeSection | None = None
    """the prompts of the stage have an environment, see the task `device`"""
    long_tail: LongTailSection | None = None
    """partial rollouts"""
    keep_best: str | None = None
    """an evaluation with the key every: the stage hands on the policy that scored highest on it, of those measured"""

    @property
    def trajectories_per_iteration(self) -> int:
        """Responses sampled and scored in one iteration."""
        return self.prompts_per_iteration * self.samples_per_prompt

    @model_validator(mode="after")
    def _consistent(self) -> RlStage:
        problems = [*_rl_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self


class LoraSection(Section):
    """Low-rank adapters on the backbone, merged into the saved model; the scalar head is trained in full."""

    rank: Positive = 16
    alpha: Positive = 32
    """the adapters' output is scaled by alpha / rank"""
    dropout: Share = 0.0
    target_modules: list[str] = []
    """ends of the names of the adapted layers; empty: every linear layer but the head"""


class EarlyStopSection(Section):
    """Keep the weights with the lowest loss on pairs kept aside, and stop when it no longer falls."""

    num_pairs: Positive = 256
    """taken from the training pairs, on prompts of their own; the accuracy is measured on other pairs"""
    evaluate_every: Positive
    """optimizer steps between measurements"""
    patience: Positive = 3
    """measurements in a row without improvement before training stops"""
    min_improvement: NonNegativeFloat = 0.0
    """of the loss, in nats per pair; less counts as none"""


class PreferenceModelStage(Section):
    """A reward model (a backbone and a scalar head) trained by TRL on pairs `chosen`, `rejected`.

    A column `margin` says by how much `chosen` is better; it is subtracted from the difference of the scores."""

    kind: Literal["preference_model"]
    pairs: Source
    num_pairs: Positive
    """pairs that are trained on"""
    num_held_out: Positive
    """pairs that measure accuracy, on other prompts than the training pairs"""
    start: str | None = None
    """folder or hub name of a language model, a classifier or a reward model to start from; not given: the policy"""
    members: Positive = 1
    """models that differ in the seed of head and order; a reward over several is an ensemble"""
    epochs: PositiveFloat = 1.0
    batch_size: Positive
    learning_rate: PositiveFloat
    warmup_share: Share = 0.05
    """of all optimizer steps; linear, from 0"""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """down to 0"""
    weight_decay: NonNegativeFloat = 0.0
    max_length: Positive
    """tokens of prompt and response; pairs with a longer side are left out and counted"""
    center_rewards_coefficient: NonNegativeFloat = 0.0
    """times the mean square of the sum of a pair's scores, added to the loss: keeps scores around 0"""
    lora: LoraSection | None = None
    early_stop: EarlyStopSection | None = None


class MessageCacheStage(Section):
    """Many graded answers per problem, the material of PaCoRe's synthesis prompts."""

    kind: Literal["message_cache"]
    prompts: WeightedSource
    num_problems: Positive
    samples_per_prompt: Positive
    """answers per problem"""
    sampling: SamplingSection
    rewards: Annotated[list[RewardSection], Field(min_length=1)]
    success: float = 1.0
    """an answer is right when its reward is at least this"""
    conclusion: str | None = None
    """regular expression whose last match is kept of an answer; not given: what follows the last </think>"""
    above: Annotated[float, Field(ge=-1, lt=1)] = 0.0
    """a problem is kept when the share of right answers is above this: nothing helps where all are wrong"""
    below: Annotated[float, Field(gt=0)] = 1.0
    """and below this: naive aggregation suffices where most are right"""
    domain_column: str | None = None
    """column that names a problem's domain, for below_by_domain and for the counts that are printed"""
    below_by_domain: dict[str, Annotated[float, Field(gt=0)]] = {}
    """in place of `below` for the problems of these domains"""
    grade_responses: bool = False
    """grade the texts of a row's `responses` (PaCoRe-Train's layout) instead of sampling answers"""

    @property
    def samples_syntheses(self) -> bool:
        """True for a second pass: syntheses of an earlier cache are sampled, and its problems filtered by them."""
        return isinstance(self.prompts.source, MessageCacheSource)

    @model_validator(mode="after")
    def _consistent(self) -> MessageCacheStage:
        if self.below_by_domain and self.domain_column is None:
            raise ValueError("below_by_domain: needs domain_column, the column that holds the domain")
        if self.grade_responses and self.samples_syntheses:
            raise ValueError("grade_responses: a second pass samples syntheses; it has no ready responses")
        return self


Stage = Annotated[SftStage | RlStage | PreferenceModelStage | MessageCacheStage, Field(discriminator="kind")]


class SynthesisSection(Section):
    """Measure one PaCoRe round: `width` answers, one synthesis that has read them."""

    width: Positive
    template: str = SYNTHESIS_TEMPLATE
    """jinja2; sees `problem` and `messages`"""
    conclusion: str | None = None
    """regular expression; see the message_cache stage"""
    max_tokens: Positive
    """of the synthesis"""


class EvaluationSection(Section):
    """A held-out set, measured before the first and after every stage that changes the policy.

    Its prompts never occur in training: they are left out by content, in every stage."""

    prompts: Source
    num_prompts: Positive
    samples_per_prompt: Positive = 1
    sampling: SamplingSection
    rewards: Annotated[list[RewardSection], Field(min_length=1)]
    measure: Literal["accuracy", "win_rate", "mean_reward"] = "accuracy"
    """win_rate: share of prompts on which the reward beats that of the stage's start, ties count half"""
    success: float = 1.0
    """accuracy counts rewards of at least this"""
    every: Positive | None = None
    """also measured during rl stages, after every so many iterations"""
    synthesis: SynthesisSection | None = None
    episodes: EpisodeSection | None = None
    """see an rl stage"""


class Recipe(Section):
    """One pipeline."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    seed: NonNegative = 0
    model: ModelSection
    engine: EngineSection
    learner: LearnerSection = LearnerSection()
    ray: RaySection = RaySection()
    saving: SavingSection = SavingSection()
    non_finite: NonFiniteSection = NonFiniteSection()
    evaluations: dict[str, EvaluationSection] = {}
    stages: Annotated[dict[str, Stage], Field(min_length=1)]

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        problems = [*_reference_problems(self), *_length_problems(self), *_gold_problems(self), *_best_problems(self)]
        problems += [*_normalisation_problems(self), *_staleness_problems(self), *_placement_problems(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self


# ---------------------------------------------------------------- rules over several keys


def _rl_problems(stage: RlStage) -> Iterator[str]:
    total, algorithm = stage.trajectories_per_iteration, stage.algorithm
    if total % algorithm.minibatches:
        yield (
            f"algorithm.minibatches: {algorithm.minibatches} does not divide prompts_per_iteration * "
            f"samples_per_prompt = {stage.prompts_per_iteration} * {stage.samples_per_prompt} = {total}"
        )
    if stage.critic and total % stage.critic.minibatches:
        yield (
            f"critic.minibatches: {stage.critic.minibatches} does not divide prompts_per_iteration * "
            f"samples_per_prompt = {stage.prompts_per_iteration} * {stage.samples_per_prompt} = {total}"
        )
    if (algorithm.advantage == "gae") != (stage.critic is not None):
        yield f"critic: advantage gae needs a critic section, {algorithm.advantage} takes none"
    if stage.critic and stage.critic.optimizer.ema_decay is not None:
        yield "critic.optimizer.ema_decay: only the policy has a moving average"
    if (algorithm.compares_samples or algorithm.refill_rounds) and stage.samples_per_prompt < 2:
        key = algorithm.advantage if algorithm.compares_samples else "refill_rounds"
        yield f"samples_per_prompt: {key} compares samples of one prompt and needs at least 2"
    yield from _algorithm_problems(algorithm)
    if algorithm.reference_reset_every and not algorithm.needs_reference:
        yield "algorithm.reference_reset_every: there is no reference; set a KL coefficient or measure_kl"
    if stage.sampling.temperature == 0 or stage.sampling.top_p != 1 or stage.sampling.top_k != 0:
        yield (
            "sampling: an rl stage needs temperature > 0, top_p 1 and top_k 0; otherwise the trainer cannot "
            "compute the log-probs of the distribution that was sampled from"
        )
    labels = [reward.label for reward in stage.rewards]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"rewards: two rewards have the label {label!r}; give one of them a name"
    for mixed in stage.prompts:
        for label in mixed.rewards:
            if label not in labels:
                yield f"prompts: {mixed.label!r} names the reward {label!r}; the stage has {', '.join(labels)}"
    if stage.episodes is not None and stage.online_messages is not None:
        yield "episodes: an episode is no problem that online_messages could be written for"
    sources = [mixed.label for mixed in stage.prompts]
    for label in stage.online_messages.sources if stage.online_messages else []:
        if label not in sources:
            yield f"online_messages.sources: {label!r} is not a source of the stage; there are: {', '.join(sources)}"


def _algorithm_problems(algorithm: AlgorithmSection) -> Iterator[str]:
    """Keys of the algorithm that contradict each other or that nothing would read."""
    chosen = algorithm.advantage
    if chosen != "gae":
        if algorithm.truncated == "bootstrap":
            yield "algorithm.truncated: bootstrap asks the critic, which only advantage gae has"
        for key in ("critic_lambda", "lambda_alpha"):
            if getattr(algorithm, key) is not None:
                yield f"algorithm.{key}: is of GAE; advantage is {chosen}"
    if algorithm.lambda_alpha is not None and algorithm.gae_lambda != 1:
        yield "algorithm.lambda_alpha: takes the place of gae_lambda; leave gae_lambda out"
    if algorithm.compares_samples and algorithm.kl_reward_coef > 0:
        yield f"algorithm.kl_reward_coef: needs advantage gae or reinforce_pp; {chosen} takes kl_loss_coef"
    if not algorithm.group_std and chosen != "grpo":
        yield f"algorithm.group_std: is of grpo; advantage is {chosen}"
    if chosen.startswith("reinforce_pp") and not algorithm.whiten_advantages:
        yield f"algorithm.whiten_advantages: {chosen} is defined with advantages whitened over the batch"
    if algorithm.kl_target is not None and (algorithm.kl_reward_coef > 0) == (algorithm.kl_loss_coef > 0):
        yield "algorithm.kl_target: adapts one coefficient; set either kl_reward_coef or kl_loss_coef above 0"
    widest = 1 + (algorithm.clip_ratio_high or algorithm.clip_ratio)
    if algorithm.dual_clip is not None and algorithm.dual_clip <= widest:
        yield f"algorithm.dual_clip: {algorithm.dual_clip} would bound ratios inside the trust region; above {widest:g}"
    if algorithm.old_logprobs == "rollout":
        for key in ("importance_cap", "gap_limit"):
            if getattr(algorithm, key) is not None:
                yield f"algorithm.{key}: compares engine and trainer, and old_logprobs rollout takes them as equal"


def _reference_problems(recipe: Recipe) -> Iterator[str]:
    """References to stages that do not exist earlier in the pipeline, or are of another kind."""
    earlier: dict[str, str] = {}
    for name, stage in recipe.stages.items():
        for key, wanted, kind in _references(stage):
            if earlier.get(wanted) != kind:
                names = [other for other, other_kind in earlier.items() if other_kind == kind]
                allowed = ", ".join(names) or "none"
                yield f"stages.{name}.{key}: {wanted!r} is not an earlier {kind} stage; there are: {allowed}"
        earlier[name] = stage.kind
    for name, evaluation in recipe.evaluations.items():
        if any(reward.from_stage for reward in evaluation.rewards) or evaluation.prompts.kind == "message_cache":
            yield f"evaluations.{name}: a held-out set cannot depend on a stage"


def _references(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """(key, name of the stage that is referred to, its kind)."""
    for index, reward in enumerate(getattr(stage, "rewards", [])):
        if reward.from_stage is not None:
            yield f"rewards.{index}.from_stage", reward.from_stage, "preference_model"
    for source in sources_of(stage):
        if isinstance(source, MessageCacheSource):
            yield "message_cache", source.message_cache, "message_cache"


def _best_problems(recipe: Recipe) -> Iterator[str]:
    """Stages that keep the best policy by a held-out set that is not measured while they run."""
    watched = [name for name, evaluation in recipe.evaluations.items() if evaluation.every is not None]
    for name, stage in recipe.stages.items():
        if isinstance(stage, RlStage) and stage.keep_best is not None and stage.keep_best not in watched:
            allowed = ", ".join(watched) or "none"
            yield (
                f"stages.{name}.keep_best: {stage.keep_best!r} is not an evaluation with the key every; "
                f"there are: {allowed}"
            )


def _normalisation_problems(recipe: Recipe) -> Iterator[str]:
    """Rewards that are normalised where nothing is learned from them."""
    sections: dict[str, EvaluationSection | MessageCacheStage] = {
        f"evaluations.{name}": section for name, section in recipe.evaluations.items()
    }
    sections |= {f"stages.{n}": stage for n, stage in recipe.stages.items() if isinstance(stage, MessageCacheStage)}
    for key, section in sections.items():
        for index, reward in enumerate(section.rewards):
            if reward.normalise is not None:
                yield f"{key}.rewards.{index}.normalise: only rewards of an rl stage are normalised"


def _staleness_problems(recipe: Recipe) -> Iterator[str]:
    """Stages that learn from tokens of older policies and do not correct for it."""
    for name, stage in recipe.stages.items():
        if not isinstance(stage, RlStage):
            continue
        algorithm, tail = stage.algorithm, stage.long_tail
        stale = "learner.async_level 1" if recipe.learner.async_level else None
        stale = "long_tail" if tail is not None and tail.rest == "continue" else stale
        if stale and algorithm.importance_cap is None and algorithm.old_logprobs == "trainer":
            yield (
                f"stages.{name}.algorithm.importance_cap: {stale} learns from tokens of older policies; set "
                f"importance_cap, for example to 2, or old_logprobs to rollout"
            )
        if tail is not None and stage.episodes is not None:
            yield f"stages.{name}.long_tail: whole episodes cannot be paused"
        if tail is not None and algorithm.refill_rounds:
            yield f"stages.{name}.algorithm.refill_rounds: long_tail chooses prompts too; use one of the two"


def _placement_problems(recipe: Recipe) -> Iterator[str]:
    """Engines that cannot take weights, or that shall share bundles with learner ranks that are not there."""
    engine, learner = recipe.engine, recipe.learner
    if engine.kind == "server":
        for name, stage in recipe.stages.items():
            if isinstance(stage, SftStage | RlStage):
                yield f"engine.kind: a server keeps its weights, and the {stage.kind} stage {name} changes them"
    if not engine.colocate:
        return
    if learner.in_driver:
        yield "engine.colocate: the learner is in the driver's process; set learner.ranks or learner.gpus"
    elif engine.replicas != learner.ranks:
        yield f"engine.colocate: engine.replicas {engine.replicas} and learner.ranks {learner.ranks} must be equal"
    if learner.async_level:
        yield "engine.colocate: engines sleep while the learner learns; learner.async_level 1 has them sample then"


def _gold_problems(recipe: Recipe) -> Iterator[str]:
    """Rewards that are watched by an evaluation which is not there or not measured during the stage."""
    watched = [name for name, evaluation in recipe.evaluations.items() if evaluation.every is not None]
    for name, stage in recipe.stages.items():
        for index, reward in enumerate(stage.rewards if isinstance(stage, RlStage) else []):
            if reward.gold is None:
                continue
            if reward.gold not in watched:
                allowed = ", ".join(watched) or "none"
                yield (
                    f"stages.{name}.rewards.{index}.gold: {reward.gold!r} is not an evaluation with the key every; "
                    f"there are: {allowed}"
                )
            if isinstance(stage, RlStage) and not stage.algorithm.needs_reference:
                yield f"stages.{name}.algorithm.measure_kl: a reward with gold is watched over KL; set it to true"


def _length_problems(recipe: Recipe) -> Iterator[str]:
    limit = recipe.engine.max_model_len
    for key, max_tokens in _response_lengths(recipe):
        if max_tokens >= limit:
            yield f"{key}: {max_tokens} leaves no room for a prompt in engine.max_model_len = {limit}"


def _response_lengths(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """(key, tokens) of every bound on a response."""
    for name, stage in recipe.stages.items():
        if isinstance(stage, RlStage | MessageCacheStage):
            yield f"stages.{name}.sampling.max_tokens", stage.sampling.max_tokens
        if isinstance(stage, RlStage) and stage.online_messages is not None:
            yield f"stages.{name}.online_messages.sampling.max_tokens", stage.online_messages.sampling.max_tokens
    for name, evaluation in recipe.evaluations.items():
        yield f"evaluations.{name}.sampling.max_tokens", evaluation.sampling.max_tokens
        if evaluation.synthesis is not None:
            yield f"evaluations.{name}.synthesis.max_tokens", evaluation.synthesis.max_tokens


def sources_of(stage: Stage) -> list[Source]:
    """Every source of rows that a stage reads."""
    if isinstance(stage, SftStage):
        return [mixed.source for phase in stage.phases for mixed in phase.sources]
    if isinstance(stage, RlStage):
        return [mixed.source for mixed in stage.prompts]
    if isinstance(stage, PreferenceModelStage):
        return [stage.pairs]
    return [stage.prompts.source]


def rewards_of(recipe: Recipe, *, after: str | None = None) -> list[RewardSection]:
    """The rewards of all evaluations and stages, or of those stages that come after one."""
    names = list(recipe.stages)
    later = names if after is None else names[names.index(after) + 1 :]
    parts = [*(recipe.stages[name] for name in later), *recipe.evaluations.values()]
    return [reward for part in parts for reward in getattr(part, "rewards", [])]


def looks_local(path: str) -> bool:
    """True for what can only be on disk: a data file, not of the form organisation/name, or there already."""
    return (
        path.startswith((".", "/", "~"))
        or path.endswith((".jsonl", ".json", ".parquet"))
        or path.count("/") != 1
        or Path(path).exists()
    )
