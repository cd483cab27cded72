from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings

from lamina.errors import NetError
from lamina.nets import (
    GELU,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Residual,
    Shape,
    Sigmoid,
    Softmax,
    Tanh,
    Whiten,
    parse_net,
    summarize,
)
from support.examples import count_examples
from support.random_nets import nets

MLP = Net(Flatten(), Linear(100), ReLU(), Output())
CNN = Net(
    *(Conv2d(32, 3, stride=1, padding=1), BatchNorm(), LeakyReLU()),
    *(Conv2d(32, 3, stride=2, padding=1), BatchNorm(), LeakyReLU()),
    *(Conv2d(64, 3, stride=1, padding=1), BatchNorm(), LeakyReLU()),
    *(Conv2d(64, 3, stride=2, padding=1), BatchNorm(), LeakyReLU()),
    *(Flatten(), Linear(128), BatchNorm(), LeakyReLU(), Dropout(0.5), Output()),
)
DEEP = Net(
    Conv2d(8, 3),
    Residual(BatchNorm(), Residual(ReLU(), BatchNorm()), shortcut=(BatchNorm(),)),
    ReLU(),
)


class TestRandomNets:
    @settings(deadline=None, max_examples=count_examples(60))
    @given(net=nets(in_shape=(3, 16, 13)))
    def test_figures_are_those_of_the_torch_module(self, count_multiply_adds, net: Net):
        shape: Shape = (3, 16, 13)
        net = net.check(shape, 5)
        module = net.module(shape).eval()
        received: list[Shape] = []
        for child in module:
            child.register_forward_pre_hook(
                lambda _, inputs: received.append(tuple(inputs[0].shape[1:]))
            )
        logits = module(torch.zeros(1, *shape))
        assert logits.shape == (1, 5)
        assert tuple(received) == net.shapes(shape)[:-1]
        assert net.multiply_adds(shape) == count_multiply_adds(module, shape)
        assert net.parameter_count(shape) == sum(
            parameter.numel() for parameter in module.parameters()
        )

    @settings(deadline=None, max_examples=25)
    @given(net=nets())
    def test_can_be_trained(self, net: Net):
        shape: Shape = (3, 16, 13)
        module = net.check(shape, 5).module(shape)
        torch.nn.functional.cross_entropy(
            module(torch.randn(4, *shape)), torch.arange(4)
        ).backward()
        assert all(
            weight.grad is not None for weight in module.parameters() if weight.requires_grad
        )

    @settings(deadline=None)
    @given(net=nets())
    def test_its_texts_make_the_same_net_again(self, net: Net):
        assert parse_net(repr(net)) == net
        assert parse_net(net.text()) == net
        assert pickle.loads(pickle.dumps(net)) == net

    @settings(deadline=None, max_examples=count_examples(60))
    @given(net=nets())
    def test_summary_adds_up(self, net: Net):
        summary = summarize(net, (3, 16, 13), 5)
        assert sum(row.parameters for row in summary.rows) == summary.parameters
        assert sum(row.multiply_adds for row in summary.rows) == summary.multiply_adds


class TestTheNetsOfTheArticle:
    def test_mlp_has_308310_parameters(self):
        assert MLP.check((3, 32, 32), 10).parameter_count((3, 32, 32)) == 308_310

    def test_cnn_has_591914_parameters(self):
        assert CNN.check((3, 32, 32), 10).parameter_count((3, 32, 32)) == 591_914


