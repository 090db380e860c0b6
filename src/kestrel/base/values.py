"""Frozen dataclasses without their module, for programs that must start at once.

`dataclasses` loads `inspect`, `ast` and the regular expressions, and compiles an `__init__`, `__repr__` and `__eq__`
for every class: some 20 ms before a container is started by a command. What the runtime needs of it is here: keyword or
positional arguments in the order of the annotations, defaults, `slots`, equality, and no assignment afterwards. To
checkers, and to whoever asks a class for its fields, these are dataclasses.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace

    __all__ = ["asdict", "dataclass", "field", "replace"]
else:
    _MISSING = object()

    class _Default:
        """What `field(...)` says of a field."""

        __slots__ = ("compare", "factory", "value")

        def __init__(self, value, factory, compare):
            self.value = value
            self.factory = factory
            self.compare = compare

    def field(*, default=_MISSING, default_factory=None, compare=True):
        """Say more of a field than its default."""
        return _Default(default, default_factory, compare)

    class _Described:
        """`__dataclass_fields__`, made when somebody asks: the standard library's functions do."""

        def __get__(self, instance, owner):
            import dataclasses

            found = {}
            for name, default in owner.__defaults__.items():
                options = {"compare": default.compare}
                if default.factory is not None:
                    options["default_factory"] = default.factory
                elif default.value is not _MISSING:
                    options["default"] = default.value
                entry = dataclasses.field(**options)
                entry.name, entry._field_type = name, dataclasses._FIELD
                found[name] = entry
            return found

    class _Value:
        """What all of them do."""

        __slots__ = ()
        __dataclass_fields__ = _Described()
        __defaults__ = {}
        __named_only__ = False

        def __init__(self, *given, **named):
            if given and self.__named_only__:
                raise TypeError(f"{type(self).__name__}: arguments are given by name")
            put = object.__setattr__
            names = iter(self.__defaults__)
            for value in given:
                name = next(names, None)
                if name is None or name in named:
                    raise TypeError(f"{type(self).__name__}: too many arguments, or {name!r} is given twice")
                put(self, name, value)
            for name in names:
                if name in named:
                    put(self, name, named.pop(name))
                    continue
                default = self.__defaults__[name]
                if default.factory is not None:
                    put(self, name, default.factory())
                elif default.value is not _MISSING:
                    put(self, name, default.value)
                else:
                    raise TypeError(f"{type(self).__name__}: missing argument {name!r}")
            if named:
                raise TypeError(f"{type(self).__name__}: unexpected argument {next(iter(named))!r}")

        def __setattr__(self, name, _value):
            raise AttributeError(f"cannot assign to field {name!r}")

        def __delattr__(self, name):
            raise AttributeError(f"cannot delete field {name!r}")

        def _compared(self):
            return tuple(getattr(self, name) for name, default in self.__defaults__.items() if default.compare)

        def __eq__(self, other):
            return self._compared() == other._compared() if type(other) is type(self) else NotImplemented

        def __hash__(self):
            return hash(self._compared())

        def __repr__(self):
            shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__defaults__)
            return f"{type(self).__qualname__}({shown})"

        def __getstate__(self):
            return [getattr(self, name) for name in self.__defaults__]

        def __setstate__(self, values):
            for name, value in zip(self.__defaults__, values, strict=True):
                object.__setattr__(self, name, value)

    def dataclass(*, frozen, slots=True, kw_only=False):
        """Make a frozen class of values out of one with annotations."""
        assert frozen
        assert slots

        def make(cls):
            body = dict(cls.__dict__)
            inherited = dict(cls.__defaults__) if issubclass(cls, _Value) else {}
            own = {name: _default(body.pop(name, _MISSING)) for name, kind in _annotations(body) if _is_field(kind)}
            for name in ("__dict__", "__weakref__"):
                body.pop(name, None)
            body["__slots__"] = tuple(name for name in own if name not in inherited)
            body["__defaults__"] = {**inherited, **own}
            body["__named_only__"] = kw_only
            bases = cls.__bases__
            if not issubclass(cls, _Value):
                bases = (*(base for base in bases if base is not object), _Value)
            made = type(cls)(cls.__name__, bases, body)
            made.__qualname__ = cls.__qualname__
            return made

        return make

    def _annotations(body):
        return body.get("__annotations__", {}).items()

    def _is_field(kind):
        return "ClassVar" not in (kind if isinstance(kind, str) else repr(kind))

    def _default(value):
        return value if isinstance(value, _Default) else _Default(value, None, True)

    def replace(value, **changes):
        """Return a copy with other values for some fields."""
        return type(value)(**{**{name: getattr(value, name) for name in value.__defaults__}, **changes})

    def asdict(value):
        """Return the fields as plain values, all the way down."""
        if isinstance(value, _Value):
            return {name: asdict(getattr(value, name)) for name in value.__defaults__}
        if isinstance(value, (list, tuple)):
            return type(value)(asdict(item) for item in value)
        if isinstance(value, dict):
            return {key: asdict(item) for key, item in value.items()}
        return value
