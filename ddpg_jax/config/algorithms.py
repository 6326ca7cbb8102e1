"""The sections `[algorithm]` of a configuration, one for each algorithm."""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from ddpg_jax.config.learner import Initializer, LearnerConfig, RewardScale, Widths, Windows
from ddpg_jax.config.marks import LEARNING, STRUCTURAL, TRACED
from ddpg_jax.config.section import CountOrZero, Fraction, Rate, Scale, Weight, Width
from ddpg_jax.config.sections import Return


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


class OfEmbeddingsConfig(DelayedConfig):
    """What algorithms with copies of everything by a period share, whose networks see embeddings."""

    @model_validator(mode="after")
    def _copies_end_a_round(self) -> OfEmbeddingsConfig:
        every: int = getattr(self, "target_every")  # noqa: B009
        if every % self.policy_delay:
            raise ValueError(f"target_every={every} is not a multiple of policy_delay={self.policy_delay}")
        return self

    @model_validator(mode="after")
    def _of_states(self) -> OfEmbeddingsConfig:
        fixed = {"architecture": "mlp", "action_layer": 0, "make_networks": None, "memory": None, "encoder": None}
        name = str(getattr(self, "name"))  # noqa: B009
        for field, only in fixed.items():
            if getattr(self, field) != only:
                how = "leave it out" if only is None else f"set it to {json.dumps(only)}"
                raise ValueError(f'{field} is not possible with name="{name}", whose networks see embeddings: {how}')
        if self.normalization == "batch":
            raise ValueError(f'normalization="batch" is not possible with name="{name}": set it to "none" or "layer"')
        return self


class TD7Config(OfEmbeddingsConfig):
    """`[algorithm]` with `name = "td7"`; as published with prioritised replay, whose alpha is 0.4 and beta 0."""

    name: Annotated[Literal["td7"], STRUCTURAL]
    """the algorithm"""
    hidden: Annotated[Widths, STRUCTURAL] = (256, 256)
    """widths of the hidden layers of actor and critics, behind the layer that takes observation and action in"""
    input_width: Annotated[Width, STRUCTURAL] = 256
    """width of that layer, which is linear, beside the embeddings"""
    embedding_size: Annotated[Width, STRUCTURAL] = 256
    """numbers in the embedding of a state, and in that of a state and an action"""
    encoder_hidden: Annotated[Widths, STRUCTURAL] = (256, 256)
    """widths of the hidden layers of both networks that make embeddings"""
    activation: Annotated[Literal["relu", "elu", "tanh", "silu"], STRUCTURAL] = "relu"
    """of the actor's hidden layers"""
    critic_activation: Annotated[Literal["relu", "elu", "tanh", "silu"], STRUCTURAL] = "elu"
    """of those of the critics and of the encoder"""
    actor_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    critic_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    encoder_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    target_every: Annotated[int, Field(ge=1, le=10**6), LEARNING] = 250
    """updates between two copies of everything: to the targets, to the encoder that actor and critics see"""
    tau: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 1.0
    """how much is taken over then; 1: all"""
    batch_size: Annotated[int, Field(ge=1, le=2**24), LEARNING] = 256
    """transitions of one update"""
    warmup_steps: Annotated[CountOrZero, STRUCTURAL] = 25_000
    """environment steps of each seed with uniformly random actions"""


