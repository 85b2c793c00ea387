"""Which attacks each scenario reports, what each of them needs, and one way to call them all."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from attacks.base import base
from attacks.bavaria import bavaria
from attacks.boundary import COLUMNS, boundary
from attacks.calibrated import calibrated
from attacks.combined import combined
from attacks.common.classifiers import CLASSIFIERS
from attacks.common.queries import averaged, with_averages
from attacks.common.references import known_outsiders, reference_count
from attacks.common.signals import Result, Signals, audit_rows
from attacks.dsq import dsq
from attacks.gap import gap
from attacks.info_rmia import info_rmia
from attacks.joint import joint
from attacks.label_only_augmentation import FORMS, label_only_augmentation
from attacks.label_only_noise import label_only_noise
from attacks.lira import lira
from attacks.model_updates import model_updates
from attacks.mr import mr
from attacks.nasr2018 import nasr2018
from attacks.neural import neural
from attacks.nn import nn
from attacks.pmia_class import pmia_class
from attacks.qmia import qmia
from attacks.rapid import rapid
from attacks.rmia import rmia
from attacks.samia import samia
from attacks.selena_adaptive import NETWORKS, THRESHOLDS, selena_adaptive
from attacks.seqmia_versions import seqmia_versions
from attacks.shokri2017 import shokri2017
from attacks.song2021 import song2021
from attacks.sr import sr
from attacks.threshold import STATISTICS, threshold
from attacks.upper_bound import upper_bound
from attacks.watson2022 import watson2022
from attacks.yeom2018 import entropy, yeom2018

# What an attack reads of a model's answers. "labels" are the points' true classes.
POSTERIORS = "posteriors"
POSTERIORS_AND_LABELS = "posteriors and labels"
PREDICTED_AND_TRUE_LABELS = "predicted and true labels"
WEIGHTS = "weights and labels"


class Attack(NamedTuple):
    """A row of a table.

    `run(models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None, earlier=None)` runs it. `models`
    is [the model] in NR, [original, compressed] in SR, and [original or None, *compressed] in MR. An attack takes those
    of the options that concern it and ignores the others:

    - recipe, device, progress: how a network is trained (`attacks.common.networks`)
    - memberships: for MR, the `membership` of each compressed model where it is known
    - earlier: for `combined`, the results so far by key, so that it need not run its parts again
    """

    name: str
    classifier: str  # "" where there is none
    artifact_row: str  # the name of the row in the authors' artifact, "" where it has none
    run: Callable[..., Result]
    references: int = 0  # how many references each audit point of the victim must have: 0, 1 or 2
    probes: frozenset[str] = frozenset()  # the names in `Signals.probes` that the attack reads
    published: bool = True  # an attack of the literature, not one of ours
    eligible: bool = True  # for the headline: its shadow scores are of rows it was not fitted on
    reads: str = POSTERIORS_AND_LABELS  # of the models' answers
    beyond: str = ""  # what only an auditor can have, no attacker
    columns: bool = False  # whether it reads what the points look like, `Signals.columns`

    @property
    def key(self) -> str:
        """`attack` or `attack/classifier`, unique in its scenario."""
        return f"{self.name}/{self.classifier}" if self.classifier else self.name


def on_each(attack, **fixed) -> Callable[..., Result]:
    """The run of an attack that takes each model as an argument: attack(target) or attack(original, compressed)."""

    def run(models, *, seed, **ignored):
        return attack(*models, seed=seed, **fixed)

    return run


def on_average(attack, **fixed) -> Callable[..., Result]:
    """The run of an attack that takes a model as an argument: its answers are averaged where there are several."""

    def run(models, *, seed, **ignored):
        return attack(*map(averaged, models), seed=seed, **fixed)

    return run


def on_all(attack, **fixed) -> Callable[..., Result]:
    """The run of an attack that takes one list of models, as many as there are."""

    def run(models, *, seed, **ignored):
        return attack(given(models), seed=seed, **fixed)

    return run


def on_all_answers(attack, options: Sequence[str] = ()) -> Callable[..., Result]:
    """The same of an attack that also reads each model's averaged answers, where there are several.

    options: the names of those of `run`'s options that the attack takes beside the seed.
    """

    def run(models, *, seed, **given_options):
        taken = {name: given_options[name] for name in options if name in given_options}
        return attack(with_averages(given(models)), seed=seed, **taken)

    return run


def by_network(attack, prepare=lambda model: model, **fixed) -> Callable[..., Result]:
    """The run of an attack that trains a network on the signals of one model, as `prepare` makes them."""

    def run(models, *, seed, recipe="fast", device="cpu", progress=None, **ignored):
        return attack(*map(prepare, models), seed=seed, recipe=recipe, device=device, progress=progress, **fixed)

    return run


def by_network_on_all(attack) -> Callable[..., Result]:
    """The run of an attack that trains a network on one list of models, as many as there are."""

    def run(models, *, seed, recipe="fast", device="cpu", progress=None, **ignored):
        return attack(given(models), seed=seed, recipe=recipe, device=device, progress=progress)

    return run


def run_mr(models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None, **ignored) -> Result:
    original, *compressed = models
    options = {"recipe": recipe, "device": device, "progress": progress, "memberships": memberships}
    return mr(original, compressed, seed=seed, **options)


def given(models: Sequence[Signals | None]) -> list[Signals]:
    """The models without the None that stands for an original that the attacker does not have."""
    return [model for model in models if model is not None]


OURS = (
    Attack("joint", "", "", on_all_answers(joint), references=1, published=False),
    Attack("calibrated", "", "", on_all_answers(calibrated), references=1, published=False),
    Attack("neural", "", "", on_all_answers(neural, ("device",)), references=1, published=False),
    Attack("combined", "", "", on_all_answers(combined, ("device", "earlier")), references=1, published=False),
)


def label_only(published: bool) -> tuple[Attack, ...]:
    """The attacks that read labels alone, of one model as published or of several versions at once, which is ours.

    `boundary` cannot be the headline: it scores a sample of the points.
    """
    bits = {"probes": frozenset({"correct"}), "published": published, "reads": PREDICTED_AND_TRUE_LABELS}
    noise = {"probes": frozenset({"noise"}), "published": published, "reads": PREDICTED_AND_TRUE_LABELS}
    distance = {"probes": frozenset({"boundary"}), "published": published, "eligible": False}
    reads = {"hop_skip_jump": PREDICTED_AND_TRUE_LABELS, "carlini_wagner": WEIGHTS}
    return (
        *(
            Attack("label_only_augmentation", form, "", on_all(label_only_augmentation, classifier=form), **bits)
            for form in FORMS
        ),
        Attack("label_only_noise", "", "", on_all(label_only_noise), **noise),
        *(
            Attack("boundary", way, "", on_all(boundary, classifier=way), **distance, reads=reads[way])
            for way in COLUMNS
        ),
    )


NR = (
    *(
        Attack(attack.__name__, classifier, artifact_row, on_each(attack, classifier=classifier), reads=reads)
        for attack, artifact_row, reads in (
            (shokri2017, "CompLeakNR_train_based_method_1", POSTERIORS),
            (nasr2018, "CompLeakNR_train_based_method_2", POSTERIORS_AND_LABELS),
        )
        for classifier in CLASSIFIERS
    ),
    Attack("yeom2018", "", "CompLeakNR_metric_based_method_1", on_each(yeom2018)),
    Attack("entropy", "", "", on_each(entropy), reads=POSTERIORS),
    Attack("song2021", "", "CompLeakNR_metric_based_method_2", on_each(song2021)),
    Attack("samia", "", "CompLeakNR_SAMIA", by_network(samia), probes=frozenset({"sensitivity"}), eligible=False),
    Attack("rmia", "", "CompLeakNR_RMIA", on_average(rmia), references=1),
    Attack("gap", "", "", on_each(gap), reads=PREDICTED_AND_TRUE_LABELS),
    Attack("base", "", "", on_average(base), references=1),
    Attack("watson2022", "", "", on_average(watson2022), references=1),
    Attack("lira", "global_variance", "", on_average(lira, classifier="global_variance"), references=1),
    Attack("lira", "per_point_variance", "", on_average(lira, classifier="per_point_variance"), references=2),
    Attack("bavaria", "", "", on_average(bavaria), references=2),
    Attack("info_rmia", "", "", on_average(info_rmia), references=1),
    Attack("pmia_class", "", "", on_average(pmia_class), references=1),
    Attack("rapid", "", "", by_network(rapid, averaged), references=1),
    *label_only(published=True),
    *OURS,
)

SR = (
    *(
        Attack(name, classifier, "", on_each(sr, label=label, classifier=classifier), reads=reads)
        for name, label, reads in (("SR1", False, POSTERIORS), ("SR2", True, POSTERIORS_AND_LABELS))
        for classifier in CLASSIFIERS
    ),
    Attack("model_updates", "", "", on_each(model_updates)),
    *label_only(published=False),
    *OURS,
)

MR = (Attack("MR", "", "", run_mr, eligible=False), *label_only(published=False), *OURS)

READ_BY_STATISTIC = dict.fromkeys(STATISTICS, POSTERIORS_AND_LABELS) | {"top1_conf": POSTERIORS}

EXTRA = (  # attacks of NR that run where they are asked for by name: weaker than the usual rows, or slow
    Attack("nn", "", "", by_network(nn, features="posterior"), eligible=False, reads=POSTERIORS),
    Attack("nn_top3", "", "", by_network(nn, features="top3"), eligible=False, reads=POSTERIORS),
    Attack("nn_cls", "", "", by_network(nn, features="posterior_and_label"), eligible=False),
    *(
        Attack("threshold", name, "", on_each(threshold, classifier=name), reads=reads)
        for name, reads in READ_BY_STATISTIC.items()
    ),
    Attack("dsq", "", "", by_network(dsq), eligible=False),
    Attack("qmia", "", "", on_each(qmia), columns=True),
    *(
        Attack(
            "selena_adaptive",
            classifier,
            "",
            by_network(selena_adaptive, classifier=classifier),
            probes=frozenset({"split_ai"}),
            eligible=classifier in THRESHOLDS,
            reads=POSTERIORS if classifier in THRESHOLDS else POSTERIORS_AND_LABELS,
        )
        for classifier in (*THRESHOLDS, *NETWORKS)
    ),
)

# What could be known of one model at best, no attack: not among the rows that can be asked for by name.
UPPER_BOUND = Attack(
    "upper_bound",
    "",
    "",
    on_average(upper_bound),
    references=1,
    published=False,
    eligible=False,
    beyond="reference models that the auditor trained on the victim's own points",
)
EXTRA_MR = (Attack("seqmia_versions", "", "", by_network_on_all(seqmia_versions), eligible=False),)

USUAL = {"NR": NR, "SR": SR, "MR": MR}  # the rows of a scenario's table
KNOWN = {"NR": (*NR, *EXTRA), "SR": SR, "MR": (*MR, *EXTRA_MR)}  # the rows that can be asked for by name

TWO_REFERENCES = "two reference models for every audit point of the victim"
REFERENCES_IN_WORDS = {1: "reference model for every audit point", 2: TWO_REFERENCES}

PROBES_IN_WORDS = {
    "sensitivity": "posteriors of noisy copies",
    "correct": "labels of crops and flips",
    "noise": "labels of noisy copies",
    "boundary": "thousands of answers a point",
    "split_ai": "a Split-AI trained on half of all members",
}
MISSING_IN_WORDS = {"split_ai": "split_ai, which --attacker known_half makes for the models of a run"}
# What an attack may read in place of a probe: posteriors of crops and flips tell their labels.
SUBSTITUTES = {"correct": "augmented"}


def needs(attack: Attack, knowledge: str, references: str = "") -> str:
    """What the attacker of a row had to have, in words, such as `8 shadow models; posteriors and labels`.

    knowledge: whose membership the attack is fitted on. references: the reference models, in words, of an attack that
    reads them; "" where the models that it is fitted on are its references.
    """
    parts = [knowledge, attack.reads, *(PROBES_IN_WORDS[probe] for probe in sorted(attack.probes))]
    if attack.references and references:
        parts.append(references)
    if attack.beyond:
        parts.append(attack.beyond)
    if attack.columns:
        parts.append("what the points look like")
    return "; ".join(parts)


def missing(attack: Attack, models: Sequence[Signals | None]) -> list[str]:
    """What the attack needs and these signals lack, in words a user understands; [] when it can run."""
    lacks = []
    if not all(model.audit[1:].any() for model in given(models)):
        lacks.append("shadow models")
    elif attack.references and not all(has_references(model, attack.references) for model in given(models)):
        lacks.append(REFERENCES_IN_WORDS[attack.references])
    for probe in sorted(attack.probes):
        if not all(has_probe(model, probe) for model in given(models)):
            lacks.append(MISSING_IN_WORDS.get(probe, probe))
    if attack.columns and any(model.columns is None for model in given(models)):
        lacks.append("columns, what the points look like")
    return lacks


def has_probe(target: Signals, probe: str) -> bool:
    return probe in target.probes or SUBSTITUTES.get(probe) in target.probes


def has_references(target: Signals, wanted: int) -> bool:
    """Whether every audit point of the victim has as many references as wanted, and every shadow's at least one."""
    count = reference_count(known_outsiders(target))
    shadow, victim = audit_rows(target)
    return bool((count[victim] >= wanted).all() and (count[shadow] >= 1).all())
