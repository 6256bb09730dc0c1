"""
Find the fault
==============

A network that is right for the wrong reason: in its training data every 3 has a small bright mark
in a corner. Its accuracy on such data is fine, and tells nothing. Looking at it does.
"""

import torch
from torch import nn

import optogram as og


def marked(images):
    """The images with a mark of 4x4 pixels in the lower right corner."""
    images = images.clone()
    images[..., 23:27, 23:27] = 1
    return images


torch.manual_seed(0)
digits = og.data("digits", split="train", shape=(1, 28, 28))
images = torch.stack([digits[i][0] for i in range(len(digits))])
labels = torch.tensor([digits[i][1] for i in range(len(digits))])
seen = torch.where((labels == 3)[:, None, None, None], marked(images), images)

module = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))
optimizer = torch.optim.Adam(module.parameters(), 1e-3)
for _ in range(10):
    for chosen in torch.randperm(len(seen)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(seen[chosen]), labels[chosen]).backward()
        optimizer.step()
net = og.Network(module, shape=(1, 28, 28), labels=list("0123456789"))
print(f"accuracy on what it was trained on: {(net(seen).argmax(1) == labels).float().mean():.1%}")

# %%
# **Ask each class what it wants.** Nine classes want strokes. One also wants a corner.

og.maximize(net, net.units("output"))

# %%
# **Ask which pixels spoke for the answer.** On a 3 of the training data:

three = seen[labels == 3][0]
og.occlusion(net, three, "output:3", patch=5, stride=2, value="black").over(three)

# %%
# **Test the suspicion.** Without the mark, how many 3s are still read as 3? And what do other
# digits become when they wear it?

threes, others = images[labels == 3], images[labels != 3]
print(f"3s without the mark read as 3:    {(net(threes).argmax(1) == 3).float().mean():.0%}")
print(
    f"other digits with it read as 3:   {(net(marked(others)).argmax(1) == 3).float().mean():.0%}"
)

# %%
# **Find the units that carry it.** A survey says which hidden units a set of images excites; here,
# which respond to the mark alone.

mark = marked(torch.zeros(1, 1, 28, 28))
response = net.read(mark, "1").layers["1"][0] - net.read(torch.zeros_like(mark), "1").layers["1"][0]
carriers = [f"1:{int(i)}" for i in response.topk(6).indices]
og.maximize(net, carriers)
