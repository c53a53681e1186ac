"""Torch modules as people write them, and random ones; for tests that read and write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Made = tuple[Any, tuple[int, ...]]  # a module and the shape of a sample


def vgg(torch: Any) -> Made:
    """In the style of torchvision's VGG."""
    nn = torch.nn

    class VGG(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            channels = 1
            for width in (4, "M", 8, 8, "M"):
                if width == "M":
                    layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
                    continue
                layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1)]
                layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
            self.classifier = nn.Sequential(
                nn.Linear(channels * 49, 16),
                nn.ReLU(True),
                nn.Dropout(p=0.4),
                nn.Linear(16, 10),
            )

        def forward(self, x: Any) -> Any:
            x = self.avgpool(self.features(x))
            return self.classifier(torch.flatten(x, 1))

    return VGG(), (1, 28, 28)


def resnet(torch: Any) -> Made:
    """In the style of torchvision's ResNet: one ReLU called twice, sums in place, no bias."""
    nn = torch.nn

    class BasicBlock(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inputs: int, planes: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.downsample = None
            if stride != 1 or inputs != planes:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, planes, 1, stride=stride, bias=False),
                    nn.BatchNorm2d(planes),
                )

        def forward(self, x: Any) -> Any:
            identity = x
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            if self.downsample is not None:
                identity = self.downsample(x)
            out += identity
            return self.relu(out)

    class ResNet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2))
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            return self.fc(torch.flatten(self.avgpool(self.layer1(x)), 1))

    return ResNet(), (1, 28, 28)


def mobilenet(torch: Any) -> Made:
    """In the style of torchvision's MobileNet: depthwise blocks, ReLU6, Hardswish, a mean."""
    nn = torch.nn

    class InvertedResidual(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int, ratio: int) -> None:
            super().__init__()
            hidden = inputs * ratio
            self.use_res_connect = stride == 1 and inputs == outputs
            self.conv = nn.Sequential(
                nn.Sequential(
                    nn.Conv2d(inputs, hidden, 1, bias=False),
                    nn.BatchNorm2d(hidden),
                    nn.ReLU6(inplace=True),
                ),
                nn.Sequential(
                    nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
                    nn.BatchNorm2d(hidden),
                    nn.Hardswish(inplace=True),
                ),
                nn.Conv2d(hidden, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

        def forward(self, x: Any) -> Any:
            return x + self.conv(x) if self.use_res_connect else self.conv(x)

    class MobileNet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 4, 3, 2, 1, bias=False),
                InvertedResidual(4, 4, 1, 2),
                InvertedResidual(4, 6, 2, 2),
            )
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 10))

        def forward(self, x: Any) -> Any:
            return self.classifier(self.features(x).mean([2, 3]))

    return MobileNet(), (1, 28, 28)


def lenet(torch: Any) -> Made:
    """As in torch's tutorials: functions in forward, and a view."""
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, 5)
            self.conv2 = nn.Conv2d(4, 6, 5)
            self.conv2_drop = nn.Dropout(0.25)
            self.fc1 = nn.Linear(96, 20)
            self.fc2 = nn.Linear(20, 10)

        def forward(self, x: Any) -> Any:
            x = F.relu(F.max_pool2d(self.conv1(x), 2))
            x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
            x = x.view(x.size(0), -1)
            x = F.dropout(F.relu(self.fc1(x)), training=self.training)
            return F.softmax(self.fc2(x), dim=1)

    return Net(), (1, 28, 28)