class TestNetAsAValue:
    def test_is_a_sequence_of_its_layers(self):
        assert list(MLP) == [Flatten(), Linear(100), ReLU(), Output()]
        assert len(MLP) == 4
        assert MLP[-1] == Output()
        assert MLP[:2] == Net(Flatten(), Linear(100))
        assert Linear(100) in MLP
        assert MLP[:2] + Net(Output()) == Net(Flatten(), Linear(100), Output())

    def test_equal_nets_are_one_key(self):
        assert {MLP: "found"}[Net(Flatten(), Linear(100), ReLU(), Output())] == "found"
        assert Net(Linear(100)) != Net(Linear(101))

    def test_cannot_be_changed(self):
        with pytest.raises(AttributeError):
            MLP.layers = ()
        with pytest.raises(AttributeError):
            MLP[1].out_features = 200

    def test_prints_as_the_python_that_made_it(self):
        net = Net(
            Conv2d(32, 3, stride=2, padding="same"),
            Residual(ReLU(), shortcut=(Conv2d(32, 1, bias=False),)),
            Dropout(0.2),
            Output(),
        )
        assert (
            repr(net) == "Net(Conv2d(32, 3, stride=2, padding='same'), "
            "Residual(ReLU(), shortcut=(Conv2d(32, 1, bias=False),)), Dropout(p=0.2), Output())"
        )

    def test_adds_nothing_but_nets(self):
        with pytest.raises(TypeError, match=r"unsupported operand .*'Net' and 'ReLU'"):
            MLP + ReLU()

    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            (
                (ReLU,),
                "Net: layer 1 is the class ReLU, not a layer. Write ReLU(...) with its arguments.",
            ),
            (
                (Flatten(), "Linear"),
                (
                    "Net: layer 2 must be a layer such as ReLU(), got 'Linear'. Pass the layers as"
                    " separate arguments, as in Net(Flatten(), Output())."
                ),
            ),
            (
                ([Flatten()],),
                (
                    "Net: layer 1 must be a layer such as ReLU(), got [Flatten()]. Pass the layers"
                    " as separate arguments, as in Net(Flatten(), Output())."
                ),
            ),
        ],
    )
    def test_takes_nothing_but_layers(self, layers, message: str):
        with pytest.raises(NetError) as rejection:
            Net(*layers)
        assert str(rejection.value) == message


class TestWithOutputs:
    def test_gives_output_its_units(self):
        assert MLP.with_outputs(10)[-1] == Output(10)

    def test_gives_them_anew(self):
        assert MLP.with_outputs(10).with_outputs(3) == MLP.with_outputs(3)

    def test_leaves_the_net_as_it_was(self):
        MLP.with_outputs(10)
        assert MLP[-1] == Output()


class TestCheck:
    def test_returns_the_net_with_its_outputs(self):
        assert CNN.check((3, 32, 32), 10) == CNN.with_outputs(10)

    def test_admits_a_linear_layer_in_the_place_of_output(self):
        net = Net(Flatten(), Linear(10))
        assert net.check((3, 32, 32), 10) == net

    @pytest.mark.parametrize(
        ("net", "message"),
        [
            (
                Net(Conv2d(64, 3), ReLU(), MaxPool2d(2), Linear(200), Output()),
                (
                    "layer 4 of 5, Linear(200): expected a vector (F,), got (64, 3, 3). "
                    "Put Flatten() or GlobalAvgPool() before it."
                ),
            ),
            (
                Net(ReLU(), Residual(Conv2d(8, 3, padding="same"), Linear(3)), Flatten(), Output()),
                (
                    "layer 2 of 4, in Residual, layer 2 of 2, Linear(3): expected a vector (F,),"
                    " got (8, 8, 8). Put Flatten() or GlobalAvgPool() before it."
                ),
            ),
            (
                Net(Flatten(), Output(), Softmax()),
                (
                    "layer 3 of 3, Softmax(): the net must output logits, because the loss computes"
                    " probabilities from them. Remove Softmax()."
                ),
            ),
            (
                Net(Flatten(), Linear(10), Sigmoid()),
                (
                    "layer 3 of 3, Sigmoid(): the net must output logits, because the loss computes"
                    " probabilities from them. Remove Sigmoid()."
                ),
            ),
            (
                Net(Flatten(), Output(), ReLU()),
                (
                    "layer 3 of 3, ReLU(): Output() must be the last layer. Move ReLU() before it,"
                    " or remove it."
                ),
            ),
            (
                Net(ReLU(), Whiten(2), Flatten(), Output()),
                "Whiten() must be the first layer of the net. Move it to the front.",
            ),
            (
                Net(Residual(Whiten(2)), Flatten(), Output()),
                "Whiten() must be the first layer of the net. Move it to the front.",
            ),
            (
                Net(Conv2d(10, 3)),
                (
                    "the net must end with the 10 outputs of the task, got (10, 6, 6). End it with"
                    " Flatten(), Output()."
                ),
            ),
            (
                Net(Flatten(), Linear(100)),
                (
                    "the net must end with the 10 outputs of the task, got (100,). End it with"
                    " Output()."
                ),
            ),
            (
                Net(),
                (
                    "the net must end with the 10 outputs of the task, got (3, 8, 8). End it with"
                    " Flatten(), Output()."
                ),
            ),
        ],
        ids=repr,
    )
    def test_says_what_is_wrong_before_training(self, net: Net, message: str):
        with pytest.raises(NetError) as rejection:
            net.check((3, 8, 8), 10)
        assert str(rejection.value) == message

    @pytest.mark.parametrize("last", [Sigmoid(), Tanh()])
    def test_numbers_are_predicted_without_bounds(self, last: Layer):
        with pytest.raises(NetError) as rejection:
            Net(Flatten(), Output(), last).check((3, 8, 8), 2, predicts_numbers=True)
        assert (
            str(rejection.value)
            == f"layer 3 of 3, {last}: the net must output unbounded numbers, because targets are"
            f" standardized. Remove {last}."
        )

    @pytest.mark.parametrize("shape", [(), (3, 32), (3, 0, 32), (1, 3, 32, 32), (-1,)])
    def test_rejects_what_is_no_image_and_no_vector(self, shape: Shape):
        with pytest.raises(NetError) as rejection:
            MLP.check(shape, 10)
        assert (
            str(rejection.value)
            == f"in_shape must be (C, H, W) or (F,), each size at least 1, got {shape}."
        )

    @pytest.mark.parametrize(
        "ask", [Net.out_shape, Net.parameter_count, Net.multiply_adds, Net.fields, Net.module]
    )
    def test_every_question_is_rejected_for_a_shape_that_does_not_fit(self, ask):
        with pytest.raises(
            NetError,
            match=r"^layer 1 of 1, Linear\(10\): expected a vector \(F,\), got \(3, 8, 8\)",
        ):
            ask(Net(Linear(10)), (3, 8, 8))


