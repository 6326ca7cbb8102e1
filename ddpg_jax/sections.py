"""The sections of a configuration: frozen records that know their ranges, one for each algorithm and kind of noise."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rate: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**53)]
CountOrZero: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
Scale: TypeAlias = Annotated[float, Field(ge=0, le=10)]
Widths: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=32)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """A table of the configuration: frozen, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    hyper: ClassVar[tuple[str, ...]] = ()
    """Fields that are numbers to the learner and never structure: they may be traced, and differ from lane to lane."""


class EnvConfig(Section):
    """`[env]`: where the agent lives."""

    id: str = "Pendulum-v1"
    """a gymnasium id, or jax:, phys2d:, gymnax:, brax:, playground: and a name; "module:id" on the command line only"""
    num_envs: Annotated[int, Field(ge=1, le=65536)] = 1
    """environments of each seed, E"""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """processes that run the environments, and as many for evaluation; 0: in this process"""
    worker_timeout: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """seconds a worker process may take for one step"""
    max_episode_steps: Count | None = None
    """time limit of an episode; left out: the environment's own"""
    kwargs: dict[str, bool | int | float | str] = Field(default_factory=dict[str, bool | int | float | str])
    """arguments of the environment's constructor"""


class LearnerConfig(Section):
    """`[algorithm]`: what all algorithms share."""

    hyper: ClassVar = (
        "actor_learning_rate",
        "critic_learning_rate",
        "critic_weight_decay",
        "actor_weight_decay",
        "max_grad_norm",
        "gamma",
        "tau",
    )

    hidden: Widths = (64, 64)
    """widths of the hidden layers, or of the residual blocks, of actor and critic"""
    critic_hidden: Widths | None = None
    """those of the critic; left out: as the actor's"""
    architecture: Literal["mlp", "simba"] = "mlp"
    """simba: an embedding and residual blocks with layer normalisation, which are of equal width"""
    normalization: Literal["none", "layer", "batch"] = "none"
    """of the hidden layers; batch: of the observation too, and in the critic only before the action enters"""
    normalize_observations: bool = False
    """by the running moments of all that the seed has acted on"""
    activation: Literal["relu", "elu", "tanh", "silu"] = "relu"
    """of the hidden layers"""
    initializer: Literal["fan_in", "lecun_normal"] = "fan_in"
    """fan_in: U(+-1/sqrt(fan_in)) for weights and biases"""
    final_scale: Annotated[float, Field(gt=0, le=10)] | None = None
    """last layers are drawn from U(+-final_scale); left out: as the others"""
    action_layer: Annotated[int, Field(ge=0, le=31)] = 0
    """hidden layer of the critic that the action enters; 0: with the observation"""
    actor_learning_rate: Rate = 5e-4
    """of Adam"""
    critic_learning_rate: Rate = 1e-3
    """of Adam"""
    learning_rate_schedule: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    """how both rates go to their ends, over the updates of the run"""
    learning_rate_end: Fraction = 0.0
    """the share of both rates that is left at the end"""
    weight_decay: Literal["none", "l2", "decoupled"] = "none"
    """l2 is added to the gradient, decoupled to the step (AdamW)"""
    critic_weight_decay: Fraction = 0.0
    """its coefficient for the critic"""
    actor_weight_decay: Fraction = 0.0
    """its coefficient for the actor"""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """gradients are scaled down to this global norm; left out: never"""
    gamma: Fraction = 0.99
    """discount of one step"""
    n_step: Annotated[int, Field(ge=1, le=1000)] = 1
    """steps folded into one transition"""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    """mixing factor of the targets"""
    batch_size: Annotated[int, Field(ge=1, le=2**24)] = 64
    """transitions of one update"""
    updates_per_step: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """updates for each environment step of a seed; may be below 1"""
    updates_per_call: Annotated[int, Field(ge=1, le=65536)] | None = None
    """updates in one compiled call; left out: those due after one step of all environments"""
    warmup_steps: CountOrZero = 500
    """environment steps of each seed with uniformly random actions"""
    learning_starts: CountOrZero | None = None
    """environment steps of each seed before the first update; left out: warmup_steps"""
    reset_every: CountOrZero = 0
    """environment steps of each seed between two resets of networks, targets and optimisers; 0: never"""

    @property
    def learning_begins(self) -> int:
        """Environment steps of each seed before the first update."""
        return self.warmup_steps if self.learning_starts is None else self.learning_starts

    @property
    def critic_steps_per_round(self) -> int:
        """Critic steps for one step of actor and targets; a call of the update makes whole rounds."""
        return 1

    @property
    def narrow(self) -> bool:
        """Whether dispatch, not arithmetic, takes the time: every hidden layer is below 128 wide."""
        return max(*self.hidden, *self.critic_widths) < 128

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Widths of the critic's hidden layers."""
        return self.hidden if self.critic_hidden is None else self.critic_hidden

    @model_validator(mode="after")
    def _residual(self) -> LearnerConfig:
        if self.architecture == "mlp":
            return self
        for name, widths in (("hidden", self.hidden), ("critic_hidden", self.critic_widths)):
            if len(set(widths)) > 1:
                raise ValueError(f'{name}={list(widths)}: with architecture="simba" all blocks have one width')
        if self.normalization != "none":
            raise ValueError(
                f'normalization={self.normalization!r} has no effect with architecture="simba", whose layers are '
                'normalised already; set normalization to "none"'
            )
        if self.action_layer > 0:
            raise ValueError(
                f'action_layer={self.action_layer} is not possible with architecture="simba", where the action enters '
                "with the observation; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> LearnerConfig:
        layers = len(self.critic_widths)
        if self.action_layer >= layers:
            raise ValueError(f"action_layer={self.action_layer} is not one of {layers} hidden layers, from 0")
        for name, decay in (("critic", self.critic_weight_decay), ("actor", self.actor_weight_decay)):
            if decay > 0 and self.weight_decay == "none":
                raise ValueError(
                    f'{name}_weight_decay={decay} has no effect with weight_decay="none"; '
                    'set weight_decay to "l2" or "decoupled"'
                )
        if self.learning_rate_schedule == "exponential" and self.learning_rate_end == 0:
            raise ValueError(
                'learning_rate_schedule="exponential" never reaches learning_rate_end=0.0; set it above 0, as in 0.01'
            )
        call, delay = self.updates_per_call, self.critic_steps_per_round
        if call is not None and call % delay:
            raise ValueError(f"updates_per_call={call} is not a multiple of policy_delay={delay}")
        return self


class DDPGConfig(LearnerConfig):
    """`[algorithm]` with `name = "ddpg"`."""

    name: Literal["ddpg"] = "ddpg"
    """the algorithm"""


class DelayedConfig(LearnerConfig):
    """What algorithms with a smoothed target and a delayed policy share."""

    hyper: ClassVar = (*LearnerConfig.hyper, "target_noise", "target_noise_clip")

    target_noise: Scale = 0.2
    """deviation of the noise on the target's action, in units of half the action range"""
    target_noise_clip: Scale = 0.5
    """largest such noise"""
    policy_delay: Annotated[int, Field(ge=1, le=1000)] = 2
    """critic steps for one step of actor and targets"""

    @property
    def critic_steps_per_round(self) -> int:
        """As in `LearnerConfig`."""
        return self.policy_delay


class TD3Config(DelayedConfig):
    """`[algorithm]` with `name = "td3"`."""

    name: Literal["td3"]
    """the algorithm"""
    num_critics: Annotated[int, Field(ge=1, le=1024)] = 2
    """critics side by side"""
    bootstrap: Literal["min", "mean", "first"] = "min"
    """how the critics are joined in the target"""
    target_subset: Annotated[int, Field(ge=1, le=1024)] | None = None
    """critics drawn at random for each target; left out: all"""
    ascend: Literal["first", "min", "mean"] = "first"
    """how the critics are joined in what the actor ascends"""

    @model_validator(mode="after")
    def _enough_critics(self) -> TD3Config:
        if self.target_subset is not None and self.target_subset > self.num_critics:
            raise ValueError(f"target_subset={self.target_subset} is more than num_critics={self.num_critics}")
        return self


class CategoricalConfig(LearnerConfig):
    """What algorithms with a categorical critic share."""

    v_min: Annotated[float, Field(ge=-1e6, le=1e6)]
    """lowest return that the critic can tell, discounted; below every return of the task"""
    v_max: Annotated[float, Field(ge=-1e6, le=1e6)]
    """highest return that the critic can tell"""
    num_atoms: Annotated[int, Field(ge=2, le=65536)] = 51
    """returns that the critic gives probabilities to, equally spaced from v_min to v_max"""

    @model_validator(mode="after")
    def _ordered(self) -> CategoricalConfig:
        if not self.v_min < self.v_max:
            raise ValueError(f"v_min={self.v_min} is not below v_max={self.v_max}")
        return self


class D4PGConfig(CategoricalConfig):
    """`[algorithm]` with `name = "d4pg"`."""

    name: Literal["d4pg"]
    """the algorithm"""
    n_step: Annotated[int, Field(ge=1, le=1000)] = 5
    """steps folded into one transition"""


class FastTD3Config(DelayedConfig, CategoricalConfig):
    """`[algorithm]` with `name = "fasttd3"`; made for many environments and large batches."""

    name: Literal["fasttd3"]
    """the algorithm"""
    hidden: Widths = (512, 256, 128)
    """widths of the hidden layers, or of the residual blocks, of the actor"""
    critic_hidden: Widths = (1024, 512, 256)  # pyright: ignore[reportIncompatibleVariableOverride]
    """those of the critics"""
    actor_final_deviation: Annotated[float, Field(gt=0, le=10)] = 0.01
    """the actor's last layer is drawn from N(0, actor_final_deviation²), without biases"""
    normalize_observations: bool = True
    """by the running moments of all that the seed has acted on"""
    num_atoms: Annotated[int, Field(ge=2, le=65536)] = 101
    """returns that the critics give probabilities to, equally spaced from v_min to v_max"""
    bootstrap: Literal["min", "mean"] = "min"
    """what the critics learn from: the distribution of the one with the lower mean, or the average of both; the actor
    ascends the lower mean, or their mean"""
    target_noise: Scale = 0.001
    """deviation of the noise on the target's action, in units of half the action range"""
    actor_learning_rate: Rate = 3e-4
    """of Adam"""
    critic_learning_rate: Rate = 3e-4
    """of Adam"""
    weight_decay: Literal["none", "l2", "decoupled"] = "decoupled"
    """l2 is added to the gradient, decoupled to the step (AdamW)"""
    critic_weight_decay: Fraction = 0.1
    """its coefficient for the critics"""
    actor_weight_decay: Fraction = 0.1
    """its coefficient for the actor"""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.1
    """mixing factor of the target critics, which follow after each critic step"""
    batch_size: Annotated[int, Field(ge=1, le=2**24)] = 32768
    """transitions of one update"""


AlgorithmConfig: TypeAlias = DDPGConfig | TD3Config | D4PGConfig | FastTD3Config
"""The union of the algorithms' configurations, told apart by `name`."""


class AnyExplorationConfig(Section):
    """`[exploration]`: what all kinds share."""

    hyper: ClassVar = ("epsilon",)

    epsilon: Fraction | None = None
    """with this probability the action is uniform on [-1, 1] instead; left out: never"""


class NoNoiseConfig(AnyExplorationConfig):
    """`[exploration]` with `kind = "none"`: the greedy policy acts."""

    kind: Literal["none"]
    """none"""


class ScheduledConfig(AnyExplorationConfig):
    """What noise shares whose scale may change in the course of a run."""

    hyper: ClassVar = (*AnyExplorationConfig.hyper, "sigma", "sigma_end")

    sigma: Scale
    """scale at the start, in units of half the action range"""
    schedule: Literal["constant", "linear", "exponential", "inverse_episode"] = "constant"
    """how sigma changes: not at all, to sigma_end by equal differences or ratios, or as sigma/(1 + episode)"""
    sigma_end: Scale = 0.0
    """scale at the end of the schedule"""
    schedule_steps: Count | None = None
    """environment steps of each seed after the warm-up until it is reached; left out: the rest of the run"""

    @property
    def ends(self) -> bool:
        """Whether sigma goes to sigma_end."""
        return self.schedule in ("linear", "exponential")

    @model_validator(mode="after")
    def _reachable(self) -> ScheduledConfig:
        if self.schedule == "exponential" and not (self.sigma > 0 and self.sigma_end > 0):
            raise ValueError(
                f'sigma={self.sigma}, sigma_end={self.sigma_end}: schedule="exponential" goes between numbers above 0'
            )
        given = {"sigma_end": self.sigma_end or None, "schedule_steps": self.schedule_steps}
        for name, value in given.items():
            if value is not None and not self.ends:
                raise ValueError(
                    f'{name}={value} has no effect with schedule="{self.schedule}"; '
                    'set schedule to "linear" or "exponential"'
                )
        return self


class GaussianConfig(ScheduledConfig):
    """`[exploration]` with `kind = "gaussian"`."""

    kind: Literal["gaussian"] = "gaussian"
    """independent normal noise"""
    sigma: Scale = 0.1
    """standard deviation, in units of half the action range"""


class OUConfig(ScheduledConfig):
    """`[exploration]` with `kind = "ou"`."""

    hyper: ClassVar = (*ScheduledConfig.hyper, "theta", "dt")

    kind: Literal["ou"]
    """an Ornstein-Uhlenbeck process"""
    theta: Annotated[float, Field(ge=0, le=1000)] = 0.15
    """rate of return to 0"""
    sigma: Scale = 0.2
    """diffusion, in units of half the action range"""
    dt: Annotated[float, Field(gt=0, le=1)] = 1.0
    """time between two steps"""


class GaussianPerEnvConfig(AnyExplorationConfig):
    """`[exploration]` with `kind = "gaussian_per_env"`."""

    hyper: ClassVar = (*AnyExplorationConfig.hyper, "sigma_min", "sigma_max")

    kind: Literal["gaussian_per_env"]
    """normal noise whose deviation is drawn for each environment, anew with each episode"""
    sigma_min: Scale = 0.001
    """smallest deviation, in units of half the action range"""
    sigma_max: Scale = 0.4
    """largest deviation"""

    @model_validator(mode="after")
    def _ordered(self) -> GaussianPerEnvConfig:
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} is above sigma_max={self.sigma_max}")
        return self


