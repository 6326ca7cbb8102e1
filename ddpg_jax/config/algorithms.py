"""The sections `[algorithm]` of a configuration, one for each algorithm."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from ddpg_jax.config.marks import LEARNING, STRUCTURAL, TRACED
from ddpg_jax.config.memory import MemoryConfig
from ddpg_jax.config.pixels import EncoderConfig
from ddpg_jax.config.section import CountOrZero, Fraction, Rate, Scale, Section
from ddpg_jax.config.sections import Argument, Return

Initializer: TypeAlias = Literal["fan_in", "lecun_normal", "orthogonal", "truncated_normal"]
Widths: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=32)]


class LearnerConfig(Section):
    """`[algorithm]`: what all algorithms share."""

    hidden: Annotated[Widths, STRUCTURAL] = (64, 64)
    """widths of the hidden layers, or of the residual blocks, of actor and critic"""
    critic_hidden: Annotated[Widths | None, STRUCTURAL] = None
    """those of the critic; left out: as the actor's"""
    architecture: Annotated[Literal["mlp", "simba"], STRUCTURAL] = "mlp"
    """simba: an embedding and residual blocks with layer normalisation, which are of equal width"""
    normalization: Annotated[Literal["none", "layer", "batch"], STRUCTURAL] = "none"
    """of the hidden layers; batch: of the observation too, and in the critic only before the action enters"""
    normalize_observations: Annotated[bool, STRUCTURAL] = False
    """by the running moments of all that the seed has acted on"""
    observation_moments: Annotated[Literal["compensated", "plain"], STRUCTURAL] = "compensated"
    """how they are summed; plain: without what float32 rounds away, as earlier versions, which stalls where means are
    many deviations away from 0"""
    observation_epsilon: Annotated[float, Field(gt=0, le=1e6), LEARNING] = 1e-8
    """added to the deviation that they are divided by, in units of the observation"""
    observation_clip: Annotated[float, Field(ge=0, le=1e6), LEARNING] = 10.0
    """normalised observations are clipped to this on both sides of 0; 0: never"""
    scale_rewards: Annotated[bool, STRUCTURAL] = False
    """the learner divides rewards by the running standard deviation of the discounted return; ends of distributions
    are in these units"""
    activation: Annotated[Literal["relu", "elu", "tanh", "silu"], STRUCTURAL] = "relu"
    """of the hidden layers"""
    initializer: Annotated[Initializer, LEARNING] = "fan_in"
    """fan_in: U(+-1/sqrt(fan_in)) for weights and biases; orthogonal: with biases of 0; truncated_normal:
    N(0, 0.02²) within two deviations, with biases of 0"""
    final_scale: Annotated[Annotated[float, Field(gt=0, le=10)] | None, LEARNING] = None
    """last layers are drawn from U(+-final_scale); left out: as the others"""
    action_layer: Annotated[int, Field(ge=0, le=31), STRUCTURAL] = 0
    """hidden layer of the critic that the action enters; 0: with the observation"""
    actor_learning_rate: Annotated[Rate, TRACED, LEARNING] = 5e-4
    """of Adam"""
    critic_learning_rate: Annotated[Rate, TRACED, LEARNING] = 1e-3
    """of Adam"""
    learning_rate_schedule: Annotated[Literal["constant", "linear", "cosine", "exponential"], STRUCTURAL] = "constant"
    """how both rates go to their ends, over the updates of the run"""
    learning_rate_end: Annotated[Fraction, LEARNING] = 0.0
    """the share of both rates that is left at the end"""
    weight_decay: Annotated[Literal["none", "l2", "decoupled"], STRUCTURAL] = "none"
    """l2 is added to the gradient, decoupled to the step (AdamW)"""
    critic_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 0.0
    """its coefficient for the critic"""
    actor_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 0.0
    """its coefficient for the actor"""
    max_grad_norm: Annotated[Annotated[float, Field(gt=0)] | None, TRACED, STRUCTURAL] = None
    """gradients are scaled down to this global norm; left out: never"""
    max_rejected: Annotated[int, Field(ge=1, le=10**6), LEARNING] = 10
    """updates in a row that are not finite, and so not applied, before a seed is given up"""
    gamma: Annotated[Fraction, TRACED, LEARNING] = 0.99
    """discount of one step"""
    n_step: Annotated[int, Field(ge=1, le=1000), LEARNING] = 1
    """steps folded into one transition"""
    tau: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 0.005
    """mixing factor of the targets"""
    batch_size: Annotated[int, Field(ge=1, le=2**24), LEARNING] = 64
    """transitions of one update"""
    updates_per_step: Annotated[float, Field(gt=0, le=1000), STRUCTURAL] = 1.0
    """updates for each environment step of a seed; may be below 1"""
    updates_per_call: Annotated[Annotated[int, Field(ge=1, le=65536)] | None, STRUCTURAL] = None
    """updates in one compiled call; left out: those due after one step of all environments"""
    warmup_steps: Annotated[CountOrZero, STRUCTURAL] = 500
    """environment steps of each seed with uniformly random actions"""
    learning_starts: Annotated[CountOrZero | None, STRUCTURAL] = None
    """environment steps of each seed before the first update; left out: warmup_steps"""
    reset_every: Annotated[CountOrZero, LEARNING] = 0
    """environment steps of each seed between two resets of networks, targets and optimisers; 0: never"""
    make_agent: Annotated[str | None, STRUCTURAL] = None
    """a function of your own that makes the agent of these fields, as `module:name`, or one that a plugin registers;
    `name` may say it too; left out: the one of `name`"""
    make_networks: Annotated[str | None, STRUCTURAL] = None
    """likewise, one that makes the networks of actor and critic; left out: those of `architecture`"""
    kwargs: Annotated[dict[str, Argument], LEARNING] = Field(default_factory=dict[str, Any])
    """arguments for `make_agent` beside the configuration"""
    memory: Annotated[MemoryConfig | None, STRUCTURAL] = None
    """what the agent remembers of its episode; left out: nothing"""
    encoder: Annotated[EncoderConfig | None, STRUCTURAL] = None
    """what takes pictures in; left out: that of the defaults where env.pixels is there, else nothing"""

    @property
    def learning_begins(self) -> int:
        """Environment steps of each seed before the first update."""
        return self.warmup_steps if self.learning_starts is None else self.learning_starts

    @property
    def critic_steps_per_round(self) -> int:
        """Critic steps for one step of actor and targets; a call of the update makes whole rounds."""
        return 1

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Widths of the critic's hidden layers."""
        return self.hidden if self.critic_hidden is None else self.critic_hidden

    @model_validator(mode="after")
    def _arguments(self) -> LearnerConfig:
        if self.kwargs and self.make_agent is None:
            raise ValueError(
                f"kwargs={self.kwargs} has no effect: only an agent of your own takes arguments; name it in make_agent"
            )
        return self

    @model_validator(mode="after")
    def _without_batch_norm(self) -> LearnerConfig:
        if self.memory is not None and self.normalization == "batch":
            raise ValueError(
                'normalization="batch" is not possible with memory, whose samples are windows; set it to "layer"'
            )
        return self

    @model_validator(mode="after")
    def _of_pictures(self) -> LearnerConfig:
        encoder = self.encoder
        if encoder is None:
            return self
        if self.memory is not None:
            raise ValueError("memory and encoder do not go together yet: leave one of them out")
        if self.normalize_observations:
            raise ValueError(
                "normalize_observations has no effect on pictures, which are scaled to [-0.5, 0.5]: set it to false"
            )
        if self.normalization == "batch" and max(encoder.target_copies, encoder.online_copies) > 1:
            raise ValueError(
                'normalization="batch" is not possible with several copies of an observation; set it to "layer", or '
                "encoder.target_copies and encoder.online_copies to 1"
            )
        if encoder.shift == 0 and max(encoder.target_copies, encoder.online_copies) > 1:
            raise ValueError(
                "encoder.target_copies and encoder.online_copies have no effect with encoder.shift=0, which makes all "
                "copies equal: set them to 1"
            )
        return self

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

    name: Annotated[Literal["ddpg"], STRUCTURAL] = "ddpg"
    """the algorithm"""


