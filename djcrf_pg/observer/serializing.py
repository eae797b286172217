"""Bodies of events: a serializer made for each, or one for a whole batch where it can remember nothing.

REST framework copies a serializer's fields each time that one is made, which is most of what a body costs. So one
serializer does all instances of a batch, if it is proven that none of its state depends on an instance. What is proven
is narrow: every class of its tree is REST framework's own, or has nothing but ``Meta``, declared fields, data,
validation, and methods that use nothing of the serializer but each other. A method that stores something on ``self``,
or reads what another may have stored there, ends the proof, and so does whatever is not known: ``__init__``,
``get_fields``, properties, metaclasses, defaults that can change. Then each event has a serializer of its own, as in a
view.
"""

import ast
import dis
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import pairwise
from types import FunctionType
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from rest_framework.fields import Field, SerializerMethodField
from rest_framework.serializers import BaseSerializer, ModelSerializer, SerializerMetaclass

from djcrf_pg.observer.paths import source_of
from djcrf_pg.observer.straight import straight
from djcrf_pg.registry import BATCH

SerializerClass = type[BaseSerializer[Any]]

#: What Python puts into a class by itself, and what nobody calls for a body.
_PYTHONS = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate_func__"),
    *("__annotate__", "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__orig_bases__"),
    *("__parameters__", "__hash__", "__repr__", "__str__", "__classcell__"),
}
_VALIDATION = {"validate", "run_validation", "run_validators", "to_internal_value", "create", "update", "save"}

#: What REST framework calls for each instance, with the value, and not when the serializer is made.
_PER_INSTANCE = {"to_representation", "get_attribute"}

#: Names by which code reaches a method's variables without naming them, or a serializer from its methods.
_SEE_ALL = {"locals", "vars", "eval", "exec", "__self__"}

#: Defaults of fields that have no state. Objects are copied with their field, functions and classes are not.
_PLAIN = (str, bytes, int, float, Decimal, date, time, timedelta, UUID, type(None), FunctionType, type)

_reusable: "WeakKeyDictionary[SerializerClass, bool]" = WeakKeyDictionary()


def context() -> dict[str, Any]:
    """What a view would give its serializers, as far as it exists in a listener: there is no request.

    ``"request": None`` makes the links of hyperlinked fields relative (REST framework's ``reverse()``).
    """
    return {"request": None, "format": None, "view": None}


def represent(serializer_class: SerializerClass, instance: Model, reuse: bool | None = None) -> Any:
    """The body that a serializer class makes of an instance.

    Args:
        serializer_class: The class.
        instance: The instance.
        reuse: Whether one serializer may do all instances of a batch; None for where :func:`is_reusable` says so.
    """
    batch = BATCH.get()
    if batch is None or reuse is False:
        return serializer_class(instance, context=context()).data
    # Another observer may have the same class, and take a risk with it that this one does not.
    found = batch.get((serializer_class, reuse))
    if found is None:
        if not (reuse or is_reusable(serializer_class)):
            return serializer_class(instance, context=context()).data
        serializer = serializer_class(context=context())
        found = batch[serializer_class, reuse] = serializer, straight(serializer)
    serializer, make = found
    serializer.instance = instance
    return make(instance)


def is_reusable(serializer_class: SerializerClass) -> bool:
    """Whether it is proven that one serializer of a class can do many instances."""
    if serializer_class not in _reusable:
        _reusable[serializer_class] = _is_proven(serializer_class)
    return _reusable[serializer_class]


def _is_proven(serializer_class: SerializerClass) -> bool:
    try:
        parts = list(_parts(serializer_class(context=context())))
    except Exception:
        # What is wrong with it, the event tells.
        return False
    return all(
        _is_stateless(part)
        and isinstance(part.default, _PLAIN)
        and (not isinstance(part, SerializerMethodField) or _is_given(part.parent, part.method_name or "", set()))
        for part in parts
    )


