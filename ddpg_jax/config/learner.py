"""What all sections `[algorithm]` share, and what an agent remembers by."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import Field, model_validator

from ddpg_jax.config.marks import LEARNING, STRUCTURAL, TRACED
from ddpg_jax.config.memory import MemoryConfig
from ddpg_jax.config.pixels import EncoderConfig
from ddpg_jax.config.section import CountOrZero, Fraction, Rate, Section, Weight
from ddpg_jax.config.sections import Argument

Initializer: TypeAlias = Literal["fan_in", "lecun_normal", "orthogonal", "truncated_normal"]
Widths: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=32)]


RewardScale: TypeAlias = Literal["deviation", "mean_size"]
"""What the loop measures of rewards, that they are divided by: the deviation of their discounted sums, or the mean of
their absolute values."""


class Windows(NamedTuple):
    """What an agent learns from that is told of more than a transition.

    Attributes:
      length: steps that are learned from, L.
      burn_in: steps before them, b.
      keep_every: steps between two states that are kept, P; 0: none is.
    """

    length: int
    burn_in: int = 0
    keep_every: int = 0


class LearnerConfig(Section):
    """`[algorithm]`: what all algorithms share."""

    hidden: Annotated[Widths, STRUCTURAL] = (64, 64)
    """widths of the hidden layers, or of the residual blocks, of actor and critic"""
    critic_hidden: Annotated[Widths | None, STRUCTURAL] = None
    """those of the critic; left out: as the actor's"""
    architecture: Annotated[Literal["mlp", "simba", "simba_v2", "flash"], STRUCTURAL] = "mlp"
    """simba: an embedding and residual blocks with layer normalisation, which are of equal width; simba_v2: likewise,
    but features and weights have length 1, so that a scalar critic wants `scale_rewards`; flash: blocks with batch
    normalisation, of what is seen too, weights of length 1 and features that are normalised at last"""
    project_weights: Annotated[bool, LEARNING] = True
    """simba_v2, flash: weights are brought back to length 1 after each step; false: they have it at the beginning
    alone"""
    normalization: Annotated[Literal["none", "layer", "batch"], STRUCTURAL] = "none"
    """of the hidden layers; batch: of the observation too, and in the critic only before the action enters"""
    joint_batch: Annotated[bool, STRUCTURAL] = False
    """where critics normalise batches: current and next pairs of observation and action are one batch, and the actor's
    actions are judged by running moments (CrossQ); false: each is a batch of its own"""
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
    return_limit: Annotated[Annotated[float, Field(gt=0, le=1e6)] | None, STRUCTURAL] = None
    """with scale_rewards: they are divided by so much at least that the largest discounted return so far comes to no
    more than this, as v_max; left out: by the deviation alone"""
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
    action_penalty: Annotated[Weight, LEARNING] = 0.0
    """of the mean square of actions before their tanh, in the actor's loss: holds it back from where that is flat"""
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
    def window(self) -> Windows | None:
        """The windows of steps that it learns from; None: from transitions."""
        memory = self.memory
        return None if memory is None else Windows(memory.length, memory.burn_in, memory.keep_every)

    @property
    def reward_scale(self) -> RewardScale | None:
        """What the loop measures of rewards; None: nothing."""
        return "deviation" if self.scale_rewards else None

    @property
    def normalizes_batches(self) -> bool:
        """Whether networks of the package's own take moments of a batch."""
        return self.normalization == "batch" or self.architecture == "flash"

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
        if self.memory is not None and self.architecture == "flash":
            raise ValueError(
                'architecture="flash" is not possible with memory, whose samples are windows; set it to "simba"'
            )
        return self

    @model_validator(mode="after")
    def _one_batch(self) -> LearnerConfig:
        if not self.joint_batch:
            return self
        for name in ("make_networks", "encoder"):
            if getattr(self, name) is not None:
                raise ValueError(f"joint_batch is not possible with {name}: leave one of them out")
        if not self.normalizes_batches:
            raise ValueError(
                "joint_batch has no effect where nothing takes moments of a batch: set it to false, or "
                'architecture to "flash", or normalization to "batch"'
            )
        return self

    @model_validator(mode="after")
    def _limited_returns(self) -> LearnerConfig:
        if self.return_limit is not None and not self.scale_rewards:
            raise ValueError(f"return_limit={self.return_limit} has no effect without scale_rewards: leave it out")
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
        if self.normalizes_batches and max(encoder.target_copies, encoder.online_copies) > 1:
            field = 'normalization="batch"' if self.normalization == "batch" else 'architecture="flash"'
            instead = "layer" if self.normalization == "batch" else "simba"
            raise ValueError(
                f'{field} is not possible with several copies of an observation; set it to "{instead}", or '
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
        kind = f'architecture="{self.architecture}"'
        of_length_1 = self.architecture in ("simba_v2", "flash")
        if not self.project_weights and not of_length_1:
            raise ValueError(
                f'project_weights=False has no effect with {kind}: set it to true, or take "simba_v2" or "flash"'
            )
        if self.architecture == "mlp":
            return self
        for name, widths in (("hidden", self.hidden), ("critic_hidden", self.critic_widths)):
            if len(set(widths)) > 1:
                raise ValueError(f"{name}={list(widths)}: with {kind} all blocks have one width")
        if self.normalization != "none":
            raise ValueError(
                f"normalization={self.normalization!r} has no effect with {kind}, whose layers are "
                'normalised already; set normalization to "none"'
            )
        if self.action_layer > 0:
            raise ValueError(
                f"action_layer={self.action_layer} is not possible with {kind}, where the action enters "
                "with the observation; set it to 0"
            )
        if of_length_1:
            self._refuse_other_layers(kind)
        return self

    def _refuse_other_layers(self, kind: str) -> None:
        given = {"activation": "relu", "initializer": "fan_in", "final_scale": None}
        for name, value in given.items():
            if name in self.model_fields_set and getattr(self, name) != value:
                raise ValueError(f"{name}={getattr(self, name)!r} has no effect with {kind}: leave it out")

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