class DelayedConfig(LearnerConfig):
    """What algorithms with a smoothed target and a delayed policy share."""

    target_noise: Annotated[Scale, TRACED, LEARNING] = 0.2
    """deviation of the noise on the target's action, in units of half the action range"""
    target_noise_clip: Annotated[Scale, TRACED, LEARNING] = 0.5
    """largest such noise"""
    policy_delay: Annotated[int, Field(ge=1, le=1000), STRUCTURAL] = 2
    """critic steps for one step of actor and targets"""

    @property
    def critic_steps_per_round(self) -> int:
        """As in `LearnerConfig`."""
        return self.policy_delay


class TD3Config(DelayedConfig):
    """`[algorithm]` with `name = "td3"`."""

    name: Annotated[Literal["td3"], STRUCTURAL]
    """the algorithm"""
    num_critics: Annotated[int, Field(ge=1, le=1024), STRUCTURAL] = 2
    """critics side by side"""
    bootstrap: Annotated[Literal["min", "mean", "first"], LEARNING] = "min"
    """how the critics are joined in the target"""
    target_subset: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, LEARNING] = None
    """critics drawn at random for each target; left out: all"""
    ascend: Annotated[Literal["first", "min", "mean"], LEARNING] = "first"
    """how the critics are joined in what the actor ascends"""

    @model_validator(mode="after")
    def _enough_critics(self) -> TD3Config:
        if self.target_subset is not None and self.target_subset > self.num_critics:
            raise ValueError(f"target_subset={self.target_subset} is more than num_critics={self.num_critics}")
        return self


