"""DiT's network and its diffusion process (facebookresearch/DiT) -> ours.

The official network embeds a label that it drops while it trains; here the task does that, and the table's last row is
the null class. The official process has a table for each respaced list of timesteps; here a `Chain` is that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.interop.names import Renamer
from ganvas.interop.registry import Imported, NoImporter, OfficialCase, carry_over, importer
from ganvas.nn.diffusion import Chain
from ganvas.nn.guidance import both_predictions, guided
from ganvas.parts import image_spec
from ganvas.types import Condition, Denoiser, Path

REPO = "facebookresearch/DiT"

NETWORK = {
    "input_size": 32, "patch_size": 2, "in_channels": 4, "hidden_size": 1152, "depth": 28, "num_heads": 16,
    "mlp_ratio": 4.0, "class_dropout_prob": 0.1, "num_classes": 1000, "learn_sigma": True,
}  # fmt: skip
"""The official constructor's arguments and their defaults."""

PROCESS = {
    "timestep_respacing": "", "noise_schedule": "linear", "use_kl": False, "sigma_small": False,
    "predict_xstart": False, "learn_sigma": True, "rescale_learned_sigmas": False, "diffusion_steps": 1000,
}  # fmt: skip

GUIDED = 3  # channels that the official guidance moves

NAMES = Renamer(
    {
        "x_embedder": "patch_embedding",
        "x_embedder.proj": "patch_embedding.projection",
        "t_embedder": "level_embedding",
        "y_embedder": "label_embedding",
        "y_embedder.embedding_table": "label_embedding",
        "pos_embed": "positions",
        "final_layer": "final",
        "final_layer.norm_final": "final.norm",
        "final_layer.adaLN_modulation.1": "final.modulation",
    },
    {
        "attn": "attention",
        "proj": "out",
        "mlp.fc1": "mlp.0",
        "mlp.act": "mlp.1",
        "mlp.fc2": "mlp.2",
        "adaLN_modulation.1": "modulation",
    },
)


