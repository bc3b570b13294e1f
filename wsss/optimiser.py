"""SGD with the paper's groups and its polynomial decay."""

from torch import nn
from torch.optim import SGD, Optimizer


def build_optimiser(network: nn.Module, *, lr: float, encoder_lr: float, momentum: float, weight_decay: float) -> SGD:
    """SGD over the trainable parameters: encoder and new layers at their own rates (Sec. 4.1.2).

    Biases learn twice as fast and do not decay, as in Araslanov and Roth's code. The momentum is a true one: SEAM's
    optimiser, whose decay the paper follows, hands its weight decay to SGD as the momentum.
    """
    groups = []
    for in_encoder, rate in ((True, encoder_lr), (False, lr)):
        for is_bias, factor, decay in ((False, 1, weight_decay), (True, 2, 0.0)):
            parameters = [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and name.startswith("encoder.") == in_encoder
                and name.endswith("bias") == is_bias
            ]
            if parameters:
                groups.append({"params": parameters, "initial_lr": factor * rate, "weight_decay": decay})
    return SGD(groups, lr=lr, momentum=momentum)


def set_poly_lr(optimiser: Optimizer, step: int, steps: int, power: float) -> float:
    """Set each group's rate to initial_lr * (1 - step/steps)^power; returns the decay factor."""
    factor = (1 - step / steps) ** power
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return factor
