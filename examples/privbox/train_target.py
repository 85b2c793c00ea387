"""Train the example's target, as somebody would who then has it audited. It takes seconds and imports nothing of here.

python examples/privbox/train_target.py
python audit.py examples/privbox/tasks/mem_inf.yaml
"""

import importlib.util
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
WEIGHTS = FOLDER / "models" / "digits_net" / "digits_net.pt"
EPOCHS = 200


def load(file: Path):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    torch.manual_seed(0)
    pictures, labels = load(FOLDER / "datasets" / "digits_members" / "digits_members.py").get_dataset().tensors
    network = load(WEIGHTS.with_suffix(".py")).get_model()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(pictures[batch]), labels[batch]).backward()
            optimizer.step()
    torch.save(network.state_dict(), WEIGHTS)
    print(f"wrote {WEIGHTS}")


if __name__ == "__main__":
    main()
