"""Conditions of rules: a small language of metrics and numbers, compiled to numpy.

    GPU_UTIL >= 90 and SM_CLOCK < share * model_median(SM_CLOCK)

Metrics are written in upper case, with or without ``DCGM_FI_DEV_``, ``DCGM_FI_PROF_`` or ``DCGM_EXP_``; numbers of the rule's
settings in lower case. ``held`` is whether a pod has the GPU. FUNCTIONS has the functions. A condition is judged for many points
at once, and three-valued: what compares with an unknown value is neither true nor false.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from health.rules.errors import RulesError
from readings.catalogue import CATALOGUE

Floats: TypeAlias = NDArray[np.float64]
Masks: TypeAlias = NDArray[np.bool_]

MAX_TEXT = 500
# Windows of growth: the engine keeps as much of a counter's past.
SHORTEST_WINDOW, LONGEST_WINDOW = 60.0, 7 * 86400.0
# Above it a float cannot tell one bit from the next.
MAX_BITS = float(1 << 53)

_PREFIXES = ("DCGM_FI_DEV_", "DCGM_FI_PROF_", "DCGM_EXP_")

# PCIe replays a minute and lane that DCGM takes for normal, by generation (DcgmHealthWatch.cpp).
REPLAYS_PER_LANE = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
REPLAYS_UNKNOWN_LINK = 31.0


class View(Protocol):
    """What a condition asks for: values at the n points that are judged. NaN is unknown. The engine implements it."""

    def value(self, metric: str) -> Floats: ...

    def lowest(self, metric: str) -> Floats:
        """The lowest of the metric's parts; ``value`` is the highest."""

    def increase(self, metric: str) -> Floats:
        """Growth since the previous sample of the metric; after a reset the new value."""

    def seconds(self, metric: str) -> Floats:
        """Seconds since the previous sample of the metric."""

    def windowed(self, metric: str, window_s: float) -> Floats:
        """Growth within the last ``window_s`` seconds."""

    def setting(self, name: str) -> Floats | float:
        """A number of the rule, by the model of each point's GPU."""

    def held(self) -> Masks: ...

    def model_median(self, metric: str) -> Floats: ...

    def model_p90(self, metric: str) -> Floats: ...

    def age(self, metric: str) -> Floats:
        """Seconds since the last reading of the metric."""


_Number: TypeAlias = Callable[[View], Floats | float]
_Truth: TypeAlias = Callable[[View], tuple[Masks, Masks]]


class Function(NamedTuple):
    """A function of the language: how to write it, and its result."""

    usage: str
    gives: str


FUNCTIONS: Mapping[str, Function] = {
    "increase": Function("increase(METRIC)", "growth since the sample before"),
    "per_second": Function("per_second(METRIC)", "that growth, by second"),
    "per_minute": Function("per_minute(METRIC)", "that growth, by minute"),
    "per_hour": Function("per_hour(METRIC, seconds)", "growth by hour, over the last so many seconds"),
    "growth": Function("growth(METRIC, seconds)", "growth within the last so many seconds"),
    "bits": Function("bits(METRIC, mask)", "whether any bit of the mask is set"),
    "known": Function("known(number)", "whether a metric, or what is reckoned from it, has a value"),
    "lowest": Function("lowest(METRIC)", "the lowest of its parts, as of all NVLinks of a GPU"),
    "age": Function("age(METRIC)", "seconds since its last reading"),
    "replay_limit": Function("replay_limit(METRIC, METRIC)", "DCGM's limit of PCIe replays a minute, by generation and width"),
    "model_median": Function("model_median(METRIC)", "median of the busy GPUs of the same model"),
    "model_p90": Function("model_p90(METRIC)", "90th percentile of the busy GPUs of the same model"),
}  # fmt: skip


def short_name(metric: str) -> str:
    """A metric's name without the prefix that most have."""
    for prefix in _PREFIXES:
        if metric.startswith(prefix):
            return metric.removeprefix(prefix)
    return metric


def _names() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for metric in CATALOGUE.values():
        for name in (metric.name, *metric.aliases):
            for form in (name, short_name(name)):
                if form.isupper():
                    found.setdefault(form, set()).add(metric.name)
    return found


# The names of metrics in conditions, with what each may mean.
METRICS = _names()