def _arguments(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The official arguments with their defaults.

    Raises
    ------
    NoImporter : one that is not known.
    """
    for key, value in given.items():
        if key not in known:
            raise NoImporter(f"no importer yet for {what} with {key}={value!r}")
    return {**known, **given}


# ---------------------------------------------------------------------------------------------------- the network


@importer("models.DiT", repo=REPO)
def dit(case: OfficialCase) -> Imported:
    """The network, with or without learned sigma and null class."""
    arguments = _arguments(case.kwargs, NETWORK, case.cls)
    node = {
        "use": "dit-denoiser",
        "patch": arguments["patch_size"],
        "width": arguments["hidden_size"],
        "depth": arguments["depth"],
        "heads": arguments["num_heads"],
        "mlp_ratio": float(arguments["mlp_ratio"]),
        "learned_sigma": arguments["learn_sigma"],
        "null_class": arguments["class_dropout_prob"] > 0,
    }
    spec = image_spec(
        (arguments["in_channels"], arguments["input_size"], arguments["input_size"]), arguments["num_classes"]
    )
    return carry_over(case, spec, node, rename=NAMES, call=_call_network)


def _call_network(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`x`, `t`, `y` -> `out`; `cfg_x` and so on, twice the data with labels and null classes, -> `cfg_out`."""
    assert isinstance(net, Denoiser)
    outputs = {"out": net(inputs["x"], inputs["t"].float(), label=inputs["y"])}
    first = net.get_submodule("level_embedding")
    outputs["t_emb_sinusoid"] = first.waves(inputs["t"].float())  # type: ignore[operator]
    if "cfg_x" not in inputs:
        return outputs
    half = len(inputs["cfg_x"]) // 2
    asked = Condition(label=inputs["cfg_y"][:half])
    if not torch.equal(net.without(asked)["label"], inputs["cfg_y"][half:]):
        raise NoImporter("no importer yet for guidance away from another class than the null class")
    pair = both_predictions(net, inputs["cfg_x"][:half], inputs["cfg_t"][:half].float(), asked)
    moved = guided(*pair, inputs["cfg_scale"].item(), GUIDED)
    outputs["cfg_out"] = torch.cat([moved, torch.cat([moved[:, :GUIDED], pair[1][:, GUIDED:]], dim=1)])
    return outputs


# ---------------------------------------------------------------------------------------------------- the process


@importer("diffusion.create_diffusion(SpacedDiffusion)", "diffusion.create_diffusion", repo=REPO)
def process(case: OfficialCase) -> Imported:
    """One or more diffusion processes, each under its name, with the same constant prediction in place of a network."""
    processes = {}
    for name, kwargs in case.kwargs.items():
        arguments = _arguments(kwargs, PROCESS, case.cls)
        schedules = {"linear": "linear-ddpm", "squaredcos_cap_v2": "cosine-ddpm"}
        if arguments["noise_schedule"] not in schedules or arguments["use_kl"]:
            raise NoImporter(f"no importer yet for {case.cls} with {kwargs}")
        node = {
            "use": schedules[arguments["noise_schedule"]],
            "steps": arguments["diffusion_steps"],
            "predicts": "data" if arguments["predict_xstart"] else "noise",
            "learned_sigma": arguments["learn_sigma"],
        }
        processes[name] = arguments, parts.build("path", node)
    names = "/".join(path.called() for _, path in processes.values())
    return Imported(nn.Module(), image_spec(()), {"use": names}, lambda name: name, partial(_call_processes, processes))


def _call_processes(
    processes: Mapping[str, tuple[Mapping[str, Any], Path]], _net: nn.Module, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    for name, (arguments, path) in processes.items():
        timesteps = respaced(arguments["diffusion_steps"], arguments["timestep_respacing"])  # rising
        levels = torch.tensor([*reversed(timesteps), -1.0], dtype=torch.float64)
        computed = _tables(path, levels) | {"timestep_map": torch.tensor(timesteps)}
        computed |= _steps(arguments, path, levels, inputs, inputs[f"{name}.t"])
        outputs |= {f"{name}.{key}": value for key, value in computed.items()}
    return outputs


def respaced(steps: int, respacing: str | list[int]) -> list[int]:
    """The timesteps that stay of 0 to steps − 1: all, "ddimN" at one stride, or "n,m,…" evenly in equal sections.

    Raises
    ------
    NoImporter : there are not so many timesteps.
    """
    if not respacing:
        respacing = [steps]
    if isinstance(respacing, str) and respacing.startswith("ddim"):
        count = int(respacing.removeprefix("ddim"))
        fitting = [range(0, steps, stride) for stride in range(1, steps) if len(range(0, steps, stride)) == count]
        if not fitting:
            raise NoImporter(f"no stride leaves {count} of {steps} timesteps")
        return list(fitting[0])
    counts = [int(number) for number in respacing.split(",")] if isinstance(respacing, str) else respacing
    timesteps: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        size = steps // len(counts) + (i < steps % len(counts))
        if count > size:
            raise NoImporter(f"{count} timesteps of a section of {size}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        timesteps += [start + round(j * stride) for j in range(count)]
        start += size
    return timesteps


def _tables(path: Path, levels: Tensor) -> dict[str, Tensor]:
    """The official tables, which run from the clean end."""
    chain = Chain(*path.at(levels))
    alpha_bar = chain.alpha.square()
    tables = {
        "betas": chain.beta,
        "alphas_cumprod": alpha_bar[:-1],
        "alphas_cumprod_prev": alpha_bar[1:],
        "posterior_variance": chain.variance,
        "posterior_log_variance_clipped": chain.log_least,
        "posterior_mean_coef1": chain.from_x,
        "posterior_mean_coef2": chain.from_x_t,
        "sqrt_recip_alphas_cumprod": 1 / chain.alpha[:-1],
        "sqrt_recipm1_alphas_cumprod": chain.sigma[:-1] / chain.alpha[:-1],
    }
    return {key: table.flip(0) for key, table in tables.items()}


def _steps(
    arguments: Mapping[str, Any], path: Path, levels: Tensor, inputs: Mapping[str, Tensor], at: Tensor
) -> dict[str, Tensor]:
    """What happens at the respaced timesteps `at` (N,), a datum each."""
    chain = Chain(*path.at(levels))
    x, noise, x_t, fresh = (inputs[key] for key in ("x_start", "noise", "x_t", "step_noise"))
    prediction = inputs["model_out"] if path.sides == 2 else inputs["model_out"][:, : x.shape[1]]
    step = len(chain) - 1 - at  # ours count from the noisiest
    level = levels[step].float()
    clean = path.denoised(prediction, x_t, level).clamp(-1, 1)
    sampler = parts.build("sampler", {"use": "ddpm", "variance": "small" if arguments["sigma_small"] else "learned"})

    def by_datum(function: Any) -> Tensor:
        """The function's answers to (the datum's rows, its step), put together."""
        return torch.cat([function(slice(i, i + 1), int(k)) for i, k in enumerate(step)])

    share = path.variance_share(prediction)
    log_variance = by_datum(lambda i, k: sampler.log_variance(chain, k, None if share is None else share[i], x[i]))
    variance = log_variance.exp()
    if share is None and arguments["sigma_small"]:
        variance = chain.variance[step].float().view(-1, 1, 1, 1).expand_as(x)
    q_sample = path.noisy(x, noise, level)
    outputs = {
        "q_sample": q_sample,
        "p_mean": chain.mean(step, clean, x_t),
        "p_variance": variance,
        "p_log_variance": log_variance,
        "p_pred_xstart": clean,
        "model_t": levels[step].long(),
        "p_sample": by_datum(lambda i, k: chain.ancestral(k, clean[i], x_t[i], log_variance[i], fresh[i])),
    }
    for eta in (0.0, 0.6):
        outputs[f"ddim_eta{eta:g}"] = by_datum(
            lambda i, k, eta=eta: _as_they_round(chain, k).implicit(0, clean[i], x_t[i], eta, fresh[i])
        )
    return outputs | _losses(arguments, path, chain, prediction, x, noise, q_sample, level, step)


def _as_they_round(chain: Chain, k: int) -> Chain:
    """Step k alone, from the level below's ᾱ in float32, of which the official DDIM step takes 1 − ᾱ.

    That is off by 3e-4 at the least noisy levels, which shows where the noise in sight is as large as 100.
    """
    below = chain.alpha[k + 1].square().float().double()
    return Chain(
        torch.stack([chain.alpha[k], below.sqrt()]), torch.stack([chain.sigma[k], (1 - below).sqrt()])
    )  # fmt: skip


def _losses(
    arguments: Mapping[str, Any], path: Path, chain: Chain, prediction: Tensor, x: Tensor, noise: Tensor, x_t: Tensor,
    level: Tensor, step: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """Those of each datum (N,); with learned sigma, `vb` is the bound between the respaced timesteps."""
    rows = [slice(i, i + 1) for i in range(len(x))]
    terms = [path.losses(prediction[i], x[i], noise[i], x_t[i], level[i]) for i in rows]
    losses = {"loss_mse": torch.stack([term["mse"] for term in terms])}
    losses["loss_loss"] = losses["loss_mse"]
    if path.sides == 2:
        losses["loss_vb"] = path.bound(prediction, x, x_t, level, chain, step)  # type: ignore[attr-defined]
        if arguments["rescale_learned_sigmas"]:
            losses["loss_vb"] = losses["loss_vb"] * len(chain) / 1000
        if len(chain) == arguments["diffusion_steps"] and not arguments["rescale_learned_sigmas"]:
            losses["loss_vb"] = torch.stack([term["bound"] for term in terms])  # as training has it
        losses["loss_loss"] = losses["loss_mse"] + losses["loss_vb"]
    return losses
