"""Transformers for texts: BERT (Devlin et al. 2019) and GPT-2 (Radford et al. 2019), of the package transformers.

They are built from a small configuration and trained from scratch, or start from a folder of pretrained weights. What a
layer computes is the package's; this file gives all networks one form: token ids in, logits out, and every weight in a
linear layer or an embedding, which are the layers that compressions know.
"""

from pathlib import Path

from torch import Tensor, nn

from core.errors import UserError, one_line

from .foreign.hugging_face import TEXTS, check_no_code, import_transformers, quiet, read_json_object, weight_files
from .layers import scaled

LENGTH = 64  # tokens of a text; the tokenizer cuts or fills up all texts to it
PADDING = 0  # the token that fills texts up, of the tokenizers that are trained here
WIDTH, LAYERS, HEADS = 128, 2, 2
HEADS_OF = {"bert": "classifier", "gpt2": "score"}  # the layer that names the class, drawn anew for other classes


class TextClassifier(nn.Module):
    """A transformer with a classifier: token ids (N, LENGTH) int64 -> logits (N, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def inspects_batches(self) -> bool:
        """Whether the forward of the package asks what a whole batch holds, which torch.func cannot follow."""
        return self.network.config.model_type == "bert"

    @property
    def token_embedding(self) -> nn.Module:
        """The layer that turns tokens into vectors, whatever a compression has made of it."""
        return self.network.get_input_embeddings()

    def forward(self, ids: Tensor) -> Tensor:
        """Padding is masked, so that it changes no answer."""
        mask = (ids != self.network.config.pad_token_id).long()
        return self.network(input_ids=ids, attention_mask=mask).logits


def bert(vocabulary: int, num_classes: int, width: float = 1.0, pretrained: Path | None = None) -> TextClassifier:
    """An encoder, read at its first token. `vocabulary` is the number of tokens; `pretrained` holds other sizes."""
    hidden = scaled(WIDTH, width)
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": HEADS, "max_position_embeddings": LENGTH}
    return _build("bert", sizes, vocabulary, num_classes, pretrained)


def gpt2(vocabulary: int, num_classes: int, width: float = 1.0, pretrained: Path | None = None) -> TextClassifier:
    """A decoder, read at the last token that is no padding. Arguments as for `bert`."""
    sizes = {"n_embd": scaled(WIDTH, width), "n_layer": LAYERS, "n_head": HEADS, "n_positions": LENGTH}
    sizes |= {"bos_token_id": None, "eos_token_id": None}
    return _build("gpt2", sizes, vocabulary, num_classes, pretrained)


def _build(kind: str, sizes: dict, vocabulary: int, num_classes: int, pretrained: Path | None) -> TextClassifier:
    transformers = import_transformers(f"{kind} needs the package transformers", extra="text")
    if pretrained is not None:
        network = _load(kind, transformers, pretrained, vocabulary, num_classes)
    else:
        config = transformers.AutoConfig.for_model(
            kind, vocab_size=vocabulary, num_labels=num_classes, pad_token_id=PADDING, **sizes
        )
        network = _classifier(transformers).from_config(config, attn_implementation="eager")
    return TextClassifier(turn_into_linear(network, transformers.pytorch_utils.Conv1D).float())


def _classifier(transformers):
    return getattr(transformers, f"AutoModel{TEXTS}")


def turn_into_linear(network: nn.Module, conv1d: type[nn.Module]) -> nn.Module:
    """Replace, in place, every `Conv1D`, as GPT-2 has them, by the linear layer that computes the same.

    The weight of a `Conv1D` is transposed. Compressions then find one row for each output in every weight.
    """
    for name, layer in list(network.named_modules()):
        if isinstance(layer, conv1d):
            inputs, outputs = layer.weight.shape
            linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
            linear.weight = nn.Parameter(layer.weight.detach().t().contiguous())
            linear.bias = layer.bias
            network.set_submodule(name, linear)
    return network


# Pretrained weights


def check_pretrained(folder: Path, kind: str) -> None:
    """UserError where a folder holds no weights of this kind of network in safetensors, or asks for code."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with pretrained weights: check --pretrained")
    stated = read_json_object(folder / "config.json").get("model_type")
    if stated != kind:
        raise UserError(f"{folder} holds a network of type {stated}, not {kind}: choose another --pretrained folder")
    weight_files(folder)
    check_no_code(folder)


def _load(kind: str, transformers, folder: Path, vocabulary: int, num_classes: int) -> nn.Module:
    """The network in a folder with a classifier for these classes, drawn anew where the folder has another one."""
    check_pretrained(folder, kind)
    try:
        with quiet(transformers):
            network, loading = _classifier(transformers).from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation="eager",
                num_labels=num_classes,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged folder can fail in any way
        raise UserError(f"transformers cannot open {folder} ({one_line(error)})") from error
    drawn = {*map(str, loading["missing_keys"]), *(str(entry[0]) for entry in loading["mismatched_keys"])}
    if lost := sorted(name for name in drawn if not name.startswith((HEADS_OF[kind], f"{kind}.pooler"))):
        raise UserError(f"{folder} lacks the weights {lost[0]} ({len(lost)} in all): save the whole network again")
    _check_fits(folder, network.config, vocabulary)
    network.config.pad_token_id = padding_of(folder)
    return network


def padding_of(folder: Path) -> int:
    """The token that fills texts up: as config.json says, or the one at the end of texts where it says nothing."""
    config = read_json_object(folder / "config.json")
    for key in ("pad_token_id", "eos_token_id"):
        if isinstance(config.get(key), int):
            return config[key]
    raise UserError(f"{folder / 'config.json'} does not say which token fills texts up: set pad_token_id in it")


def _check_fits(folder: Path, config, vocabulary: int) -> None:
    """UserError where the network has no place for so many tokens or such long texts."""
    if vocabulary > config.vocab_size:
        raise UserError(f"{folder}: the tokenizer has {vocabulary} tokens, the network {config.vocab_size}")
    if config.max_position_embeddings < LENGTH:
        raise UserError(f"{folder}: the network reads {config.max_position_embeddings} tokens, {LENGTH} are needed")
