"""Named sets of settings for whole audits. What a preset does not say has the stages' own default."""

from dataclasses import dataclass, field

from compleak.queries.probes import PROBES

FLAGS = {  # how a setting is typed, where that is not `--<name>`
    "pruning": {"epochs": "--prune_epochs"},
    "quantization": {"epochs": "--quantized_epochs"},
}


@dataclass(frozen=True)
class Preset:
    """Settings by kind of stage; `every` goes to all of them."""

    every: dict = field(default_factory=dict)
    train: dict = field(default_factory=dict)
    pruning: dict = field(default_factory=dict)
    quantization: dict = field(default_factory=dict)
    clustering: dict = field(default_factory=dict)
    attack: dict = field(default_factory=dict)

    def settings(self, kind: str) -> dict:
        """What a stage of this kind is told: "train", a technique, or "attack"."""
        return {**self.every, **getattr(self, kind)}

    def in_words(self) -> dict[str, str]:
        """The flags that each kind of stage is given, "" where none: for the page that says how numbers were made."""
        kinds = {"network": "every", "train": "train", "pruning": "pruning", "quantization": "quantization"}
        kinds |= {"clustering": "clustering", "attack": "attack"}
        return {title: flags_in_words(kind, getattr(self, kind)) for title, kind in kinds.items()}


def flags_in_words(kind: str, settings: dict) -> str:
    """Settings as they would be typed: `--epochs 30 --no_augment`."""
    words = []
    for name, value in settings.items():
        flag = FLAGS.get(kind, {}).get(name, f"--{name}")
        if name == "asked":
            words += [f"--{PROBES[probe].flag} {amount}" for probe, amount in value.items()]
        else:
            words += ["--no_augment"] if name == "augment" else [f"{flag} {value}"]
    return " ".join(words)


PRESETS = {
    "smoke": Preset(
        every={"width": 0.25, "batch_size": 32},
        train={"epochs": 30, "augment": False, "label_noise": 0.2},
        pruning={"epochs": 3, "augment": False},
        quantization={"epochs": 3, "augment": False},
        clustering={"epochs": 3, "augment": False},
    ),
    "quick": Preset(
        train={"max_points": 5000, "epochs": 12, "batch_size": 64, "lr": 0.05, "augment": False},
        pruning={"epochs": 2, "batch_size": 64, "augment": False},
        quantization={"epochs": 1, "batch_size": 64, "augment": False},
        clustering={"epochs": 1, "batch_size": 64, "augment": False},
        attack={"asked": {"sensitivity": 2}},
    ),
    "compact": Preset(
        every={"width": 0.25, "batch_size": 32},
        train={"max_points": 1200, "epochs": 15, "lr": 0.05, "augment": False},
        pruning={"epochs": 3, "augment": False},
        quantization={"epochs": 2, "augment": False},
        clustering={"epochs": 2, "augment": False},
        attack={"asked": {"sensitivity": 2}},
    ),
    "text": Preset(  # bert and gpt2, on one core
        train={"max_points": 5000, "epochs": 12, "batch_size": 32, "lr": 0.001, "optimizer": "adamw"},
        pruning={"epochs": 2, "batch_size": 32, "lr": 0.0003, "optimizer": "adamw"},
        quantization={"epochs": 1, "batch_size": 32, "lr": 0.0001, "optimizer": "adamw"},
        clustering={"epochs": 1, "batch_size": 32, "optimizer": "adamw"},
        attack={"asked": {"sensitivity": 2}},
    ),
    "broad": Preset(  # `compact` with twice as many members, for narrower intervals
        every={"width": 0.25, "batch_size": 32},
        train={"max_points": 2500, "epochs": 15, "lr": 0.05, "augment": False},
        pruning={"epochs": 3, "augment": False},
        quantization={"epochs": 2, "augment": False},
        clustering={"epochs": 2, "augment": False},
        attack={"asked": {"sensitivity": 2}},
    ),
    "half": Preset(  # the regime that people train in, for a CPU and patience
        every={"width": 0.5},
        train={"epochs": 50},
        pruning={"epochs": 10},
        quantization={"epochs": 10},
        clustering={"epochs": 10},
        attack={"asked": {"sensitivity": 2}},
    ),
    "paper": Preset(),
}
