"""Every English text that the package may tell a user, read from its source.  Knows syntax; runs nothing.

A text is written with its holes: `{}` for a value, `{text}` for words of ours that are put in, `{s}` for a plural's end.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

TELLERS = {"_tell": 0, "note": 1, "warn": 1, "error": 0, "remark": 2, "problem": 1, "Finding": 2}
"""Function that tells -> which of its arguments is the text."""

METHODS_THAT_KEEP_TEXT = ("strip", "rstrip", "removeprefix", "replace", "capitalize")
MANY = 4
"""Classes that have a method of one name, from which on it is not said whose a call means."""

HOLE = re.compile(r"\{(?:text|s)?\}")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Scope:
    """A function, or a module's top level, and where its names get their values."""

    module: "Module"
    node: ast.AST
    outer: "Scope | None" = None

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """What lies in it, without what lies in functions of its own."""
        found, waiting = [], list(ast.iter_child_nodes(self.node))[::-1]
        while waiting:
            found.append(waiting.pop())
            if not isinstance(found[-1], Function | ast.Lambda | ast.ClassDef):
                waiting += list(ast.iter_child_nodes(found[-1]))[::-1]
        return found

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Name -> annotation."""
        if not isinstance(self.node, Function):
            return {}
        given = self.node.args
        several = (*given.posonlyargs, *given.args, *given.kwonlyargs)
        return {one.arg: ast.unparse(one.annotation) if one.annotation else "" for one in several}

    @cached_property
    def bindings(self) -> dict[str, list[tuple[ast.expr, int | None, bool]]]:
        """Name -> (expression, its part by number, whether it is an element of it) of every place that binds it."""
        found: dict[str, list[tuple[ast.expr, int | None, bool]]] = {}

        def bind(target: ast.expr, value: ast.expr, is_element: bool) -> None:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append((value, None, is_element))
            elif isinstance(target, ast.Tuple):
                for index, one in enumerate(target.elts):
                    if isinstance(one, ast.Name):
                        found.setdefault(one.id, []).append((value, index, is_element))

        for node in self.nodes:
            match node:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        bind(target, value, False)
                case (
                    ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value)
                ):
                    bind(target, value, False)
                case ast.AugAssign(target=ast.Name() as target, value=value):
                    bind(target, value, False)
                case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                    bind(target, value, True)
                case ast.Call(func=ast.Attribute(value=ast.Name() as target, attr="append" | "extend"), args=[value]):
                    bind(target, value, False)
        return found

    @cached_property
    def caught(self) -> set[str]:
        """Names of exceptions of ours that are caught."""
        return {
            node.name
            for node in self.nodes
            if isinstance(node, ast.ExceptHandler) and node.name and names_in(node.type) & self.module.package.errors
        }


@dataclass
class Module:
    package: "Package"
    name: str
    """Such as `tunesmith.config.load`."""
    tree: ast.Module

    @cached_property
    def top(self) -> Scope:
        return Scope(self, self.tree)


def names_in(node: ast.AST | None) -> set[str]:
    """Names, also after a dot, in an expression."""
    inside = list(ast.walk(node)) if node else []
    return {one.id for one in inside if isinstance(one, ast.Name)} | {
        one.attr for one in inside if isinstance(one, ast.Attribute)
    }


def imported_from(module: Module, name: str) -> set[str]:
    """Modules from which a module takes a name."""
    nodes = (one for one in ast.walk(module.tree) if isinstance(one, ast.ImportFrom))
    return {str(one.module) for one in nodes if any((alias.asname or alias.name) == name for alias in one.names)}


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return (
        call.func.attr
        if isinstance(call.func, ast.Attribute)
        else call.func.id
        if isinstance(call.func, ast.Name)
        else ""
    )


def letters(text: str) -> str:
    """A text without its holes and without what is no letter."""
    return "".join(one for one in HOLE.sub("", text) if one.isalpha())


@dataclass
class Package:
    """All files of a package, and the texts that they tell."""

    root: Path
    texts: dict[str, str] = field(default_factory=dict)
    """Text -> a place where it is told."""
    _resolved: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    _told: set[tuple[int, str]] = field(default_factory=set)

    @cached_property
    def modules(self) -> dict[str, Module]:
        found = {}
        for path in sorted(self.root.rglob("*.py")):
            name = ".".join(path.relative_to(self.root.parent).with_suffix("").parts)
            found[str(path.relative_to(self.root))] = Module(self, name, ast.parse(path.read_text("utf-8")))
        return found

    @cached_property
    def scopes(self) -> list[Scope]:
        found: list[Scope] = []

        def visit(node: ast.AST, scope: Scope) -> None:
            for child in ast.iter_child_nodes(node):
                inner = Scope(scope.module, child, scope) if isinstance(child, Function) else scope
                if inner is not scope:
                    found.append(inner)
                visit(child, inner)

        for module in self.modules.values():
            found.append(module.top)
            visit(module.tree, module.top)
        return found

    @cached_property
    def functions(self) -> dict[str, list[Scope]]:
        """Functions that return or yield text, by name."""
        found: dict[str, list[Scope]] = {}
        for scope in self.scopes:
            if isinstance(scope.node, Function) and scope.node.returns and "str" in ast.unparse(scope.node.returns):
                found.setdefault(scope.node.name, []).append(scope)
        return found

    @cached_property
    def calls(self) -> dict[str, list[tuple[Scope, ast.Call]]]:
        """Every call, and where it is, by the name that is called."""
        found: dict[str, list[tuple[Scope, ast.Call]]] = {}
        for scope in self.scopes:
            for node in scope.nodes:
                if isinstance(node, ast.Call):
                    found.setdefault(called(node), []).append((scope, node))
        return found

    @cached_property
    def errors(self) -> set[str]:
        """Names of the exception classes of the package whose text a user may read."""
        classes = {
            node.name: names_in(ast.Tuple(elts=node.bases, ctx=ast.Load()))
            for module in self.modules.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        }
        found = {"Exception", "ValueError"}
        while more := {name for name, bases in classes.items() if bases & found} - found:
            found |= more
        return found - {"Exception", "ValueError"}

    def read(self) -> dict[str, str]:
        """Every text -> the first place that tells it."""
        for scope, call in (one for several in self.calls.values() for one in several):
            for argument in self._told_by(call):
                self.tell(argument, scope)
        return self.texts

    def _told_by(self, call: ast.Call) -> list[ast.expr]:
        name = called(call)
        if name in self.errors:
            return [*call.args]
        if name in TELLERS and len(call.args) > TELLERS[name]:
            return [call.args[TELLERS[name]]]
        about_problems = isinstance(call.func, ast.Attribute) and "problems" in ast.unparse(call.func.value)
        return [call.args[1]] if name == "add" and about_problems and len(call.args) > 1 else []

    def tell(self, expression: ast.expr, scope: Scope) -> None:
        """Note what an expression tells."""
        for text in self.resolve(expression, scope):
            self.texts.setdefault(text, f"{scope.module.name}:{expression.lineno}")

    def resolve(self, node: ast.expr, scope: Scope) -> list[str]:
        """The texts that an expression may be; none when it is a value."""
        key = (id(node), id(scope))
        if key not in self._resolved:
            self._resolved[key] = []  # a text that is made of itself
            self._resolved[key] = list(dict.fromkeys(self._resolve(node, scope)))
        return self._resolved[key]

    def _resolve(self, node: ast.expr, scope: Scope) -> Iterator[str]:
        match node:
            case ast.Constant(value=str() as text):
                yield text
            case ast.JoinedStr(values=parts):
                yield "".join(self._part(part, scope) for part in parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                ends = self._inline(right, scope)
                yield from (one + end for one in self.resolve(left, scope) or ["{}"] for end in ends)
            case ast.IfExp(body=one, orelse=other):
                yield from (*self.resolve(one, scope), *self.resolve(other, scope))
            case ast.BoolOp(values=several) | ast.List(elts=several) | ast.Tuple(elts=several):
                for one in several:
                    yield from self.resolve(one, scope)
            case ast.Dict(values=several):
                for one in several:
                    yield from self.resolve(one, scope)
            case ast.ListComp(elt=one) | ast.GeneratorExp(elt=one) | ast.Starred(value=one) | ast.NamedExpr(value=one):
                yield from self.resolve(one, scope)
            case ast.Subscript(value=one):
                yield from self.resolve(one, scope)
            case ast.Attribute(value=ast.Name(id="catalog" | "foreign" | "rules"), attr=name) | ast.Name(id=name):
                yield from self._named(name, scope)
            case ast.Call():
                yield from self._called(node, scope)

    def _inline(self, node: ast.expr, scope: Scope) -> list[str]:
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            return self.resolve(node, scope)
        return [self._hole(node, scope)]

    def _part(self, part: ast.expr, scope: Scope) -> str:
        if isinstance(part, ast.Constant):
            return str(part.value)
        assert isinstance(part, ast.FormattedValue)
        return self._hole(part.value, scope)

    def _hole(self, node: ast.expr, scope: Scope) -> str:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
            return "{s}"
        self.tell(node, scope)
        is_text = any(" " in one.strip() and letters(one) for one in self.resolve(node, scope))
        return "{text}" if is_text or (isinstance(node, ast.Name) and node.id in scope.caught) else "{}"

    def _named(self, name: str, scope: Scope) -> Iterator[str]:
        inner: Scope | None = scope
        while inner:
            if name in inner.bindings:
                for value, index, is_element in inner.bindings[name]:
                    yield from self._element(value, index, is_element, inner)
                return
            if name in inner.parameters:
                if "str" in inner.parameters[name]:
                    self._tell_callers(inner, name)
                return
            inner = inner.outer
        for module in self.modules.values():  # imported
            for value, index, is_element in module.top.bindings.get(name, ()):
                yield from self._element(value, index, is_element, module.top)

    def _element(self, value: ast.expr, index: int | None, is_element: bool, scope: Scope) -> Iterator[str]:
        if index is None:
            yield from self.resolve(value, scope)
            return
        literal = self._literal(value, scope)
        if isinstance(literal, ast.Dict):
            if index == 1:
                yield from self.resolve(literal, scope)
        elif isinstance(literal, ast.Tuple | ast.List):
            rows = literal.elts if is_element else [literal]
            for row in rows:
                if isinstance(row, ast.Tuple) and index < len(row.elts):
                    yield from self.resolve(row.elts[index], scope)

    def _literal(self, node: ast.expr, scope: Scope) -> ast.expr:
        """The literal that a name, or the items of one, stands for."""
        if isinstance(node, ast.Call) and called(node) == "items" and isinstance(node.func, ast.Attribute):
            node = node.func.value
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        for module in (scope.module, *self.modules.values()) if name else ():
            if bound := module.top.bindings.get(name):
                return bound[0][0]
        return node

    def _tell_callers(self, scope: Scope, parameter: str) -> None:
        """A text that a function is given is told by those who call it."""
        if not isinstance(scope.node, Function) or (id(scope), parameter) in self._told:
            return
        self._told.add((id(scope), parameter))
        index = [*scope.parameters].index(parameter)
        is_method = next(iter(scope.parameters)) in ("self", "cls")
        for caller, call in self.calls.get(scope.node.name, ()):
            if caller.module is not scope.module and scope.node.name.startswith("_"):
                continue
            place = index - (is_method and isinstance(call.func, ast.Attribute))
            given = next((one.value for one in call.keywords if one.arg == parameter), None)
            given = given or (call.args[place] if place < len(call.args) else None)
            if given is not None:
                self.tell(given, caller)

    def _called(self, call: ast.Call, scope: Scope) -> Iterator[str]:
        name = called(call)
        if name in ("str", "next", "list", "sorted", "tuple") and call.args:
            for one in call.args:
                yield from self.resolve(one, scope)
        elif name == "join" and isinstance(call.func, ast.Attribute) and call.args:
            if not isinstance(self._literal(call.args[0], scope), ast.Dict):  # whose keys are joined
                yield from self.resolve(call.args[0], scope)
        elif name == "get" and isinstance(call.func, ast.Attribute):
            yield from self.resolve(call.func.value, scope)
            for one in call.args[1:]:
                yield from self.resolve(one, scope)
        elif name in METHODS_THAT_KEEP_TEXT and isinstance(call.func, ast.Attribute):
            yield from self.resolve(call.func.value, scope)
        else:
            for function in self._meant(call, scope):
                yield from self._returned(function)

    def _meant(self, call: ast.Call, scope: Scope) -> list[Scope]:
        """The functions of ours that a call may be of."""
        known = self.functions.get(called(call), [])
        here = [one for one in known if one.module is scope.module]
        if isinstance(call.func, ast.Name):
            return here or [one for one in known if one.module.name in imported_from(scope.module, call.func.id)]
        of_module = [one for one in known if one.module.name.split(".")[-1] in names_in(call.func.value)]
        methods = [one for one in known if "self" in one.parameters]
        return of_module or (methods if len(methods) < MANY else [])

    def _returned(self, function: Scope) -> Iterator[str]:
        for node in function.nodes:
            if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) and node.value is not None:
                yield from self.resolve(node.value, function)


def sentences(root: Path) -> dict[str, str]:
    """Every text of the package below `root` that a user may read -> a place that tells it."""
    return {text.strip("\n"): place for text, place in Package(root).read().items() if letters(text)}
