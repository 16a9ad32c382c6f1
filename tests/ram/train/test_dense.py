"""Dense layers with gradients: oneDNN's products against MKL's."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rasa._torch import dense
from rasa._torch.dense import Dense

SHAPES = [(5, 24), (3, 7, 24), (24,), (2, 3, 4, 24), (2500, 24)]


def results(layer, x, *, gelu=False):
    layer.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = layer.gelu(x) if gelu else layer(x)
    y.backward(torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape))
    return [y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_pytorch_s(shape, gelu, bias):
    torch.manual_seed(4)
    layer, x = Dense(24, 10, bias=bias), torch.randn(shape)
    ours = results(layer, x, gelu=gelu)
    exact = results(copy.deepcopy(layer).double(), x.double(), gelu=gelu)
    assert len(ours) == 3 + bias
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * max(1.0, float(other.abs().max())))


def test_gradients_are_those_of_finite_differences(monkeypatch):
    # The formulas themselves, in float64, where gradcheck can tell them from others.
    monkeypatch.setattr(dense, "_product", torch.nn.functional.linear)
    torch.manual_seed(1)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5, 4), (6, 4), (6,))]
    assert torch.autograd.gradcheck(dense._Linear.apply, inputs)


class Products(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def backward_products(layer, x):
    y = layer(x)
    with Products() as called:
        y.sum().backward()
    return sum("mkldnn._linear_pointwise" in name for name in called.names), called.names


def test_no_gradient_is_computed_that_nobody_wants():
    layer, x = Dense(24, 10), torch.randn(5, 24)
    assert backward_products(layer, x)[0] == 1  # of the weight alone
    assert backward_products(layer, x.clone().requires_grad_())[0] == 2
    layer.weight.requires_grad_(False)
    assert backward_products(layer, x.clone().requires_grad_())[0] == 1
    assert backward_products(layer, x)[0] == 0
    assert layer.bias.grad is not None
    frozen = Dense(24, 10).requires_grad_(False)
    assert not frozen(x).requires_grad


def test_strided_input_and_gradient():
    torch.manual_seed(2)
    layer, x, gradient = Dense(24, 10), torch.randn(24, 6), torch.randn(10, 6)
    layer(x.T).backward(gradient.T)
    torch.testing.assert_close(layer.weight.grad, gradient @ x.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.grad, gradient.sum(1), rtol=1e-5, atol=1e-5)


def test_other_types_autocast_compilation_and_transforms_go_the_usual_way():
    layer, x = Dense(24, 10), torch.randn(5, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    program = torch.export.export(layer, (x,), strict=True)
    assert "linear" in str(program.graph)
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-5, atol=1e-6)
    each = torch.func.vmap(layer)(x)
    torch.testing.assert_close(each, layer(x), rtol=1e-5, atol=1e-6)
    by_function = torch.func.grad(lambda weight: torch.func.functional_call(layer, {"weight": weight}, (x,)).sum())
    layer(x).sum().backward()
    torch.testing.assert_close(by_function(layer.weight.detach()), layer.weight.grad, rtol=1e-5, atol=1e-5)


def test_a_gradient_of_a_gradient_is_refused_not_wrong():
    layer, x = Dense(4, 3), torch.randn(2, 4, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