class MRQConfig(OfEmbeddingsConfig):
    """`[algorithm]` with `name = "mrq"`; as published with prioritised replay, whose alpha is 0.4 and beta 0."""

    name: Annotated[Literal["mrq"], STRUCTURAL]
    """the algorithm"""
    hidden: Annotated[Widths, STRUCTURAL] = (512, 512)
    """widths of the hidden layers of the actor, which sees the embedding of the state"""
    critic_hidden: Annotated[Widths, STRUCTURAL] = (512, 512, 512)  # pyright: ignore[reportIncompatibleVariableOverride]
    """those of the critics, which see that of state and action"""
    embedding_size: Annotated[Width, STRUCTURAL] = 512
    """numbers in the embedding of a state, and in that of a state and an action"""
    encoder_hidden: Annotated[Widths, STRUCTURAL] = (512, 512)
    """widths of the hidden layers of both networks that make embeddings"""
    action_embedding: Annotated[Width, STRUCTURAL] = 256
    """width of the layer by which the action enters"""
    normalization: Annotated[Literal["none", "layer", "batch"], STRUCTURAL] = "layer"
    """of the hidden layers"""
    activation: Annotated[Literal["relu", "elu", "tanh", "silu"], STRUCTURAL] = "relu"
    """of the actor's hidden layers"""
    critic_activation: Annotated[Literal["relu", "elu", "tanh", "silu"], STRUCTURAL] = "elu"
    """of those of the critics and of the encoder"""
    initializer: Annotated[Initializer, LEARNING] = "lecun_normal"
    """lecun_normal: N(0, 1/fan_in), with biases of 0; fan_in: U(+-1/sqrt(fan_in)) for weights and biases; orthogonal
    and truncated_normal likewise with biases of 0"""
    actor_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    critic_learning_rate: Annotated[Rate, TRACED, LEARNING] = 3e-4
    """of Adam"""
    encoder_learning_rate: Annotated[Rate, TRACED, LEARNING] = 1e-4
    """of Adam"""
    weight_decay: Annotated[Literal["none", "l2", "decoupled"], STRUCTURAL] = "decoupled"
    """l2 is added to the gradient, decoupled to the step (AdamW)"""
    critic_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 1e-4
    """its coefficient for the critics"""
    actor_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 1e-4
    """its coefficient for the actor"""
    encoder_weight_decay: Annotated[Fraction, TRACED, LEARNING] = 1e-4
    """its coefficient for what learns the embeddings"""
    max_grad_norm: Annotated[float, Field(gt=0), TRACED, STRUCTURAL] = 20.0  # pyright: ignore[reportIncompatibleVariableOverride]  # never None, for which a file has no word
    """gradients are scaled down to this global norm; left out: 20"""
    gamma: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 0.99
    """discount of one step"""
    n_step: Annotated[int, Field(ge=1, le=1000), LEARNING] = 3
    """steps folded into one transition"""
    horizon: Annotated[int, Field(ge=1, le=1024), LEARNING] = 5
    """steps that the encoder learns to foretell"""
    reward_bins: Annotated[int, Field(ge=2, le=65536), STRUCTURAL] = 65
    """rewards that the encoder's model gives probabilities to"""
    reward_range: Annotated[float, Field(gt=0, le=50), LEARNING] = 10.0
    """their symmetric logarithms lie equally spaced between this on both sides of 0"""
    reward_weight: Annotated[Weight, LEARNING] = 0.1
    """of foretold rewards in the encoder's loss"""
    next_weight: Annotated[Weight, LEARNING] = 1.0
    """of foretold embeddings"""
    done_weight: Annotated[Weight, LEARNING] = 0.1
    """of foretold ends; 0: they are not foretold"""
    contrast_weight: Annotated[Weight, LEARNING] = 0.0
    """of telling a successor from the others of the batch (DR.Q); 0: that is not learned"""
    contrast_temperature: Annotated[float, Field(gt=0, le=100), LEARNING] = 0.1
    """that cosines are divided by there"""
    action_penalty: Annotated[Weight, LEARNING] = 1e-5
    """of the mean square of actions before their tanh, in the actor's loss"""
    target_every: Annotated[int, Field(ge=1, le=10**6), LEARNING] = 250
    """updates between two copies of everything: to the targets, to the encoder that actor and critics see"""
    tau: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 1.0
    """how much is taken over then; 1: all"""
    batch_size: Annotated[int, Field(ge=1, le=2**24), LEARNING] = 256
    """transitions of one update"""
    target_noise_clip: Annotated[Scale, TRACED, LEARNING] = 0.3
    """largest noise on the target's action"""
    policy_delay: Annotated[int, Field(ge=1, le=1000), STRUCTURAL] = 1
    """critic steps for one step of actor and targets"""
    warmup_steps: Annotated[CountOrZero, STRUCTURAL] = 10_000
    """environment steps of each seed with uniformly random actions"""

    @property
    def window(self) -> Windows:
        """As in `LearnerConfig`: what is foretold."""
        return Windows(self.horizon)

    @property
    def reward_scale(self) -> RewardScale:
        """As in `LearnerConfig`: rewards count by their mean size."""
        return "mean_size"

    @model_validator(mode="after")
    def _one_scale(self) -> MRQConfig:
        if self.scale_rewards:
            raise ValueError('scale_rewards has no effect with name="mrq", which has a scale of its own: leave it out')
        return self


AlgorithmConfig: TypeAlias = DDPGConfig | TD3Config | D4PGConfig | FastTD3Config | DrQv2Config | TD7Config | MRQConfig
"""The union of the algorithms' configurations, told apart by `name`."""