def _parts(field: Any) -> Iterator["Field[Any, Any, Any, Any]"]:
    """A field, or a serializer, and what is in it."""
    yield field
    inner = [getattr(field, name, None) for name in ("child", "child_relation", "pk_field")]
    for part in [*getattr(field, "fields", {}).values(), *(part for part in inner if part is not None)]:
        yield from _parts(part)


def _is_stateless(part: Any) -> bool:
    """Whether the classes that a serializer or a field is made of have nothing that could remember."""
    cls = type(part)
    if type(cls) not in (SerializerMetaclass, type):
        return False
    return all(
        _is_their_own(base) or all(_is_harmless(part, name, value) for name, value in vars(base).items())
        for base in cls.__mro__
    )


def _is_their_own(cls: type) -> bool:
    """Whether a class is REST framework's or Python's: by its module, where it must be found, with its own functions.

    One that ``type()`` makes of a serializer says that it is of the module of its metaclass.
    """
    if not _is_their_module(cls.__module__):
        return False
    if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is not cls:
        return False
    functions = (value.fget if isinstance(value, property) else value for value in vars(cls).values())
    # Somebody may have put in another one, with the names of the first.
    return all(
        _is_their_module(function.__globals__["__name__"])
        for function in functions
        if isinstance(function, FunctionType)
    )


def _is_their_module(name: str) -> bool:
    return name.partition(".")[0] in ("rest_framework", "builtins", "typing")


def _is_harmless(part: Any, name: str, value: Any) -> bool:
    if name in _PYTHONS or name in _VALIDATION or name.startswith("validate_"):
        return True
    if name in _PER_INSTANCE or (name.startswith("get_") and not hasattr(ModelSerializer, name)):
        return _uses_nothing(part, value, set())
    # Data is the same for a serializer made afresh. A class is data too: Meta above all.
    return isinstance(value, type) or not (callable(value) or hasattr(type(value), "__get__"))


def _uses_nothing(part: Any, method: Any, seen: set[Any]) -> bool:
    """Whether a method uses nothing of its serializer but data of the class, and methods of which the same is true."""
    if isinstance(method, staticmethod):
        return True
    if not isinstance(method, FunctionType) or not method.__code__.co_argcount:
        return False
    if method in seen:
        return True
    seen.add(method)
    code = method.__code__
    me = code.co_varnames[0]
    if me in code.co_cellvars or not _SEE_ALL.isdisjoint(code.co_names):
        return False
    instructions = list(dis.get_instructions(method))
    if not {"super", "__class__"}.isdisjoint((*code.co_names, *code.co_freevars)) and not _asks_the_next(instructions):
        return False
    for instruction, following in pairwise(instructions):
        if not _names(instruction.argval, me) or instruction.opname == "LOAD_CONST":
            continue
        plain = instruction.argval == me and instruction.opname.startswith("LOAD_FAST")
        if plain and following.opname == "LOAD_SUPER_ATTR":
            continue
        if not plain or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return False
        if not _is_given(part, following.argval, seen):
            return False
    return True


def _asks_the_next(instructions: Sequence[dis.Instruction]) -> bool:
    """Whether a method has ``super()`` for nothing but what is called for each instance; the next one is looked at too.

    Since Python 3.12 ``super().name`` is one instruction, after the class and the instance; before, neither is named.
    """
    for number, instruction in enumerate(instructions):
        if instruction.argval not in ("super", "__class__") or instruction.opname == "COPY_FREE_VARS":
            continue
        rest = [each for each in instructions[number + 1 : number + 4] if each.opname != "PRECALL"]
        match [each.opname for each in rest]:
            case ["CALL", "LOAD_METHOD" | "LOAD_ATTR", *_]:
                name = rest[1].argval
            case ["LOAD_DEREF", _, "LOAD_SUPER_ATTR"]:
                name = rest[2].argval
            case [_, "LOAD_SUPER_ATTR", *_] if instruction.argval == "__class__":
                name = rest[1].argval
            case _:
                return False
        if name not in _PER_INSTANCE:
            return False
    return True


def _names(argument: Any, name: str) -> bool:
    """Whether the argument of an instruction is a variable, or two of which it is one."""
    return argument == name or (isinstance(argument, tuple) and name in argument)


