// TD3 of RLtools (https://rl.tools) on its own Pendulum; built, run and timed by rltools.py.
//
// It prints "evaluation STEP RETURN" for each evaluation and, last, "updates NUMBER SECONDS": those after the warm-up, as
// many as there were steps. Widths, batch and steps are the compiler's, as RLtools asks for. Its other settings are those
// of its defaults: rates of 1e-3, actor and targets at every second update, one batch for both critics and the actor.

#include <rl_tools/operations/cpu_mux.h>
#include <rl_tools/nn/optimizers/adam/instance/operations_generic.h>
#include <rl_tools/nn/operations_cpu_mux.h>
#include <rl_tools/rl/environments/pendulum/operations_cpu.h>
#include <rl_tools/nn/layers/td3_sampling/operations_generic.h>
#include <rl_tools/nn_models/mlp/operations_generic.h>
#include <rl_tools/nn_models/sequential/operations_generic.h>
#include <rl_tools/nn/optimizers/adam/operations_generic.h>
#include <rl_tools/rl/algorithms/td3/loop/core/config.h>
#include <rl_tools/rl/loop/steps/evaluation/config.h>
#include <rl_tools/rl/algorithms/td3/loop/core/operations_generic.h>
#include <rl_tools/rl/loop/steps/evaluation/operations_generic.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace rlt = rl_tools;

using DEVICE = rlt::devices::DEVICE_FACTORY<>;
#ifdef RL_TOOLS_BACKEND_ENABLE_OPENBLAS
static_assert(DEVICE::DEVICE_ID == rlt::devices::DeviceId::CPU_OPENBLAS);
#endif
using RNG = DEVICE::SPEC::RANDOM::ENGINE<>;
using TI = typename DEVICE::index_t;
using TYPE_POLICY = rlt::numeric_types::Policy<float>;
using PENDULUM_SPEC = rlt::rl::environments::pendulum::Specification<float, TI>;
using ENVIRONMENT = rlt::rl::environments::Pendulum<PENDULUM_SPEC>;

struct PARAMETERS : rlt::rl::algorithms::td3::loop::core::DefaultParameters<TYPE_POLICY, TI, ENVIRONMENT> {
    struct TD3_PARAMETERS : rlt::rl::algorithms::td3::DefaultParameters<TYPE_POLICY, TI> {
        static constexpr TI ACTOR_BATCH_SIZE = BENCH_BATCH;
        static constexpr TI CRITIC_BATCH_SIZE = BENCH_BATCH;
    };
    static constexpr TI STEP_LIMIT = BENCH_STEPS;
    static constexpr TI REPLAY_BUFFER_CAP = BENCH_STEPS;
    static constexpr TI ACTOR_HIDDEN_DIM = BENCH_WIDTH;
    static constexpr TI CRITIC_HIDDEN_DIM = BENCH_WIDTH;
};

using CORE = rlt::rl::algorithms::td3::loop::core::Config<TYPE_POLICY, TI, RNG, ENVIRONMENT, PARAMETERS>;

#if BENCH_EVERY > 0
struct EVALUATION : rlt::rl::loop::steps::evaluation::Parameters<TYPE_POLICY, TI, CORE> {
    static constexpr TI EVALUATION_INTERVAL = BENCH_EVERY;
    static constexpr TI NUM_EVALUATION_EPISODES = 10;
    static constexpr TI N_EVALUATIONS = BENCH_STEPS / BENCH_EVERY;
};
using LOOP = rlt::rl::loop::steps::evaluation::Config<CORE, EVALUATION>;
#else
using LOOP = CORE;
#endif

int main(int count, char** words) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    DEVICE device;
    static LOOP::State<LOOP> state;
    rlt::malloc(device, state);
    rlt::init(device, state, count > 1 ? std::strtoul(words[1], nullptr, 10) : 0);
    auto began = std::chrono::steady_clock::now();
    for (TI i = 0; i < BENCH_STEPS; i++) {
        if (i == PARAMETERS::N_WARMUP_STEPS) {
            began = std::chrono::steady_clock::now();
        }
        rlt::step(device, state);
#if BENCH_EVERY > 0
        if (i % BENCH_EVERY == 0) {
            std::printf("evaluation %lu %f\n", i, rlt::get(state.evaluation_results, 0, i / BENCH_EVERY).returns_mean);
        }
#endif
    }
    std::chrono::duration<double> passed = std::chrono::steady_clock::now() - began;
    std::printf("updates %lu %f\n", BENCH_STEPS - PARAMETERS::N_WARMUP_STEPS, passed.count());
}