class CategoricalConfig(LearnerConfig):
    """What algorithms with a categorical critic share."""

    v_min: Annotated[Return, LEARNING]
    """lowest return that the critic can tell, discounted; left out: that of env.value_range"""
    v_max: Annotated[Return, LEARNING]
    """highest return that the critic can tell; left out: that of env.value_range"""
    num_atoms: Annotated[int, Field(ge=2, le=65536), STRUCTURAL] = 51
    """returns that the critic gives probabilities to, equally spaced from v_min to v_max"""

    @model_validator(mode="after")
    def _check_order(self) -> CategoricalConfig:
        if not self.v_min < self.v_max:
            raise ValueError(f"v_min={self.v_min} is not below v_max={self.v_max}")
        return self


class D4PGConfig(CategoricalConfig):
    """`[algorithm]` with `name = "d4pg"`."""

    name: Annotated[Literal["d4pg"], STRUCTURAL]
    """the algorithm"""
    n_step: Annotated[int, Field(ge=1, le=1000), LEARNING] = 5
    """steps folded into one transition"""


class FastTD3Config(DelayedConfig, CategoricalConfig):
    """`[algorithm]` with `name = "fasttd3"`; made for many environments and large batches."""

    name: Annotated[Literal["fasttd3"], STRUCTURAL]
    """the algorithm"""
    hidden: Annotated[Widths, STRUCTURAL] = (512, 256, 128)
    """widths of the hidden layers, or of the residual blocks, of the actor"""
    critic_hidden: Annotated[Widths, STRUCTURAL] = (1024, 512, 256)  # pyright: ignore[reportIncompatibleVariableOverride]
    """those of the critics"""
    actor_final_deviation: Annotated[float, Field(gt=0, le=10), LEARNING] = 0.01
    """the actor's last layer is drawn from N(0, actor_final_deviation²), without biases"""
    normalize_observations: Annotated[bool, STRUCTURAL] = True
    """by the running moments of all that the seed has acted on"""
    observation_epsilon: Annotated[float, Field(gt=0, le=1e6), LEARNING] = 1e-2
    """added to the deviation that they are divided by, in units of the observation"""
    observation_clip: Annotated[float, Field(ge=0, le=1e6), LEARNING] = 0.0
    """normalised observations are clipped to this on both sides of 0; 0: never"""
    num_atoms: Annotated[int, Field(ge=2, le=65536), STRUCTURAL] = 101
    """returns that the critics give probabilities to, equally spaced from v_min to v_max"""
    bootstrap: Annotated[Literal["min", "mean"], LEARNING] = "min"
    """what the critics learn from: the distribution of the one with the lower mean, or the average of both; the actor
    ascends the lower mean, or their mean"""
    target_noise: Annotated[Scale, TRACED, LEARNING] = 0.001
    """deviation of the noise on the target's action, in units of half the action range"""
    actor_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    critic_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    weight_decay: Annotated[Literal["none", "l2", "decoupled"], STRUCTURAL] = "decoupled"
    """l2 is added to the gradient, decoupled to the step (AdamW)"""
    critic_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 0.1
    """its coefficient for the critics"""
    actor_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 0.1
    """its coefficient for the actor"""
    tau: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 0.1
    """mixing factor of the target critics, which follow after each critic step"""
    batch_size: Annotated[int, Field(ge=1, le=2**24), LEARNING] = 32768
    """transitions of one update"""


class DrQv2Config(LearnerConfig):
    """`[algorithm]` with `name = "drqv2"`; the noise in both losses is that of `[exploration]` too."""

    name: Annotated[Literal["drqv2"], STRUCTURAL]
    """the algorithm"""
    hidden: Annotated[Widths, STRUCTURAL] = (1024, 1024)
    """widths of the hidden layers of actor and critics, behind their trunks"""
    initializer: Annotated[Initializer, LEARNING] = "orthogonal"
    """fan_in: U(+-1/sqrt(fan_in)) for weights and biases; orthogonal: with biases of 0; truncated_normal:
    N(0, 0.02²) within two deviations, with biases of 0"""
    actor_learning_rate: Annotated[Rate, TRACED, LEARNING] = 1e-4
    """of Adam"""
    critic_learning_rate: Annotated[Rate, TRACED, LEARNING] = 1e-4
    """of Adam, and that of the encoder where it has none of its own"""
    n_step: Annotated[int, Field(ge=1, le=1000), LEARNING] = 3
    """steps folded into one transition"""
    tau: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 0.01
    """mixing factor of the target critics; there is no other target"""
    batch_size: Annotated[int, Field(ge=1, le=2**24), LEARNING] = 256
    """transitions of one update"""
    updates_per_step: Annotated[float, Field(gt=0, le=1000), STRUCTURAL] = 0.5
    """updates for each environment step of a seed; may be below 1"""
    warmup_steps: Annotated[CountOrZero, STRUCTURAL] = 2000
    """environment steps of each seed with uniformly random actions"""
    noise_clip: Annotated[Scale, TRACED, LEARNING] = 0.3
    """largest noise on the action in the target and in the actor's loss"""


AlgorithmConfig: TypeAlias = DDPGConfig | TD3Config | D4PGConfig | FastTD3Config | DrQv2Config
"""The union of the algorithms' configurations, told apart by `name`."""