class ParameterConfig(AnyExplorationConfig):
    """`[exploration]` with `kind = "parameter"`."""

    hyper: ClassVar = (*AnyExplorationConfig.hyper, "sigma", "target_distance", "adapt_factor")

    kind: Literal["parameter"]
    """normal noise on the actor's parameters, one draw for an episode"""
    sigma: Scale = 0.1
    """its standard deviation at the start"""
    target_distance: Annotated[float, Field(gt=0, le=1)] = 0.2
    """root mean square of what it does to actions, in units of half the action range, that sigma is adapted to"""
    adapt_every: Annotated[int, Field(ge=1, le=10**6)] = 50
    """steps of an environment between two adaptations"""
    adapt_factor: Annotated[float, Field(ge=1, le=10)] = 1.01
    """sigma is multiplied or divided by it; 1: sigma stays"""


ExplorationConfig: TypeAlias = NoNoiseConfig | GaussianConfig | OUConfig | GaussianPerEnvConfig | ParameterConfig
"""The union of the kinds of exploration, told apart by `kind`."""


class UniformReplayConfig(Section):
    """`[replay]` with `kind = "uniform"`."""

    kind: Literal["uniform"] = "uniform"
    """transitions are drawn alike"""
    capacity: Count = 100_000
    """transitions of each seed"""


