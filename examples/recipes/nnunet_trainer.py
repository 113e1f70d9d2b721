"""A trainer of nnU-Net's kind: a class with `run_training`, poly rate, deep supervision; July goes on from June.

python examples/recipes/nnunet_trainer.py
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, Dataset

import warmstart as ws

OUT = Path("out/nnunet-trainer")


def load_case(name: str) -> tuple[Tensor, Tensor]:
    """A volume (1, 16, 16, 16) with a bright ball in it, and where that is; a real project reads its file here."""
    generator = torch.Generator().manual_seed(int(name[-3:]))
    centre = torch.randint(5, 11, (3, 1, 1, 1), generator=generator)
    inside = ((torch.stack(torch.meshgrid([torch.arange(16)] * 3, indexing="ij")) - centre) ** 2).sum(0) < 16
    return (inside + torch.randn(16, 16, 16, generator=generator))[None], inside[None].long()


def for_each_output(segmentation: Tensor) -> list[Tensor]:
    """The segmentation at the resolution of each output, the finest first."""
    return [segmentation, interpolate(segmentation[None].float(), scale_factor=0.5)[0].long()]


class Cases(Dataset):
    """A patch of each case, the same at each call: the middle, without augmentation, in order of arrival."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor | list[Tensor]]:
        data, segmentation = (volume[:, 2:14, 2:14, 2:14] for volume in load_case(self.names[index]))
        return {"data": data, "target": for_each_output(segmentation)}


class Network(nn.Module):
    """Two resolutions, an output at each."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.up = self.block(1, 4, 1), self.block(4, 8, 2), nn.ConvTranspose3d(8, 4, 2, 2)
        self.heads = nn.ModuleList([nn.Conv3d(8, 2, 1), nn.Conv3d(8, 2, 1)])

    def block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        norm = nn.InstanceNorm3d(outputs, affine=True)
        return nn.Sequential(nn.Conv3d(inputs, outputs, 3, stride, padding=1), norm, nn.LeakyReLU(0.01))

    def forward(self, data: Tensor) -> list[Tensor]:
        fine = self.fine(data)
        coarse = self.coarse(fine)
        return [self.heads[0](torch.cat([fine, self.up(coarse)], 1)), self.heads[1](coarse)]


class Trainer:
    """What nnUNetTrainer does, in the parts that matter here."""

    def __init__(self, names: list[str], folder: Path, num_epochs: int = 5) -> None:
        self.names, self.folder, self.num_epochs, self.current_epoch = names, folder, num_epochs, 0
        self.initial_lr, self.iterations = 1e-2, 10
        self.network = Network()
        self.optimizer = torch.optim.SGD(self.network.parameters(), self.initial_lr, momentum=0.99, nesterov=True)
        self.generator = torch.Generator().manual_seed(0)

    def loss(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        """Deep supervision: half the weight for each coarser output."""
        losses = [cross_entropy(output, target[:, 0]) for output, target in zip(outputs, targets, strict=True)]
        return sum(loss / 2**i for i, loss in enumerate(losses)) / 1.5

    def random_patches(self) -> tuple[Tensor, list[Tensor]]:
        data, target = [], []
        for case in torch.randint(len(self.names), (2,), generator=self.generator):
            z, y, x = torch.randint(0, 5, (3,), generator=self.generator)
            patch = [volume[:, z : z + 12, y : y + 12, x : x + 12] for volume in load_case(self.names[case])]
            data.append(patch[0])
            target.append(for_each_output(patch[1]))
        return torch.stack(data), [torch.stack(level) for level in zip(*target, strict=True)]

    def on_train_start(self) -> None:
        """A subclass of nnUNetTrainer calls super().on_train_start() here."""

    def run_training(self) -> None:
        if (latest := self.folder / "checkpoint_latest.pth").exists():
            self.load_checkpoint(latest)
        self.on_train_start()
        while self.current_epoch < self.num_epochs:
            rate = self.initial_lr * (1 - self.current_epoch / self.num_epochs) ** 0.9
            self.optimizer.param_groups[0]["lr"] = rate
            for _ in range(self.iterations):
                data, target = self.random_patches()
                self.optimizer.zero_grad()
                loss = self.loss(self.network(data), target)
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 12)
                self.optimizer.step()
            print(f"{self.folder.name}, epoch {self.current_epoch}: rate {rate:.4f}, loss {loss:.3f}")
            self.current_epoch += 1
            self.save_checkpoint(latest)

    def save_checkpoint(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        states = {"network_weights": self.network.state_dict(), "optimizer_state": self.optimizer.state_dict()}
        torch.save({**states, "current_epoch": self.current_epoch}, file)

    def load_checkpoint(self, file: Path) -> None:
        saved = torch.load(file)
        self.network.load_state_dict(saved["network_weights"])
        self.optimizer.load_state_dict(saved["optimizer_state"])
        self.current_epoch = saved["current_epoch"]


class WarmStartedTrainer(Trainer):
    """Goes on from the weights of `before`, on cases of which the last `new_cases` are new."""

    before: Path
    new_cases: int

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.current_epoch > 0:  # resumed: it has been done
            return
        self.network.load_state_dict(torch.load(self.before)["network_weights"])
        cases = DataLoader(Cases(self.names), batch_size=2)  # names in order of arrival
        report = ws.dash_(
            self.network,
            ws.oldest_first(cases, batch_size=8),  # of some hundred cases, 50
            forward_loss=lambda network, batch: self.loss(network(batch["data"]), batch["target"]),
            new_examples=self.new_cases,
        )
        print(report)


if __name__ == "__main__":
    june = [f"case_{number:03}" for number in range(16)]
    july = [f"case_{number:03}" for number in range(16, 32)]
    Trainer(june, OUT / "june").run_training()

    trainer = WarmStartedTrainer(june + july, OUT / "july")
    trainer.before, trainer.new_cases = OUT / "june" / "checkpoint_latest.pth", len(july)
    trainer.run_training()
