"""LeNet-5 in 40 lines: data, model, loop, accuracy. Run: python examples/first.py."""

from pathlib import Path

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2, generator=1)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5, generator=2)
        self.fc1 = nn.Linear(400, 120, generator=3)
        self.fc2 = nn.Linear(120, 84, generator=4)
        self.fc3 = nn.Linear(84, 10, generator=5)

    def forward(self, x):
        x = self.conv1(x).relu().max_pool2d(2)
        x = self.conv2(x).relu().max_pool2d(2)
        x = self.fc1(x.flatten(1)).relu()
        return self.fc3(self.fc2(x).relu())


train, test = (data.MNIST(Path(__file__).parent / "data", train=part) for part in (True, False))
model = LeNet5()
optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

for step, (images, labels) in enumerate(data.DataLoader(train, 64, shuffle=True, seed=0), 1):
    loss = tl.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step}, loss {loss.item():.3f}")

print(f"{tl.training.evaluate(model, data.DataLoader(test, 500)).accuracy:.2%} of the test images are right")