class PrioritizedReplayConfig(Section):
    """`[replay]` with `kind = "prioritized"`.

    Transitions are drawn in proportion to (|TD error| + epsilon)^alpha. The error is that of the critics' values. For
    D4PG too it is the error of the means, not the cross-entropy of the distributions by which Barth-Maron et al.
    (arXiv:1804.08617) set priorities.
    """

    hyper: ClassVar = ("alpha", "beta", "beta_end", "epsilon")

    kind: Literal["prioritized"]
    """transitions are drawn in proportion to their last error"""
    capacity: Count = 100_000
    """transitions of each seed"""
    alpha: Fraction = 0.6
    """how far the error decides; 0: not at all"""
    beta: Fraction = 0.4
    """how far weights make up for it, at the first update"""
    beta_end: Fraction = 1.0
    """likewise at the last update; linear between them"""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """added to the error, so that nothing is lost for ever"""


ReplayConfig: TypeAlias = UniformReplayConfig | PrioritizedReplayConfig
"""The union of the replays' configurations, told apart by `kind`."""


class EvaluationConfig(Section):
    """`[evaluation]`."""

    every: CountOrZero = 2000
    """environment steps of each seed between evaluations; 0: only at the end"""
    episodes: Annotated[int, Field(ge=1, le=100_000)] = 10
    """episodes of each seed in an evaluation"""


class LoggingConfig(Section):
    """`[logging]`."""

    every: Annotated[int, Field(ge=1, le=10**8)] = 1000
    """environment steps of each seed between two rows of metrics; with many environments, set it to many times their
    number"""
    tensorboard: bool = True
    """write event files"""