class Condition:
    """A compiled condition.

    ``metrics`` are the canonical names of all metrics in it, ``functions`` the pairs of function and metric, ``windows`` the pairs
    of metric and seconds whose growth it asks for, ``settings`` the names of the numbers.
    """

    __slots__ = ("_judge", "_sides", "functions", "metrics", "settings", "text", "windows")

    def __init__(self, text: str, compiler: _Compiler, judge: _Truth) -> None:
        self.text = text
        self.metrics = tuple(dict.fromkeys(compiler.metrics))
        self.functions = tuple(dict.fromkeys(compiler.functions))
        self.windows = tuple(dict.fromkeys(compiler.windows))
        self.settings = tuple(dict.fromkeys(compiler.settings))
        self._judge = _without_warnings(judge) if compiler.has_arithmetic else judge
        self._sides = compiler.sides

    def judge(self, view: View) -> tuple[Masks, Masks]:
        """Where it is true, and where it is false. Where it is neither, it is unknown."""
        return self._judge(view)

    def figures(self, view: View, index: int) -> dict[str, float]:
        """The numbers behind it at one point: ``value`` and ``limit`` (the sides of its first comparison), every metric under its
        short name, every setting. What is unknown is left out. For summaries: slow."""
        found: dict[str, Floats | float] = {}
        if self._sides is not None:
            left, right = self._sides
            with np.errstate(all="ignore"):
                found |= {"value": left(view), "limit": right(view)}
        found |= {short_name(metric): view.value(metric) for metric in self.metrics}
        found |= {name: view.setting(name) for name in self.settings}
        at_point = {
            name: float(value if isinstance(value, float | int) else value.flat[index if value.size > 1 else 0])
            for name, value in found.items()
        }
        return {name: value for name, value in at_point.items() if math.isfinite(value)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and (self.text, self.windows) == (other.text, other.windows)

    def __hash__(self) -> int:
        return hash((self.text, self.windows))

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"


def compile_condition(text: str, settings: Mapping[str, float] | None = None) -> Condition:
    """The condition that ``text`` says. Its lower-case names are those of ``settings``. Raises RulesError with the position."""
    plain = " ".join(text.split())
    if not plain:
        raise RulesError("the condition is empty")
    if len(plain) > MAX_TEXT:
        raise RulesError(f"the condition has {len(plain)} characters; at most {MAX_TEXT} are allowed")
    if not plain.isprintable():
        raise RulesError(f"the condition {plain!r} has characters that cannot be printed")
    try:
        tree = ast.parse(plain, mode="eval")
    except SyntaxError as error:
        raise RulesError(f'"{plain}", at {error.offset or len(plain) + 1}: {error.msg}') from None
    except (ValueError, RecursionError, MemoryError):
        raise RulesError(f'"{plain}" cannot be read') from None
    compiler = _Compiler(plain, settings or {})
    judge = compiler.truth(tree.body)
    if not compiler.metrics and not compiler.has_held:
        raise RulesError(f'"{plain}" looks at no metric')
    return Condition(plain, compiler, judge)


class _Compiler:
    """Compiles the parts of one condition, and notes what they use."""

    def __init__(self, text: str, settings: Mapping[str, float]) -> None:
        self._text = text
        self._known = settings
        self.metrics: list[str] = []
        self.functions: list[tuple[str, str]] = []
        self.windows: list[tuple[str, float]] = []
        self.settings: list[str] = []
        self.has_arithmetic = False
        self.has_held = False
        self.sides: tuple[_Number, _Number] | None = None

    # Truth values

    def truth(self, node: ast.expr) -> _Truth:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return _all_of([self.truth(value) for value in values])
            case ast.BoolOp(op=ast.Or(), values=values):
                return _any_of([self.truth(value) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _not(self.truth(operand))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._comparisons(left, ops, comparators)
            case ast.Name(id="held"):
                self.has_held = True
                return _is_held
            case ast.Call(func=ast.Name(id="bits")):
                return self._bits(node)
            case ast.Call(func=ast.Name(id="known")):
                (operand,) = self._arguments(node, 1)
                return _known(self.number(operand))
        self.number(node)  # a better complaint, if it is not a number either
        raise self._error(node, f"{ast.unparse(node)} is a number: compare it, as in {ast.unparse(node)} > 0")

    def _comparisons(self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr]) -> _Truth:
        found = []
        for op, right in zip(ops, rights, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                found.append(self._membership(left, right, isinstance(op, ast.NotIn)))
            else:
                symbol = _COMPARISONS.get(type(op))
                if symbol is None:
                    raise self._error(left, "compare with one of < <= > >= == != in")
                sides = self.number(left), self.number(right)
                self.sides = self.sides or sides
                found.append(_compared(symbol, *sides))
            left = right
        return found[0] if len(found) == 1 else _all_of(found)

    def _membership(self, left: ast.expr, right: ast.expr, is_negated: bool) -> _Truth:
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise self._error(right, "after in comes a list of numbers, as (1, 2, 4)")
        number = self.number(left)
        members = [self.number(member) for member in right.elts]
        self.sides = self.sides or (number, members[0])
        found = _one_of(number, members)
        return _not(found) if is_negated else found

    def _bits(self, node: ast.Call) -> _Truth:
        metric, mask = self._arguments(node, 2)
        name = self._metric(metric, "bits")
        if isinstance(mask, ast.Constant) and (type(mask.value) is not int or not 0 < mask.value <= MAX_BITS):
            raise self._error(mask, "a mask is a whole number above 0, as 0xE8")
        number = self.number(mask)
        self.sides = self.sides or (lambda view: view.value(name), number)
        return _bits(name, number)

    # Numbers

    def number(self, node: ast.expr) -> _Number:
        match node:
            case ast.Constant(value=value):
                constant = _finite(value)
                if constant is None:
                    raise self._error(node, f"{ast.unparse(node)} is no number")
                return _constant(constant)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self.has_arithmetic = True
                return _negative(self.number(operand))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand)
            case ast.BinOp(left=left, op=op, right=right):
                combine = _ARITHMETIC.get(type(op))
                if combine is None:
                    raise self._error(node, "reckon with + - * / only")
                self.has_arithmetic = True
                return _combined(combine, self.number(left), self.number(right))
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Call(func=ast.Name(id=name)):
                return self._call(node, name)
            case ast.Call():
                raise self._error(node, f"no such function; there are {', '.join(FUNCTIONS)}")
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(op=ast.Not()):
                raise self._error(node, f"{ast.unparse(node)} is true or false where a number is needed")
        raise self._error(
            node,
            f"{ast.unparse(node)} is not part of the language: metrics, settings, numbers, functions and operators are",
        )

    def _name(self, node: ast.expr, name: str) -> _Number:
        if name == "held":
            raise self._error(node, "held is true or false where a number is needed")
        if name in self._known:
            self.settings.append(name)
            return lambda view: view.setting(name)
        metric = self._metric(node, "value")
        return lambda view: view.value(metric)

    def _call(self, node: ast.Call, name: str) -> _Number:
        if name not in FUNCTIONS:
            raise self._error(node, f"no function {name}; there are {', '.join(FUNCTIONS)}")
        if name in ("bits", "known"):
            raise self._error(node, f"{name} is true or false where a number is needed")
        if name == "replay_limit":
            generation, width = self._arguments(node, 2)
            return _replay_limit(self._metric(generation, name), self._metric(width, name))
        if name in ("per_hour", "growth"):
            first, second = self._arguments(node, 2)
            metric, window = self._metric(first, name), self._window(second)
            self.windows.append((metric, window))
            return _windowed(metric, window, 3600.0 / window if name == "per_hour" else 1.0)
        (first,) = self._arguments(node, 1)
        metric = self._metric(first, name)
        match name:
            case "increase":
                return lambda view: view.increase(metric)
            case "per_second" | "per_minute":
                self.has_arithmetic = True
                return _rate(metric, 60.0 if name == "per_minute" else 1.0)
            case "age":
                return lambda view: view.age(metric)
            case "lowest":
                return lambda view: view.lowest(metric)
            case "model_median":
                return lambda view: view.model_median(metric)
            case _:
                return lambda view: view.model_p90(metric)

    def _arguments(self, node: ast.Call, count: int) -> list[ast.expr]:
        name = ast.unparse(node.func)
        if node.keywords or len(node.args) != count:
            raise self._error(node, f"write {FUNCTIONS[name].usage}")
        return node.args

    def _metric(self, node: ast.expr, function: str) -> str:
        name = node.id if isinstance(node, ast.Name) else ast.unparse(node)
        found = METRICS.get(name, set())
        if len(found) > 1:
            raise self._error(node, f"{name} may be {' or '.join(sorted(found))}: write the whole name")
        if not found:
            raise self._error(node, self._unknown(name))
        (metric,) = found
        self.metrics.append(metric)
        self.functions.append((function, metric))
        return metric

    def _unknown(self, name: str) -> str:
        allowed = [*self._known, "held"]
        near = difflib.get_close_matches(name, [*METRICS, *allowed], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"no metric or setting {name}{hint} (settings here: {', '.join(allowed)}; metrics: those of /api/v1/metrics)"

    def _window(self, node: ast.expr) -> float:
        """The seconds of a window: a number, or a setting of the rule. Those of single models do not change it."""
        window: float | None = None
        if isinstance(node, ast.Constant):
            window = _finite(node.value)
        elif isinstance(node, ast.Name) and node.id in self._known:
            self.settings.append(node.id)
            window = self._known[node.id]
        if window is None or not SHORTEST_WINDOW <= window <= LONGEST_WINDOW:
            raise self._error(
                node,
                f"the window is a number of seconds or a setting, from {SHORTEST_WINDOW:g} to {LONGEST_WINDOW:g}",
            )
        return window

    def _error(self, node: ast.expr, what: str) -> RulesError:
        return RulesError(f'"{self._text}", at {node.col_offset + 1}: {what}')


def _finite(value: object) -> float | None:
    """A constant as a number; None if it is none, or one that no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


def _divided(left: Floats | float, right: Floats | float) -> Floats | float:
    quotient: Floats = np.true_divide(left, right)
    return np.where(np.isfinite(quotient), quotient, np.nan)


# Operators. A function that makes a function: the closures are what runs for every block.


def _constant(value: float) -> _Number:
    return lambda view: value


def _negative(number: _Number) -> _Number:
    return lambda view: -number(view)


def _combined(combine: Callable[..., Floats | float], left: _Number, right: _Number) -> _Number:
    return lambda view: combine(left(view), right(view))


def _rate(metric: str, unit_seconds: float) -> _Number:
    def number(view: View) -> Floats:
        seconds = view.seconds(metric)
        return np.where(seconds > 0, view.increase(metric) * unit_seconds / seconds, np.nan)

    return number


def _windowed(metric: str, window: float, factor: float) -> _Number:
    if factor == 1.0:
        return lambda view: view.windowed(metric, window)
    return lambda view: view.windowed(metric, window) * factor


def _replay_limit(generation: str, width: str) -> _Number:
    def number(view: View) -> Floats:
        return replay_limits(view.value(generation), view.value(width))

    return number


def replay_limits(generation: Floats, width: Floats) -> Floats:
    """The replays a minute that DCGM takes for normal on a link; 31 where generation or width is unknown."""
    per_lane = np.full(generation.shape, np.nan)
    for number, share in REPLAYS_PER_LANE.items():
        per_lane[generation == number] = share
    limits = np.ceil(per_lane * width)
    return np.where(limits > 0, limits, REPLAYS_UNKNOWN_LINK)


_COMPARE: Mapping[str, tuple[Callable[..., Masks], Callable[..., Masks]]] = {
    "<": (np.less, np.greater_equal),
    "<=": (np.less_equal, np.greater),
    ">": (np.greater, np.less_equal),
    ">=": (np.greater_equal, np.less),
}


def _compared(symbol: str, left: _Number, right: _Number) -> _Truth:
    if symbol in ("==", "!="):
        equal = _one_of(left, [right])
        return equal if symbol == "==" else _not(equal)
    is_true, is_false = _COMPARE[symbol]

    def judge(view: View) -> tuple[Masks, Masks]:
        first, second = left(view), right(view)
        return is_true(first, second), is_false(first, second)

    return judge


def _one_of(number: _Number, members: list[_Number]) -> _Truth:
    """Whether a number is one of several. Unknown members only matter where no other is the one."""

    def judge(view: View) -> tuple[Masks, Masks]:
        first = number(view)
        is_known = np.equal(first, first)  # a NaN is not equal to itself
        is_true = np.zeros_like(is_known)
        for member in members:
            second = member(view)
            is_true = is_true | np.equal(first, second)
            is_known = is_known & np.equal(second, second)
        return is_true, is_known & ~is_true

    return judge


def _bits(metric: str, mask: _Number) -> _Truth:
    def judge(view: View) -> tuple[Masks, Masks]:
        value = view.value(metric)
        is_known = (value >= 0) & (value <= MAX_BITS)
        bits = np.where(is_known, value, 0.0).astype(np.int64)
        wanted = np.asarray(mask(view), np.float64).astype(np.int64)
        is_set = (bits & wanted) != 0
        return is_set, is_known & ~is_set

    return judge


def _known(number: _Number) -> _Truth:
    def judge(view: View) -> tuple[Masks, Masks]:
        is_unknown = np.isnan(number(view))
        return ~is_unknown, is_unknown

    return judge


def _is_held(view: View) -> tuple[Masks, Masks]:
    held = view.held()
    return held, ~held


def _not(judge: _Truth) -> _Truth:
    def negated(view: View) -> tuple[Masks, Masks]:
        is_true, is_false = judge(view)
        return is_false, is_true

    return negated


def _all_of(judges: list[_Truth]) -> _Truth:
    first, *rest = judges

    def judge(view: View) -> tuple[Masks, Masks]:
        is_true, is_false = first(view)
        for other in rest:
            also_true, also_false = other(view)
            is_true, is_false = is_true & also_true, is_false | also_false
        return is_true, is_false

    return judge


def _any_of(judges: list[_Truth]) -> _Truth:
    first, *rest = judges

    def judge(view: View) -> tuple[Masks, Masks]:
        is_true, is_false = first(view)
        for other in rest:
            also_true, also_false = other(view)
            is_true, is_false = is_true | also_true, is_false & also_false
        return is_true, is_false

    return judge


def _without_warnings(judge: _Truth) -> _Truth:
    """The same, where numbers may overflow: what comes of it is unknown or as large as can be."""

    def quiet(view: View) -> tuple[Masks, Masks]:
        with np.errstate(all="ignore"):
            return judge(view)

    return quiet


_ARITHMETIC: Mapping[type[ast.operator], Callable[..., Floats | float]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: _divided,
}  # fmt: skip