class TestWithout:
    def test_drops_every_layer_of_a_kind_also_inside_residual(self):
        net = Net(
            Conv2d(8, 3),
            BatchNorm(),
            Residual(BatchNorm(), ReLU(), shortcut=(BatchNorm(momentum=0.5),)),
        )
        assert net.without(BatchNorm) == Net(Conv2d(8, 3), Residual(ReLU()))

    def test_drops_residuals_whole(self):
        assert DEEP.without(Residual) == Net(Conv2d(8, 3), ReLU())

    def test_is_the_same_net_where_there_is_none(self):
        assert MLP.without(BatchNorm) == MLP

    def test_rejects_to_empty_a_residual(self):
        with pytest.raises(NetError, match=r"^Residual: expected at least one layer, got none\.$"):
            Net(Residual(BatchNorm())).without(BatchNorm)


class TestReplace:
    def test_a_kind(self):
        net = Net(LeakyReLU(0.1), Residual(LeakyReLU(0.2), shortcut=(LeakyReLU(),)), Flatten())
        assert net.replace(LeakyReLU, GELU()) == Net(
            GELU(), Residual(GELU(), shortcut=(GELU(),)), Flatten()
        )

    def test_an_equal_layer(self):
        net = Net(LeakyReLU(0.1), Residual(LeakyReLU(0.2)), LeakyReLU(0.2))
        assert net.replace(LeakyReLU(0.2), GELU()) == Net(LeakyReLU(0.1), Residual(GELU()), GELU())

    def test_a_residual(self):
        assert DEEP.replace(Residual, GELU()) == Net(Conv2d(8, 3), GELU(), ReLU())

    def test_by_itself_changes_nothing(self):
        assert DEEP.replace(ReLU, ReLU()) == DEEP

    @pytest.mark.parametrize(("old", "name"), [(Dropout, "Dropout"), (Linear(7), "Linear(7)")])
    def test_rejects_what_is_not_there(self, old, name: str):
        with pytest.raises(NetError) as rejection:
            MLP.replace(old, GELU())
        assert (
            str(rejection.value)
            == f"replace: the net has no {name}: Net(Flatten(), Linear(100), ReLU(), Output())."
            " Pass a layer that it contains."
        )


class TestText:
    def test_holds_the_defaults_too(self):
        net = Net(Conv2d(32, (3, 1)), Residual(ReLU(), shortcut=(Conv2d(32, 1), Output())))
        conv = "padding='valid', dilation=1, groups=1, bias=True)"
        assert net.text() == (
            f"Conv2d(out_channels=32, kernel_size=(3, 1), stride=1, {conv}, Residual(ReLU(),"
            f" shortcut=(Conv2d(out_channels=32, kernel_size=1, stride=1, {conv},"
            " Output(units=None),))"
        )
