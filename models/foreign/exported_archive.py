"""A .pt2 file without everything in it that could run code.

`torch.export.load` unpickles sample inputs, tensor subclasses and custom objects without restriction, opens compiled
libraries, calls any function of PyTorch that the graph names, evaluates the text of symbolic sizes, and turns names and
guards into Python code. So it never sees a file as it came. `reduced_archive` reads the file's members without
unpickling any, and writes a new archive that holds nothing but raw tensors and a graph of which every text is checked.

What goes in: the graph, the raw values of weights and constants, their names, types and shapes. What is left out,
because answers do not depend on it: sample inputs, guards, notes on the source code, extra files. What is refused:
pickled weights and constants, custom objects, compiled code, operators other than PyTorch's own, and names, sizes or
tree structures that are anything else. Devices become the processor. PyTorch's operators themselves are trusted to
check their arguments.
"""

import ast
import io
import json
import keyword
import re
import zipfile
from pathlib import Path

import torch

from core.errors import UserError, one_line

WAY_OUT = "export the model again with torch.export.save, or as ONNX"
WEIGHT_TABLE = "model_weights_config.json"
CONSTANT_TABLE = "model_constants_config.json"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
DOTTED = re.compile(r"[A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
LOOKUP = re.compile(r"[A-Za-z0-9_ .,*+()/-]*")  # keys of tables, which may be sizes such as "2*s77"
ARGUMENT_TEXT = re.compile(r"[A-Za-z0-9_ .,>-]*")
VERSION = re.compile(r"[A-Za-z0-9_.+-]*")
MEMBER = re.compile(r"(weight|tensor)_[0-9]+")
OPERATOR = re.compile(r"torch\.ops\.(aten|prims|quantized_decomposed)\.(?!__)(\w+)\.(\w+)", re.ASCII)
LOGICAL = re.compile(r"torch\.ops\.(aten)\.(__i?(?:and|or|xor|lshift|rshift)__)\.(\w+)")
SIZE_FUNCTION = re.compile(r"torch\.(_?sym_[a-z]+)|math\.(ceil|floor|trunc|sqrt)")
SIZE_OPERATOR = re.compile(r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem)")
BLOCKS = ("torch.ops.higher_order.wrap_with_set_grad_enabled",)
FILE_OPERATORS = ("from_file", "save")  # they read and write files
TEXT_ARGUMENTS = ("approximate", "rounding_mode", "mode", "equation", "side", "indexing", "reduce", "ord", "driver")
TREE_TYPES = ("builtins.tuple", "builtins.list", "builtins.dict", None)
SPECIAL_FLOATS = ("Infinity", "-Infinity", "NaN")
EMPTIED = {"metadata": {}, "guards_code": [], "treespec_namedtuple_fields": {}}
PROCESSOR = {"type": "cpu", "index": None}
SIZE_FUNCTIONS = (
    *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "And", "Or", "Not"),
    *("Equality", "Eq", "Unequality", "Ne", "StrictLessThan", "Lt", "LessThan", "Le", "StrictGreaterThan", "Gt"),
    *("GreaterThan", "Ge", "floor", "ceiling", "Piecewise", "ExprCondPair", "FloorDiv", "ModularIndexing", "Where"),
    *("PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "PowByNatural", "FloatTrueDiv", "IntTrueDiv"),
    *("TruncToInt", "RoundToInt", "ToFloat", "Identity"),
)


def reduced_archive(file: Path) -> io.BytesIO:
    """A new archive with the file's graph and raw tensors alone. UserError if they cannot be had without a risk."""
    try:
        return _write(_reduced_members(file, _members(file)))
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        raise UserError(f"{file} is damaged (its tables have another form): {WAY_OUT}") from error


def _reduced_members(file: Path, members: dict[str, bytes]) -> dict[str, bytes]:
    """The members of the new archive, each of them copied as it is only if it holds nothing but raw numbers."""
    program = _json(file, members, "models/model.json")
    keep = {name: members[name] for name in ("archive_format", "archive_version", "byteorder") if name in members}
    keep |= {".data/version": members.get(".data/version", b"3\n"), "data/sample_inputs/model.pt": b""}
    for folder, table in (("weights", WEIGHT_TABLE), ("constants", CONSTANT_TABLE)):
        config = f"data/{folder}/{table}"
        entries = _json(file, members, config)
        keep[config] = _dump(_Reducer(file).reduce(entries))
        keep |= {f"data/{folder}/{name}": members[f"data/{folder}/{name}"] for name in _raw(file, folder, entries)}
    return keep | {"models/model.json": _dump(_Reducer(file).reduce(program))}


def _members(file: Path) -> dict[str, bytes]:
    """The contents of the archive's members by name below its root. UserError if it is no archive of this kind."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(file, entries)
            return {entry.filename.split("/", 1)[1]: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{file} is damaged or no .pt2 file ({one_line(error)}): {WAY_OUT}") from error


def _check_entries(file: Path, entries: list[zipfile.ZipInfo]) -> None:
    """UserError if the archive is of another kind, holds compiled code, or is packed so that it could swell."""
    names = [entry.filename for entry in entries]
    inside = {name.split("/", 1)[-1] for name in names}
    has_program = "models/model.json" in inside
    if "serialized_exported_program.json" in inside or (has_program and f"data/weights/{WEIGHT_TABLE}" not in inside):
        raise UserError(
            f"{file} has the form that torch.export.save of an older torch writes, whose weights are pickled: "
            f"nothing was loaded; with a newer torch, {WAY_OUT}"
        )
    if not has_program:
        raise UserError(f"{file} holds no exported program named `model`: {WAY_OUT}")
    if any(name.startswith(("data/aotinductor/", "data/executorch/")) for name in inside):
        raise UserError(f"{file} holds compiled code, which is not run: {WAY_OUT}")
    if len({name.split("/")[0] for name in names}) > 1 or len(set(names)) < len(names):
        raise UserError(f"{file} is damaged (members outside its root, or twice): {WAY_OUT}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{file} is packed, which torch.export.save never does: {WAY_OUT}")


def _json(file: Path, members: dict[str, bytes], name: str) -> dict:
    try:
        content = json.loads(members[name])
        if not isinstance(content, dict):
            raise ValueError(f"{name} holds no object")
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({name} cannot be read): {WAY_OUT}") from error
    return content


def _dump(content: object) -> bytes:
    return json.dumps(content).encode("utf-8")


def _raw(file: Path, folder: str, config: dict) -> set[str]:
    """The members of a folder that hold raw tensors, as its table lists them. UserError if any is something else."""
    names = set()
    for name, entry in config.get("config", {}).items():
        member = str(entry.get("path_name"))
        if entry.get("use_pickle") is not False or not MEMBER.fullmatch(member):
            raise UserError(
                f"{file} holds {name!r} ({folder}) as a pickled Python object, which could run code: nothing was "
                f"loaded; turn it into a plain tensor before the export, or {WAY_OUT.split(', or ')[1]}"
            )
        names.add(member)
    return names


def _write(members: dict[str, bytes]) -> io.BytesIO:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(f"model/{name}", content)
    archive.seek(0)
    return archive


class _Reducer:
    """Copies an exported program's content; every text in it must be of the kind that its place asks for."""

    def __init__(self, file: Path):
        self.file = file

    def reduce(self, value: object, key: str = "", argument: str = ""):
        """The value without what is left out. `key`: under which it stands; `argument`: the operator's, around it."""
        if key in EMPTIED:
            return EMPTIED[key]
        if key in ("device", "as_device"):
            return PROCESSOR
        if isinstance(value, dict):
            argument = str(value["name"]) if "arg" in value and "name" in value else argument
            return {self.check_key(name): self.reduce(part, name, argument) for name, part in value.items()}
        if isinstance(value, list):
            return [self.reduce(part, key, argument) for part in value]
        if isinstance(value, str):
            self.check_text(value, key, argument)
        return value

    def check_key(self, name: str) -> str:
        if not LOOKUP.fullmatch(name):
            self.refuse(name)
        return name

    def check_text(self, text: str, key: str, argument: str) -> None:
        """UserError unless the text is what stands under this key in a file that torch.export.save wrote."""
        checks = {
            "target": _is_operator,
            "expr_str": _is_size,
            "in_spec": _is_tree,
            "out_spec": _is_tree,
            "name": lambda name: name == "" or _is_name(name),
            "as_name": _is_name,
            "forward_arg_names": _is_name,
            "as_float": SPECIAL_FLOATS.__contains__,
            "as_floats": SPECIAL_FLOATS.__contains__,
            "as_string": lambda value: argument in TEXT_ARGUMENTS and ARGUMENT_TEXT.fullmatch(value),
            "as_strings": lambda value: False,
            "as_operator": lambda value: False,
            "torch_version": VERSION.fullmatch,
        }
        check = checks.get(key, _is_dotted_name)
        if check is _is_tree and not check(text):
            raise UserError(
                f"{self.file} packs its inputs or outputs in other types than tuples, lists and dicts: export a module "
                "whose forward takes one tensor and returns one"
            )
        if not check(text):
            self.refuse(text)

    def refuse(self, text: str):
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise UserError(
            f"{self.file} asks for {shown!r}, which is none of PyTorch's own operators, names or sizes and could run "
            f"code: nothing was loaded; {WAY_OUT}"
        )


def _is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None and not keyword.iskeyword(text) and not text.startswith("__")


def _is_dotted_name(text: str) -> bool:
    return DOTTED.fullmatch(text) is not None and not any(part.startswith("__") for part in text.split("."))


def _is_operator(text: str) -> bool:
    """Whether the text names an operator of PyTorch on tensors, or arithmetic on sizes."""
    if text in BLOCKS or SIZE_FUNCTION.fullmatch(text) or SIZE_OPERATOR.fullmatch(text):
        return True
    match = OPERATOR.fullmatch(text) or LOGICAL.fullmatch(text)
    if not match or match[2] in FILE_OPERATORS:
        return False
    if match[1] == "quantized_decomposed":
        register_quantized_operators()
    operator = getattr(getattr(getattr(torch.ops, match[1]), match[2], None), match[3], None)
    return isinstance(operator, torch._ops.OpOverload)


def register_quantized_operators() -> None:
    """Importing this module is what makes PyTorch know the operators of quantized programs."""
    import importlib

    importlib.import_module("torch.ao.quantization.fx._decomposed")


def _is_size(text: str) -> bool:
    """Whether the text is a symbolic size, such as "Mul(Integer(2), Symbol('s77', integer=True))", and nothing else."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _is_size_node(tree.body)


def _is_size_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        is_known = isinstance(node.func, ast.Name) and node.func.id in SIZE_FUNCTIONS
        options = all(keyword.arg and isinstance(keyword.value, ast.Constant) for keyword in node.keywords)
        return is_known and options and all(_is_size_node(part) for part in node.args)
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or VERSION.fullmatch(node.value) is not None
    if isinstance(node, ast.BinOp):
        return _is_size_node(node.left) and _is_size_node(node.right)
    if isinstance(node, ast.UnaryOp):
        return _is_size_node(node.operand)
    return isinstance(node, ast.Name) and re.fullmatch(r"[a-z]+[0-9]+|true|false|oo|int_oo", node.id) is not None


def _is_tree(text: str) -> bool:
    """Whether the text describes nested tuples, lists and dicts, as which arguments and outputs are packed."""
    try:
        version, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False
    return version == 1 and _is_tree_node(tree)


def _is_tree_node(node: object) -> bool:
    if not isinstance(node, dict) or node.get("type") not in TREE_TYPES:
        return False
    context = node.get("context")
    try:
        keys = json.loads(context) if isinstance(context, str) else context
    except ValueError:
        return False
    names = keys if isinstance(keys, list) else []
    is_plain = keys is None or isinstance(keys, list)
    is_named = all(isinstance(name, int) or (isinstance(name, str) and _is_name(name)) for name in names)
    return is_plain and is_named and all(map(_is_tree_node, node.get("children_spec", [])))
