"""Folders as Hugging Face's transformers saves them, with safetensors; nothing is looked up on the network."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from core.errors import UserError, one_line

from .answers import Inputs, answer_function, choose_tensor, to_array
from .spec import ForeignModel, ModelSpec

IMAGES = "ForImageClassification"
TEXTS = "ForSequenceClassification"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
OF_PLACES = ("position", "pos_embed", "attention_bias")  # in names of tensors that have an entry for each place


def open_hugging_face(spec: ModelSpec) -> ForeignModel:
    """Open a folder with config.json and safetensors of an image or sequence classifier.

    UserError if transformers is missing, if the folder needs code or pickled weights, if weights are missing, or if
    the model is of another kind.
    """
    folder = spec.file
    config = read_json_object(folder / "config.json")
    kind = _kind(folder, config)
    weights = weight_files(folder)
    check_no_code(folder)
    transformers = import_transformers("Hugging Face folders need the package transformers", extra="huggingface")
    model = _load(folder, transformers, kind)
    tokenizer = _tokenizer(folder, transformers) if kind == TEXTS else None
    takes = _image_inputs(model) if kind == IMAGES else Inputs((None,), "int64")
    ask = _image_answers(spec, model) if kind == IMAGES else _text_answers(spec, model, tokenizer)
    return ForeignModel(
        description=f"Hugging Face {type(model).__name__}, {_numbers(model)}",
        files=(folder / "config.json", *weights, *_tokenizer_files(folder, kind)),
        answer=answer_function(str(folder), takes, ask),
        input_shape=takes.shape,
        input_dtype=takes.dtype,
        fixed_batch=None,
        class_names=_class_names(model.config),
        preprocessing=None,
        tokenize=_tokenize(folder, model, tokenizer) if tokenizer is not None else None,
        runs_code=False,
        weights=weights,
    )


def import_transformers(need: str, extra: str):
    """The package, which asks no server for anything. UserError that states the need where it is not installed.

    extra: of this project, with which it is installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported; `local_files_only` says it again
    try:
        import transformers
    except ImportError as error:
        raise UserError(f'{need}: pip install ".[{extra}]"') from error
    return transformers


def read_json_object(file: Path) -> dict:
    """The object in a JSON file that came with a model. UserError if it is missing or damaged."""
    if not file.is_file():
        raise UserError(f"there is no file {file}: save the model again")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({one_line(error)}): save the model again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged (no JSON object): save the model again")
    return content


def _kind(folder: Path, config: dict) -> str:
    """IMAGES or TEXTS. UserError for another architecture."""
    architectures = config.get("architectures") or []
    kinds = [kind for kind in (IMAGES, TEXTS) for name in architectures if str(name).endswith(kind)]
    if len(architectures) != 1 or not kinds:
        listed = ", ".join(map(str, architectures)) or "none"
        raise UserError(
            f"{folder} holds a model of the architecture {listed}: only classifiers of images or texts "
            f"(...{IMAGES}, ...{TEXTS}) can be audited"
        )
    return kinds[0]


def check_no_code(folder: Path) -> None:
    """UserError if a configuration asks for code from the folder or from the network."""
    for file in sorted(folder.glob("*config.json")):
        for key, value in _entries(read_json_object(file)):
            if key == "auto_map":
                raise UserError(f"{file} asks for the model's own code (auto_map), which is not run: export it to ONNX")
            if key.endswith("attn_implementation") and "/" in str(value):
                raise UserError(f"{file} asks for code from the network ({value}): delete {key} from it")
    if (folder / ADAPTER).exists():
        raise UserError(f"{folder} holds an adapter: merge it into its model and save that with save_pretrained")


def _entries(content: object) -> Iterator[tuple[str, object]]:
    """All keys with their values, anywhere inside a JSON content."""
    waiting = [content]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield from current.items()
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files with the weights, and their index. UserError if they are no safetensors, or lie elsewhere."""
    index = folder / INDEX
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if not index.is_file():
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        reason = (
            f"only pickled weights ({', '.join(pickled)}), which can run code" if pickled else "no model.safetensors"
        )
        raise UserError(f"{folder} holds {reason}: save it as safetensors with model.save_pretrained(FOLDER)")
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index} is damaged (it names no weights): save the model again")
    shards = sorted(set(map(str, places.values())))
    for name in shards:
        if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise UserError(f"{index} names the weights {name!r}, which do not lie in the folder: save the model again")
    return (index, *(folder / name for name in shards))


def _load(folder: Path, transformers, kind: str):
    """The model, whose weights all come from the files. UserError if it cannot be loaded or a weight is missing."""
    loader = getattr(transformers, f"AutoModel{kind}")
    try:
        with quiet(transformers):
            model, loading = loader.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                torch_dtype="auto",
                attn_implementation="eager",
                output_loading_info=True,
            )
    except Exception as error:
        raise UserError(f"transformers cannot open {folder} ({one_line(error)})") from error
    absent = sorted(map(str, {*loading["missing_keys"], *loading["mismatched_keys"]}))
    if absent:
        raise UserError(
            f"{folder} lacks the weights {absent[0]} ({len(absent)} in all): save the whole classifier again"
        )
    return model.cpu().eval()


@contextlib.contextmanager
def quiet(transformers) -> Iterator[None]:
    """Keep the library's progress bars and remarks off the screen inside this block."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    shows_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows_bars:
            logging.enable_progress_bar()