def _is_given(part: Any, name: str, seen: set[Any]) -> bool:
    """Whether an attribute comes from the class, and is data or a method that uses nothing."""
    base = next((base for base in type(part).__mro__ if name in vars(base)), None)
    # The class may declare what REST framework stores on each instance: that is another thing there.
    if base is None or _is_their_own(base) or name in vars(part):
        return False
    value = vars(base)[name]
    if isinstance(value, FunctionType | staticmethod):
        return _uses_nothing(part, value, seen)
    # Not what could be changed through the serializer: that is of the class, but whoever fills it in may read it back.
    return isinstance(value, str | bytes | int | float | tuple | frozenset | type(None))


def fault_of_fields(serializer_class: SerializerClass) -> str | None:
    """What REST framework says is wrong with the fields that a serializer class declares; None where it says nothing.

    Where code of the project's makes the fields, nobody is asked: it may query.
    """
    theirs = all(
        getattr(serializer_class, name, None) is getattr(ModelSerializer, name) for name in ("__init__", "get_fields")
    )
    if not theirs:
        return None
    made: Any = serializer_class
    with suppress(Exception):
        try:
            made().fields  # noqa: B018
        except (AssertionError, ImproperlyConfigured) as error:
            return str(error)
    return None


def lacks(model: type[Model], serializer_class: SerializerClass) -> list[str]:
    """The fields that a serializer class shows of the model in its ``Meta``, and that another model does not have."""
    meta = getattr(serializer_class, "Meta", None)
    shown = getattr(meta, "model", None)
    if shown is None or issubclass(model, shown):
        return []
    names = getattr(meta, "fields", None)
    if not isinstance(names, list | tuple):
        hidden = getattr(meta, "exclude", None) or ()
        names = [field.name for field in shown._meta.fields if field.name not in hidden]
    declared = getattr(serializer_class, "_declared_fields", {})
    return [name for name in names if name not in declared and not hasattr(model, name)]


def needs_request(serializer_class: SerializerClass) -> str | None:
    """The method of a serializer, or of one nested in it, that takes it for granted that there is a request.

    Read from the source: a method that takes an attribute of ``self.context["request"]``, and tests it nowhere.

    Returns:
        Its qualified name; None where there is none, or its source cannot be read.
    """
    try:
        classes = dict.fromkeys(type(part) for part in _parts(serializer_class(context=context())))
    except Exception:
        return None
    for cls in classes:
        for base in cls.__mro__:
            for method in () if _is_their_own(base) else vars(base).values():
                if isinstance(method, FunctionType) and _asks_a_request(method):
                    return f"{method.__module__}.{method.__qualname__}"
    return None


def _asks_a_request(method: FunctionType) -> bool:
    if "context" not in method.__code__.co_names:
        return False
    tree = source_of(method)
    if tree is None:
        return False
    nodes = list(ast.walk(tree))
    names = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign | ast.NamedExpr) and _is_request(node.value, ())
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    if any(_is_request(tested, names) for node in nodes for tested in _tested(node)):
        return False
    return any(isinstance(node, ast.Attribute) and _is_request(node.value, names) for node in nodes)


def _tested(node: ast.AST) -> list[ast.expr]:
    """What a piece of code tests, or compares."""
    match node:
        case ast.If(test=test) | ast.IfExp(test=test) | ast.Assert(test=test) | ast.UnaryOp(op=ast.Not(), operand=test):
            return [test]
        case ast.BoolOp(values=values):
            return values
        case ast.Compare(left=left, comparators=others):
            return [left, *others]
    return []


def _is_request(node: ast.AST, names: Container[str]) -> bool:
    """Whether an expression is the request: out of ``self.context``, or one of the variables."""
    match node:
        case ast.Name(id=name):
            return name in names
        case ast.Subscript(value=ast.Attribute(attr="context"), slice=ast.Constant(value="request")):
            return True
        case ast.Call(
            func=ast.Attribute(value=ast.Attribute(attr="context"), attr="get"),
            args=[ast.Constant(value="request"), *_],
        ):
            return True
    return False