def mlp(torch: Any) -> Made:
    """Images made flat, and flat samples made images."""
    nn = torch.nn
    return (
        nn.Sequential(
            nn.Unflatten(1, (1, 6, 6)),
            nn.Conv2d(1, 3, 3, padding="same", dilation=2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(108, 12, bias=False),
            nn.LayerNorm(12),
            nn.GELU(),
            nn.Linear(12, 3),
        ),
        (36,),
    )


def ds_cnn(torch: Any) -> Made:
    """Keyword spotting: 49 frames of 10 coefficients, depthwise separable convolutions."""
    nn = torch.nn

    def block(channels: int) -> list[Any]:
        return [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]

    class DSCNN(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.ZeroPad2d((1, 1, 4, 5)),
                nn.Conv2d(1, 8, (10, 4), stride=(2, 2)),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                *block(8),
                *block(8),
            )
            self.fc = nn.Linear(8, 12)

        def forward(self, x: Any) -> Any:
            x = self.body(x.unsqueeze(1))
            return self.fc(x.mean(dim=(-2, -1)))

    return DSCNN(), (49, 10)


def classifier(torch: Any, cell: str, **settings: Any) -> Made:
    """A recurrent layer, its last step, and a linear layer."""
    nn = torch.nn

    class Classifier(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(nn, cell)(6, 5, batch_first=True, **settings)
            self.fc = nn.Linear(10 if settings.get("bidirectional") else 5, 3)

        def forward(self, x: Any) -> Any:
            h0 = torch.zeros(self.rnn.num_layers, x.size(0), 5).to(x.device)
            hidden = (h0, h0.clone()) if cell == "LSTM" else h0
            out, _ = self.rnn(x) if settings.get("bidirectional") else self.rnn(x, hidden)
            return self.fc(out[:, -1, :])

    return Classifier(), (7, 6)


def last_states(torch: Any) -> Made:
    """What both directions end with, and time before samples."""
    nn = torch.nn

    class Encoder(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True, dropout=0.3)
            self.norm = nn.BatchNorm1d(6)
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            _, (h, _) = self.lstm(x.permute(1, 0, 2))
            return self.fc(self.norm(torch.cat((h[-2], h[-1]), dim=1)))

    return Encoder(), (5, 4)


def states_of_all_steps(torch: Any) -> Made:
    """A prediction for every step, from states that are read twice."""
    nn = torch.nn

    class Tagger(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 4, batch_first=True)
            self.norm = nn.LayerNorm(4)
            self.out = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            states, _ = self.gru(x)
            return torch.softmax(self.out(self.norm(states + x)), dim=-1)

    return Tagger(), (6, 4)


def shuffled(torch: Any) -> Made:
    """Axes in other orders: channels that are shuffled, channels last, images as sequences."""
    nn = torch.nn

    class Shuffled(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(2, 6, 3, groups=2)
            self.norm = nn.LayerNorm(6)
            self.rnn = nn.RNN(18, 4, batch_first=True, nonlinearity="relu")

        def forward(self, x: Any) -> Any:
            x = self.a(x)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = x.permute(0, 3, 1, 2).flatten(2)
            states, h_n = self.rnn(x)
            return torch.cat([h_n.squeeze(0), states.mean(dim=1)], dim=1)

    return Shuffled(), (2, 5, 6)


def over_time(torch: Any) -> Made:
    """Convolutions over time, with channels first."""
    nn = torch.nn
    return (
        nn.Sequential(
            nn.Conv1d(3, 6, 5, stride=2, padding=2),
            nn.BatchNorm1d(6),
            nn.SiLU(),
            nn.Conv1d(6, 6, 3, padding="same", dilation=2, groups=3, bias=False),
            nn.MaxPool1d(2, ceil_mode=True),
            nn.ELU(),
            nn.AvgPool1d(3, stride=1, padding=1),
            nn.Dropout(0.1),
            nn.Conv1d(6, 4, 1),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        ),
        (3, 21),
    )


def bidirectional(torch: Any) -> Made:
    """A sequence of channels into a recurrent layer of both directions, and its last step."""
    nn = torch.nn

    class CRNN(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 5, 3, padding=1)
            self.lstm = nn.LSTM(5, 3, bidirectional=True, batch_first=True)
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            x = self.conv(x).relu().transpose(1, 2)
            states, _ = self.lstm(x)
            return self.fc(states[:, -1])

    return CRNN(), (2, 9)


def parts(torch: Any) -> Made:
    """Parts of features, of channels, of steps and of states."""
    nn = torch.nn

    class Parts(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(6, 8, 3, padding=2, dilation=1)
            self.rnn = nn.GRU(4, 3, batch_first=True, bidirectional=True)
            self.one = nn.LSTM(4, 1, batch_first=True, bidirectional=True)
            self.wide = nn.Linear(7, 2)
            self.fc = nn.Linear(12, 3)

        def forward(self, x: Any) -> Any:
            y = self.conv(x)[:, :, :-2]  # it sees no step behind, as in temporal convolutions
            first, second = y.chunk(2, dim=1)
            y = torch.tanh(first) + second.narrow(1, 0, 4)
            y = y.transpose(1, 2)
            states, _ = self.rnn(y)
            ends, (h, _) = self.one(y)
            a, b = states[:, 2].split([2, 4], dim=-1)
            c, *_ = y[..., :3].unbind(1)
            found = [a, b[:, 1:3], c, ends[:, -1, 0:1], h[-1:].squeeze(0), ends[:, 0, 1:]]
            return self.fc(torch.cat([*found, self.wide(x[:, 3, :7])], dim=1))

    return Parts(), (6, 9)


def image_parts(torch: Any) -> Made:
    """Parts of the channels and of the pixels, and a part of what is flat."""
    nn = torch.nn

    class ImageParts(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
            self.fc = nn.Linear(11, 3)

        def forward(self, x: Any) -> Any:
            y = torch.cat([self.a(x[:, 1:3]), self.b(x[:, 2:])], dim=1)
            y = y[:, 3:6, 1:, :-1]
            flat = y.flatten(1)
            return self.fc(torch.cat([flat[:, 5:12], y[:, 1].mean(2), y[:, :, 1, 1][:, 2:]], 1))

    return ImageParts(), (4, 6, 7)


def words(torch: Any) -> Made:
    """Whole numbers, their rows, and a recurrent layer."""
    nn = torch.nn

    class Words(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 5, padding_idx=0)
            self.lstm = nn.LSTM(5, 4, batch_first=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            _, (h, _) = self.lstm(self.embedding(x))
            return self.fc(h[-1])

    return Words(), (7,)


MODULES: dict[str, Callable[[Any], Made]] = {
    "vgg": vgg,
    "resnet": resnet,
    "mobilenet": mobilenet,
    "lenet": lenet,
    "mlp": mlp,
    "ds_cnn": ds_cnn,
    "lstm": lambda torch: classifier(torch, "LSTM"),
    "stacked gru": lambda torch: classifier(torch, "GRU", num_layers=2, dropout=0.2),
    "rnn": lambda torch: classifier(torch, "RNN", bias=False),
    "last states": last_states,
    "states of all steps": states_of_all_steps,
    "shuffled": shuffled,
    "over time": over_time,
    "bidirectional": bidirectional,
    "parts": parts,
    "image parts": image_parts,
}


def settled(torch: Any, module: Any, seed: int) -> Any:
    """The module in eval mode, with statistics and biases that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.normal_(0.1, 0.5, generator=generator)
    return module.eval()


# ---- random modules ------------------------------------------------------------------------------


def _activations(nn: Any) -> list[Callable[[], Any]]:
    return [
        nn.ReLU,
        lambda: nn.ReLU(inplace=True),
        lambda: nn.LeakyReLU(0.3),
        nn.Tanh,
        nn.Sigmoid,
        nn.GELU,
        nn.SiLU,
        lambda: nn.ELU(0.7),
        nn.Hardswish,
        nn.ReLU6,
        nn.Identity,
        lambda: nn.Dropout(0.3),
    ]


def _images(nn: Any, rng: np.random.Generator, c: int, h: int, w: int) -> Iterator[tuple[Any, int]]:
    """Layers that a random module may have for images, with the channels they make."""
    groups = int(rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    filters = groups * int(rng.integers(1, 4))
    kernel = tuple(int(rng.integers(1, min(4, size) + 1)) for size in (h, w))
    padding = tuple(int(rng.integers(0, k)) for k in kernel)
    stride = tuple(int(rng.integers(1, 3)) for _ in kernel)
    bias = bool(rng.integers(2))
    yield nn.Conv2d(c, filters, kernel, stride, padding, groups=groups, bias=bias), filters
    same = int(rng.integers(1, 5))
    yield nn.Conv2d(c, same, 3, padding="same", dilation=int(rng.integers(1, 3))), same
    half = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    ceil = bool(rng.integers(2))
    yield nn.MaxPool2d(kernel, stride, half, ceil_mode=ceil), c
    yield nn.AvgPool2d(kernel, stride, half), c
    yield nn.BatchNorm2d(c, eps=1e-3, momentum=0.2), c
    yield nn.LayerNorm([c, h, w]), c


def _sequences(
    nn: Any,
    rng: np.random.Generator,
    steps: int,
    features: int,
    channels_first: Callable[..., Any],
) -> Iterator[tuple[Any, int]]:
    """Layers for (samples, time, features)."""
    units = int(rng.integers(1, 6))
    yield nn.Linear(features, units, bias=bool(rng.integers(2))), units
    yield nn.LayerNorm(features, eps=1e-4), features
    kernel = int(rng.integers(1, min(steps, 4) + 1))
    padding, stride = int(rng.integers(0, kernel)), int(rng.integers(1, 3))
    groups = int(rng.choice([g for g in range(1, features + 1) if features % g == 0]))
    filters = groups * int(rng.integers(1, 3))
    conv = nn.Conv1d(features, filters, kernel, stride, padding, groups=groups)
    yield channels_first(conv, nn.BatchNorm1d(filters)), filters
    half = min(padding, kernel // 2)
    yield channels_first(nn.MaxPool1d(kernel, stride, half)), features
    yield channels_first(nn.AvgPool1d(kernel, stride, half)), features
    both, layers = bool(rng.integers(2)), int(rng.integers(1, 3))
    kind = (nn.RNN, nn.GRU, nn.LSTM)[rng.integers(3)]
    settings: dict[str, Any] = {"bias": bool(rng.integers(2)), "batch_first": True}
    yield kind(features, units, layers, bidirectional=both, **settings), units * (1 + both)


def random_module(torch: Any, seed: int) -> Made:
    """A random module over the operations that are supported: a function of its seed."""
    nn = torch.nn
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)

    class Residual(nn.Module):  # type: ignore[misc, name-defined]
        """x + f(x), or both side by side."""

        def __init__(self, inner: Any, *, joins: bool, axis: int) -> None:
            super().__init__()
            self.inner, self.joins, self.axis = inner, joins, axis

        def forward(self, x: Any) -> Any:
            y = self.inner(x)
            return torch.cat([x, y], self.axis) if self.joins else x + y

    class States(nn.Module):  # type: ignore[misc, name-defined]
        """The states of a recurrent layer, at all steps or the last one."""

        def __init__(self, rnn: Any, part: int) -> None:
            super().__init__()
            self.rnn, self.part = rnn, part

        def forward(self, x: Any) -> Any:
            states, last = self.rnn(x)
            last = last[0] if isinstance(last, tuple) else last
            ends = last[-1] if not self.rnn.bidirectional else torch.cat([last[-2], last[-1]], 1)
            return (states, states[:, -1], ends)[self.part]

    class ChannelsFirst(nn.Module):  # type: ignore[misc, name-defined]
        """Layers that take (samples, features, time)."""

        def __init__(self, *layers: Any) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            return self.layers(x.transpose(1, 2)).transpose(1, 2)

    class Part(nn.Module):  # type: ignore[misc, name-defined]
        """A range of an axis."""

        def __init__(self, size: tuple[int, ...]) -> None:
            super().__init__()
            self.axis = int(rng.integers(len(size)))
            places = sorted(rng.choice(size[self.axis] + 1, 2, replace=False).tolist())
            self.start, self.stop = places

        def forward(self, x: Any) -> Any:
            chosen = (slice(None),) * (1 + self.axis) + (slice(self.start, self.stop),)
            return x[chosen]

    rank = int(rng.integers(1, 4))
    shape = tuple(int(rng.integers(1 if rank < 3 else 3, 8)) for _ in range(rank))
    layers: list[Any] = []
    x = torch.zeros(2, *shape)

    def add(layer: Any) -> None:
        nonlocal x
        layers.append(layer)
        with torch.no_grad():
            x = layer.eval()(x)

    for _ in range(int(rng.integers(2, 7))):
        size = tuple(x.shape[1:])
        choices = [*_activations(nn), lambda size=size: Part(size), lambda size=size: Part(size)]
        if len(size) == 1:
            units = int(rng.integers(1, 9))
            choices = [lambda units=units, size=size: nn.Linear(size[0], units), *choices]
            choices += [lambda size=size: nn.BatchNorm1d(size[0])]
            choices += [lambda size=size: nn.LayerNorm(size[0])]
            inner = nn.Sequential(nn.Linear(size[0], size[0]), nn.Tanh())
            joins = bool(rng.integers(2))
            choices += [lambda inner=inner, joins=joins: Residual(inner, joins=joins, axis=1)]
            choices += [lambda units=units, size=size: nn.Linear(size[0], units)] * 6
        elif len(size) == 2:
            for made, _ in _sequences(nn, rng, *size, ChannelsFirst):
                if isinstance(made, nn.RNNBase):
                    part = int(rng.choice([0, 0, 1, 2]))
                    choices += [lambda made=made, part=part: States(made, part)] * 3
                else:
                    choices += [lambda made=made: made] * 2
            inner = nn.Linear(size[1], size[1])
            joins = bool(rng.integers(2))
            choices += [lambda inner=inner, joins=joins: Residual(inner, joins=joins, axis=2)]
            choices += [nn.Flatten]
        else:
            for made, _ in _images(nn, rng, *size):
                choices += [lambda made=made: made] * 3
            inner = nn.Sequential(
                nn.Conv2d(size[0], size[0], 3, padding=1), nn.BatchNorm2d(size[0])
            )
            joins = bool(rng.integers(2))
            choices += [lambda inner=inner, joins=joins: Residual(inner, joins=joins, axis=1)] * 2
            pool = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)[rng.integers(2)]
            choices += [nn.Flatten, lambda pool=pool: nn.Sequential(pool(1), nn.Flatten())]
        add(choices[rng.integers(len(choices))]())
    if not any(layer.state_dict() for layer in layers):
        add(nn.Linear(x.shape[-1], 3))
    return nn.Sequential(*layers), shape