def _image_inputs(model) -> Inputs:
    """Images (channels, height, width), with the size that the model fixes, if it does.

    Convolutional networks state the size that they were trained at as well, but take any.
    """
    size = getattr(model.config, "image_size", None) if _has_places(model) else None
    sizes = tuple(size) if isinstance(size, list | tuple) else (size, size)
    channels = getattr(model.config, "num_channels", None)
    return Inputs((channels, *sizes), "float32")


def _has_places(model) -> bool:
    """Whether the model learns something about each place of an image, and so takes images of one size."""
    return any(part in name for name in model.state_dict() for part in OF_PLACES)


def _image_answers(spec: ModelSpec, model) -> Callable[[np.ndarray], np.ndarray]:
    def ask(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            outputs = model(pixel_values=torch.tensor(images, dtype=model.dtype))
        return to_array(choose_tensor(spec.file, outputs, spec.output or "logits"))

    return ask


def _text_answers(spec: ModelSpec, model, tokenizer) -> Callable[[np.ndarray], np.ndarray]:
    """Token ids (B, L) -> logits. Ids that only fill a row up are masked, which is why the padding id must be known."""
    padding = _padding_id(spec.file, model, tokenizer)

    def ask(ids: np.ndarray) -> np.ndarray:
        tokens = torch.tensor(ids)
        with torch.no_grad():
            outputs = model(input_ids=tokens, attention_mask=(tokens != padding).long())
        return to_array(choose_tensor(spec.file, outputs, spec.output or "logits"))

    return ask


def _padding_id(folder: Path, model, tokenizer) -> int:
    ids = (getattr(model.config, "pad_token_id", None), getattr(tokenizer, "pad_token_id", None))
    known = [number for number in ids if number is not None]
    if not known:
        raise UserError(f"{folder} does not say which token fills rows up: set pad_token_id in its config.json")
    return known[0]


def _tokenizer(folder: Path, transformers):
    """The folder's tokenizer; None if it has none. UserError if it cannot be opened."""
    if not _tokenizer_files(folder, TEXTS):
        return None
    try:
        with quiet(transformers):
            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"transformers cannot open the tokenizer in {folder} ({one_line(error)})") from error


def _tokenizer_files(folder: Path, kind: str) -> tuple[Path, ...]:
    return tuple(folder / name for name in TOKENIZER_FILES if kind == TEXTS and (folder / name).is_file())


def _tokenize(folder: Path, model, tokenizer) -> Callable[[list[str]], np.ndarray]:
    """Make `tokenize`: texts -> token ids (B, L) int64, cut to what the model takes and filled up to the longest."""
    padding = _padding_id(folder, model, tokenizer)
    limits = [_positions(model), tokenizer.model_max_length]
    longest = min(limit for limit in limits if limit)

    def tokenize(texts: list[str]) -> np.ndarray:
        rows = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        ids = np.full((len(rows), max(map(len, rows), default=0)), padding, dtype=np.int64)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        return ids

    return tokenize


def _positions(model) -> int | None:
    """The largest number of tokens for which the model has positions; None where it does not say so.

    RoBERTa and its descendants leave out the positions up to the padding id, and give its place an embedding that is
    not trained.
    """
    count = getattr(model.config, "max_position_embeddings", None)
    embeddings = [part for name, part in model.named_modules() if name.endswith("position_embeddings")]
    left_out = [part.padding_idx + 1 for part in embeddings if getattr(part, "padding_idx", None) is not None]
    return count and count - max(left_out, default=0)


def _class_names(config) -> tuple[str, ...] | None:
    """The configuration's names of the classes in order; None where it only numbers them (LABEL_0, LABEL_1, ...)."""
    names = {int(number): str(name) for number, name in (config.id2label or {}).items()}
    if not names or all(name == f"LABEL_{number}" for number, name in names.items()):
        return None
    return tuple(names[number] for number in sorted(names))


def _numbers(model) -> str:
    """The number of parameters and their type, for people."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count:,} parameters, {str(model.dtype).removeprefix('torch.')}"
