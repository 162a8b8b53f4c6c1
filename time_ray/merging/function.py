"""Techniques that are one plain function of tensors."""

import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from inspect import Parameter as Argument
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args, get_origin, get_type_hints, overload

from time_ray.merging.declaration import Claim, Technique, holds
from time_ray.merging.errors import MergeError, collecting, origin_of
from time_ray.merging.parameters import Parameter, choice, flag, fraction, number, whole

if TYPE_CHECKING:
    from time_ray.merging.rule import Rule

Function = Callable[..., Any]
"""(base, experts, *, parameters) -> merged tensor."""


class Declared(TypedDict, total=False):
    """What a function's technique says of itself: the fields of `Technique`."""

    name: str
    paper: str
    version: int | str
    elementwise: Claim
    symmetric: Claim
    faithful: Claim
    alone: bool
    random: bool
    needs_agreement: Claim
    examples: Sequence[Mapping[str, Any]]


@overload
def technique(function: Function, /) -> Technique: ...


@overload
def technique(**declared: Unpack[Declared]) -> Callable[[Function], Technique]: ...


def technique(
    function: Function | None = None, /, **declared: Unpack[Declared]
) -> Technique | Callable[[Function], Technique]:
    """Decorates a function `(base, experts, *, parameters) -> tensor` that merges one tensor: it becomes a technique.

    The function is called for every tensor that is not empty, with float32 tensors in their shapes (float64 where the
    model is float64); `experts` is a list, oldest first. It returns a tensor like `base` and changes none in place. It
    may be called by several threads at once. The first line of its documentation is the rule in words.

    Its parameters are the arguments behind the `*`. Each has a default: a bool, an int, a float, None or a word (with
    the annotation `float | None`, or `Literal` of all words), or a `Parameter` with its bounds (see `parameters`). Two
    names are special: `weight` is the newer model's share in a merge of two, and its default in other merges; `tensor`
    is no parameter, but gives the function a `TensorContext`: the tensor's name, the experts' ids, and random masks.

    Args:
        function: The function, where nothing is declared.
        declared: Fields of `Technique`: `name` (default: the function's), `paper`, `elementwise` (the function is
            called with flat pieces of tensors), `symmetric` (default: True), `faithful`, `alone`, `random`,
            `needs_agreement`, `examples`. `version` is part of content keys. Its default is a digest of the source of
            the whole module that defines the function, since any function or constant there may be part of it. So a
            change of a comment also changes keys; a change of other modules that it imports does not.

    Raises:
        MergeError: The function is none of a technique; every fault is a line.

    """
    return partial(technique_of, **declared) if function is None else technique_of(function, **declared)


def technique_of(function: Function, **declared: Unpack[Declared]) -> Technique:
    """The technique that calls this function."""
    arguments = keyword_arguments(function)
    parameters = parameters_of(function, arguments)
    elementwise = declared.get("elementwise", False)

    def build(filled: Mapping[str, Any], _: Sequence[str]) -> "Rule":
        from time_ray.merging.function_rule import FunctionRule

        given = dict(filled)
        if filled.get("weight", 0) is None:
            given["weight"] = default_of(arguments["weight"])
        return FunctionRule(
            function,
            given,
            elementwise=holds(elementwise, filled),
            asks_for_tensor="tensor" in arguments,
            pair_only=filled.get("weight") is not None,
        )

    if "version" not in declared:
        declared["version"] = source_version(function)
    made = Technique(
        name=declared.get("name", function.__name__),
        rule=(inspect.getdoc(function) or "").partition("\n")[0],
        parameters=parameters,
        build=build,
        takes_weight="weight" in parameters,
    )
    return replace(made, **declared)


def keyword_arguments(function: Function) -> dict[str, Argument]:
    """The arguments behind the `*` by name; MergeError if the function cannot be called as a technique is."""
    arguments = inspect.signature(function).parameters
    kinds = [argument.kind for argument in arguments.values()]
    positional = (Argument.POSITIONAL_ONLY, Argument.POSITIONAL_OR_KEYWORD)
    if [kind in positional for kind in kinds[:3]].count(True) != 2 or not set(kinds[2:]) <= {Argument.KEYWORD_ONLY}:
        found = f"{function.__name__}{inspect.signature(function)}"
        raise MergeError(f"{origin_of(function)}: {found} is no technique; write it as (base, experts, *, parameters)")
    return {name: argument for name, argument in arguments.items() if argument.kind is Argument.KEYWORD_ONLY}


def parameters_of(function: Function, arguments: Mapping[str, Argument]) -> dict[str, Parameter]:
    """The parameters of a technique from the arguments of its function; MergeError lists every fault."""
    found, faults = dict[str, Parameter](), list[str]()
    for name, argument in arguments.items():
        with collecting(faults):
            if name != "tensor":
                found[name] = parameter_of(function, argument)
                found[name].read(name, default_of(argument))
    if {"weight", "weights"} <= arguments.keys():
        faults.append("weights: in a pair the weight is all that counts; give it another name")
    MergeError.unless_none(f"{origin_of(function)}: {function.__name__}: {fault}" for fault in faults)
    return found


def parameter_of(function: Function, argument: Argument) -> Parameter:
    """The parameter that an argument describes; MergeError if it says too little."""
    name, default = argument.name, argument.default
    if name == "weight":
        return fraction(None, null="the function's default")
    if isinstance(default, Parameter):
        return default
    kind, null = kind_of(function, argument)
    if get_origin(kind) is Literal and not null:
        return choice(default, *get_args(kind))
    if kind is bool and not null:
        return flag(default=default)
    if kind is int:
        return whole(default, null=null)
    if kind is float:
        return number(default, null=null)
    shown = "missing" if default is Argument.empty else repr(default)
    raise MergeError(f"{name}: its default is {shown}; give a bool, int, float, word of a Literal or Parameter")


def kind_of(function: Function, argument: Argument) -> tuple[object, str]:
    """The type of an argument, from its annotation or else its default; and what None means, if it may be None."""
    name, kind = argument.name, argument.annotation
    if kind is Argument.empty:
        return type(argument.default), ""
    try:
        annotated = SimpleNamespace(__annotations__={name: kind})
        kind = get_type_hints(annotated, globalns=inspect.unwrap(function).__globals__)[name]
    except NameError as error:
        raise MergeError(f"{name}: its annotation cannot be read ({error}); give a Parameter") from error
    kinds = [one for one in get_args(kind) if one is not NoneType]
    return (kinds[0], "the function's own choice") if isinstance(kind, UnionType) and len(kinds) == 1 else (kind, "")


def default_of(argument: Argument) -> Any:
    """The value of an argument that is not given."""
    return argument.default.default if isinstance(argument.default, Parameter) else argument.default


def source_version(function: Function) -> str:
    """The digest of the source of the module that defines a function; MergeError if there is none to read."""
    whole_function = inspect.unwrap(function)
    path = whole_function.__code__.co_filename
    linecache.checkcache(path)
    lines = linecache.getlines(path, whole_function.__globals__)
    if not lines:
        raise MergeError(f"{origin_of(function)}: {function.__name__}: its source cannot be read; declare a version")
    return f"source:{sha256(''.join(lines).encode()).hexdigest()[:12]}"
